"""Trained tokenizers give any text back, reload, and see only training documents; others are checked."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from lab.data import DataConfig, DataError, load_tokenizer
from lab.data.documents import Document, Skipped, as_document, in_share
from lab.data.encoder import Encoder
from lab.data.tokenizer import END_TOKEN, train_bpe


def document(text: str) -> Document:
    made = as_document(text, Skipped())
    assert made is not None
    return made


ENCODER_TEXT = [document(f"def f{n}(x):\n    return x + {n}  # the number {n}\n") for n in range(200)]
BACKEND = train_bpe(ENCODER_TEXT, 400, progress=False)
ENCODER = Encoder(BACKEND.to_str(), BACKEND.token_to_id(END_TOKEN))


@settings(max_examples=200, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_comes_back(text: str) -> None:
    [ids] = ENCODER.encode([text])
    assert ids[-1] == ENCODER.end and (ids[:-1] != ENCODER.end).all()
    assert BACKEND.decode(ids[:-1].tolist()) == text


def test_the_name_of_the_end_token_is_ordinary_text() -> None:
    [ids] = ENCODER.encode([f"a {END_TOKEN} b"])
    assert (ids == ENCODER.end).sum() == 1


def write_lines(path: Path, count: int = 400) -> DataConfig:
    path.write_text("\n".join(f"line {n} says wörd{n % 7} again" for n in range(count)))
    return DataConfig(
        source=(str(path),),
        text_unit="line",
        tokenizer="bpe:300",
        heldout_fraction=0.3,
        cache_dir=str(path.parent / "cache"),
    )


def test_round_trip_through_save_pretrained(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(write_lines(tmp_path / "a.txt"), progress=False)
    assert tokenizer.eos_token == tokenizer.pad_token == tokenizer.bos_token == END_TOKEN
    assert len(tokenizer) == 300
    tokenizer.save_pretrained(tmp_path / "saved")
    reloaded = AutoTokenizer.from_pretrained(tmp_path / "saved")
    text = "if x :\n\treturn 'wörd' , \"☃𝕏\"  !  don 't .  \r\n"
    ids = tokenizer(text).input_ids
    assert reloaded(text).input_ids == ids
    assert tokenizer.decode(ids) == reloaded.decode(ids) == text
    assert reloaded.get_vocab() == tokenizer.get_vocab() and reloaded.eos_token_id == tokenizer.eos_token_id


def test_training_is_deterministic_and_sees_only_training_documents(tmp_path: Path) -> None:
    config = write_lines(tmp_path / "a.txt")
    trained = load_tokenizer(config, progress=False)
    lines = [document(line) for line in (tmp_path / "a.txt").read_text().splitlines()]
    training = [line for line in lines if not in_share(line, 0.3)]
    assert 0 < len(training) < len(lines)
    again = train_bpe(training, 300, progress=False)
    assert trained.get_vocab() == again.get_vocab()
    assert again.to_str() == train_bpe(training, 300, progress=False).to_str()
    assert train_bpe(lines, 300, progress=False).to_str() != again.to_str()


def test_a_tokenizer_without_end_token_says_what_to_do(tmp_path: Path) -> None:
    plain = Tokenizer(models.WordLevel({"a": 0, "?": 1}, unk_token="?"))
    plain.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=plain, unk_token="?").save_pretrained(tmp_path)
    with pytest.raises(DataError, match=r"--data\.tokenizer .*no end token.*eos_token"):
        load_tokenizer(DataConfig(tokenizer=str(tmp_path)), progress=False)


def test_an_unknown_tokenizer_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"--data\.tokenizer .*empty: no tokenizer could be loaded.*bpe:4096"):
        load_tokenizer(DataConfig(tokenizer=str(tmp_path / "empty")), progress=False)


def test_truncation_and_templates_of_a_tokenizer_do_not_touch_documents() -> None:
    backend = Tokenizer.from_str(BACKEND.to_str())
    backend.enable_truncation(3)
    backend.enable_padding(length=50)
    encoder = Encoder(backend.to_str(), ENCODER.end)
    assert encoder.encode(["a longer text"])[0].tolist() == ENCODER.encode(["a longer text"])[0].tolist()
