"""The name of a special token in a document is ordinary text, for every kind of tokenizer."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast, T5Tokenizer

from lab.data import DataConfig, DataError, prepare
from lab.data.begin import begin_token
from lab.data.encoder import Encoder

SPECIAL = ["<pad>", "</s>", "<unk>", "<s>", "<extra_id_0>"]
END, UNKNOWN, BEGIN = 1, 2, 3
LINES = [f"the stone in river {number} of <a> / <b> is 'solid' & _old_ </b>" for number in range(60)]


def unigram(byte_fallback: bool = False) -> Tokenizer:
    trained = Tokenizer(models.Unigram())
    trained.pre_tokenizer, trained.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    trainer = trainers.UnigramTrainer(vocab_size=120, special_tokens=SPECIAL, unk_token="<unk>", show_progress=False)
    trained.train_from_iterator(LINES, trainer)
    if byte_fallback:
        pieces = sorted(trained.get_vocab(), key=trained.get_vocab().get)
        scored = [(piece, 0.0 if piece in SPECIAL else -3.0 - len(piece) % 2) for piece in pieces]
        in_bytes = [(f"<0x{byte:02X}>", 0.0) for byte in range(256)]
        trained.model = models.Unigram([*scored, *in_bytes], unk_id=UNKNOWN, byte_fallback=True)
        trained.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace()])
        trained.add_special_tokens(SPECIAL)
    return trained


def bpe(**options: bool) -> Tokenizer:
    trained = Tokenizer(models.BPE(unk_token="<unk>", **options))
    trained.pre_tokenizer, trained.decoder = pre_tokenizers.WhitespaceSplit(), None
    trained.train_from_iterator(LINES, trainers.BpeTrainer(vocab_size=200, special_tokens=SPECIAL, show_progress=False))
    return trained


def bpe_with_merges_to_it() -> Tokenizer:
    letters = [*SPECIAL, *"</s>tone", "</", "s>"]
    vocabulary = {token: number for number, token in enumerate(dict.fromkeys(letters))}
    made = Tokenizer(models.BPE(vocabulary, [("<", "/"), ("s", ">"), ("</", "s>")], unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made.add_special_tokens(SPECIAL)
    return made


def byte_level() -> Tokenizer:
    trained = Tokenizer(models.BPE(ignore_merges=True))
    trained.pre_tokenizer, trained.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    trained.train_from_iterator(LINES, trainer)
    return trained


def words(piecewise: bool) -> Tokenizer:
    known = [*SPECIAL, "stone", "river", *"abcdefghijklmnopqrstuvwxyz<>/_0123456789"]
    vocabulary = {token: number for number, token in enumerate(known)}
    model = models.WordPiece if piecewise else models.WordLevel
    made = Tokenizer(model(vocabulary, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made.add_special_tokens(SPECIAL)
    return made


KINDS: dict[str, Callable[[], Tokenizer]] = {
    "unigram": unigram,
    "unigram with byte fallback": lambda: unigram(byte_fallback=True),
    "bpe": bpe,
    "bpe with ignore_merges": lambda: bpe(ignore_merges=True),
    "bpe with merges to a special token": bpe_with_merges_to_it,
    "byte-level bpe": byte_level,
    "word level": lambda: words(piecewise=False),
    "word piece": lambda: words(piecewise=True),
}


@pytest.mark.parametrize("kind", KINDS)
def test_names_of_special_tokens_are_text(kind: str) -> None:
    tokenizer = KINDS[kind]()
    assert [tokenizer.token_to_id(name) for name in SPECIAL] == [0, 1, 2, 3, 4]
    encoder = Encoder(tokenizer.to_str(), END)
    texts = [f"stone {name} river" for name in SPECIAL] + SPECIAL + ["".join(SPECIAL) * 3, "</s></s>", "a</s>b"]
    for text, ids in zip(texts, encoder.encode(texts), strict=True):
        assert len(ids) > 1 and ids[-1] == END
        assert not set(ids[:-1].tolist()) & {0, 1, 3, 4}, text
        assert encoder.byte_counts(text, ids).sum() == len(text.encode())
    assert encoder.max_text_id == max(tokenizer.get_vocab().values()) == encoder.max_id


@pytest.mark.parametrize("kind", KINDS)
def test_all_other_text_is_what_it_was(kind: str) -> None:
    tokenizer = KINDS[kind]()
    encoder = Encoder(tokenizer.to_str(), END)
    texts = ["the stone in river 7", "old, odd & 'solid' \u2603 \U0001f600 é", "a < b > c / d"]
    for text, ids in zip(texts, encoder.encode(texts), strict=True):
        assert ids[:-1].tolist() == tokenizer.encode(text, add_special_tokens=False).ids


@pytest.mark.parametrize("kind", ["unigram", "unigram with byte fallback", "byte-level bpe"])
def test_they_decode_to_what_was_written(kind: str) -> None:
    tokenizer = KINDS[kind]()
    text = "the </s> of <s>"
    [ids] = Encoder(tokenizer.to_str(), END).encode([text])
    assert tokenizer.decode(ids[:-1].tolist(), skip_special_tokens=False) == text


def test_the_name_of_a_byte_is_text_too() -> None:
    tokenizer = unigram(byte_fallback=True)
    encoder = Encoder(tokenizer.to_str(), END)
    text = "old <0x31> <0x32> stone \u2603"
    [ids] = encoder.encode([text])
    tokens = [tokenizer.id_to_token(number) for number in ids]
    assert not {"<0x31>", "<0x32>"} & set(tokens) and tokens[-4:-1] == ["<0xE2>", "<0x98>", "<0x83>"]
    assert tokenizer.decode(ids[:-1].tolist()) == text
    assert encoder.byte_counts(text, ids).sum() == len(text.encode())


def test_t5(tmp_path: Path) -> None:
    """Its tokenizer has `</s>` and 100 sentinels with a score of 0, beyond a model of the other entries."""
    trained = unigram()
    pieces = sorted(trained.get_vocab(), key=trained.get_vocab().get)
    vocabulary = [(piece, 0.0 if piece in SPECIAL else -3.0 - number / 99) for number, piece in enumerate(pieces)][:-1]
    T5Tokenizer(
        vocab=[*vocabulary, *((f"<extra_id_{n}>", 0.0) for n in range(99, -1, -1))], extra_ids=100
    ).save_pretrained(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    sentinels = {tokenizer.convert_tokens_to_ids(f"<extra_id_{n}>") for n in range(100)}
    encoder = Encoder.of(tokenizer)
    special = sentinels | {tokenizer.eos_token_id, tokenizer.pad_token_id}
    for text in ("stone </s> river", "fill <extra_id_0> here", "<extra_id_99><pad></s>"):
        [ids] = encoder.encode([text])
        assert not special & set(ids[:-1].tolist()) and ids[-1] == tokenizer.eos_token_id
    assert encoder.max_text_id < min(sentinels - {tokenizer.convert_tokens_to_ids("<extra_id_0>")})


def test_a_tokenizer_whose_end_token_stands_for_unknown_words_is_refused_by_name() -> None:
    with pytest.raises(DataError, match=r"--data\.tokenizer the words: it makes one of its special tokens of ordinary"):
        Encoder(words(piecewise=False).to_str(), UNKNOWN, name="the words")


def test_added_tokens_that_are_not_special_keep_their_ids() -> None:
    tokenizer = byte_level()
    tokenizer.add_tokens([AddedToken("<tool>", special=False)])
    tokenizer.add_special_tokens(["<late>"])
    tool, late = tokenizer.token_to_id("<tool>"), tokenizer.token_to_id("<late>")
    encoder = pickle.loads(pickle.dumps(Encoder(tokenizer.to_str(), END)))
    [ids] = encoder.encode(["a <tool> b <late>"])
    assert tool in ids and late not in ids and encoder.max_text_id == tool < late == encoder.max_id


def of_hugging_face(tokenizer: Tokenizer, *, adds: bool) -> PreTrainedTokenizerFast:
    if adds:
        tokenizer.post_processor = processors.TemplateProcessing("<s> $A", None, [("<s>", BEGIN)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def test_who_has_a_begin_token() -> None:
    plain, adding = of_hugging_face(byte_level(), adds=False), of_hugging_face(byte_level(), adds=True)
    found = [
        begin_token(tokenizer, wanted, flag="--x", model_type=model_type)
        for tokenizer in (plain, adding)
        for wanted, model_type in (("auto", "llama"), ("auto", "gemma2"), ("yes", ""), ("no", "gemma2"))
    ]
    assert found == [None, BEGIN, BEGIN, None, BEGIN, BEGIN, BEGIN, None]
    nothing = PreTrainedTokenizerFast(tokenizer_object=byte_level(), eos_token="</s>")
    assert begin_token(nothing, "auto", flag="--x", model_type="gemma") is None
    with pytest.raises(DataError, match="--x yes: the tokenizer .* has no begin token"):
        begin_token(nothing, "yes", flag="--x")


@pytest.mark.parametrize("kind", [unigram, byte_level])
def test_documents_begin_with_the_begin_token(tmp_path: Path, kind: Callable[[], Tokenizer]) -> None:
    (tmp_path / "a.txt").write_text("\n".join(LINES))

    trained = kind()

    def made(begin: str) -> tuple[np.ndarray, dict, int]:
        config = DataConfig(
            source=(str(tmp_path / "a.txt"),),
            text_unit="line",
            begin_token=begin,
            block_length=8,
            heldout_fraction=0.3,
            cache_dir=str(tmp_path / "cache"),
        )
        corpus = prepare(config, of_hugging_face(trained, adds=True), seed=0, progress=False)
        return np.array(corpus.heldout.tokens), corpus.summary(), int(corpus.heldout_bytes.sum())

    (without, plain, size), (tokens, summary, same_size) = made("no"), made("auto")
    assert plain["begin_token"] is None and summary["begin_token"] == BEGIN
    assert BEGIN not in without and (tokens == BEGIN).sum() == (tokens == END).sum() == summary["heldout_documents"]
    assert tokens[0] == BEGIN and (tokens[1:][tokens[:-1] == END] == BEGIN).all()
    assert tokens[tokens != BEGIN].tolist() == without.tolist()
    assert size == same_size == summary["heldout_bytes"]


def test_a_tokenizer_file_of_another_version_is_one_line(tmp_path: Path) -> None:
    from lab.data import load_tokenizer

    of_hugging_face(byte_level(), adds=False).save_pretrained(tmp_path)
    path = tmp_path / "tokenizer.json"
    path.write_text(path.read_text().replace('"merges": [', '"merges": [{"new": 1},', 1))
    with pytest.raises(
        DataError, match=r"--data\.tokenizer .*of another version of the library tokenizers than \d"
    ) as caught:
        load_tokenizer(DataConfig(tokenizer=str(tmp_path)), progress=False)
    assert "\n" not in str(caught.value)
