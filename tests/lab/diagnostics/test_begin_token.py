"""A model that was trained with a begin token is measured with one; what that is worth is in the numbers.

The model here learned documents that all begin alike after the begin token, as a case of a public report did (loss 1.07
as trained, 1.37 on a probe without it).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, BertModel, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from lab import cli
from lab.data.packing import IGNORED
from lab.diagnostics import load
from lab.diagnostics.engine.probe import Probe
from lab.diagnostics.engine.probe_source import of_text

BEGIN, END, LENGTH = 0, 1, 16
WORDS = ["<s>", "</s>", "<unk>", *(f"w{number}" for number in range(20))]


def tokenizer(*, adds: bool) -> PreTrainedTokenizerFast:
    made = Tokenizer(models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made.add_special_tokens(["<s>", "</s>", "<unk>"])
    if adds:
        made.post_processor = processors.TemplateProcessing("<s> $A", None, [("<s>", BEGIN)])
    return PreTrainedTokenizerFast(tokenizer_object=made, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def documents(seed: int, count: int) -> list[list[int]]:
    """Words that count up from a random one in steps that the document's first word says."""
    generator = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        first, step, length = generator.integers(20), generator.integers(1, 4), generator.integers(4, 12)
        found.append([int((first + step * place) % 20) for place in range(length)])
    return found


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trained on rows that begin with <s>, of documents <s> words </s>."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(WORDS),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=LENGTH,
        bos_token_id=BEGIN,
        eos_token_id=END,
    )
    made = LlamaForCausalLM(config)
    optimizer = torch.optim.AdamW(made.parameters(), lr=1e-2)
    for step in range(60):
        stream = [token for words in documents(step + 1, 80) for token in (BEGIN, *(word + 3 for word in words), END)]
        rows = torch.tensor(stream[: len(stream) // LENGTH * LENGTH]).view(-1, LENGTH)
        rows[:, 0] = BEGIN
        made(rows, labels=rows).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    folder = tmp_path_factory.mktemp("model")
    made.save_pretrained(folder)
    tokenizer(adds=True).save_pretrained(folder)
    return folder


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.jsonl"
    lines = (" ".join(f"w{word}" for word in words) for words in documents(0, 300))
    path.write_text("".join(json.dumps({"text": line}) + "\n" for line in lines))
    return path


def loss(model: Path, probe: Probe) -> float:
    ids, targets = torch.from_numpy(probe.input_ids), torch.from_numpy(probe.targets)
    with torch.no_grad():
        logits = LlamaForCausalLM.from_pretrained(model)(ids).logits
    return float(F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORED))


def diagnose(*words: Any) -> int:
    return cli.main(["diagnose", *map(str, words)])


def test_the_probe_of_a_model_with_a_begin_token(model: Path, text: Path, tmp_path: Path) -> None:
    probes = {}
    for begin in ("auto", "no"):
        out = tmp_path / begin
        words = ("--probe", text, "--blocks", 40, "--block-length", LENGTH, "--only", "variance", "--out", out)
        assert diagnose(model, *words, *([] if begin == "auto" else ["--begin-token", begin])) == 0
        [path] = out.glob("*.json")
        probes[begin] = load(path).probe
        told = json.loads(path.read_text())["probe"]["begin_token"]
        assert told == probes[begin].begin_token == (BEGIN if begin == "auto" else None)
    with_it, without = probes["auto"], probes["no"]
    assert not (without.input_ids == BEGIN).any() and (with_it.input_ids[:, 0] == BEGIN).all()
    after_end = with_it.input_ids[:, :-1] == END
    assert (with_it.input_ids[:, 1:][after_end] == BEGIN).all() and after_end.any()
    assert loss(model, with_it) < loss(model, without) - 0.1
    own = of_text(str(text), tokenizer(adds=False), blocks=40, length=LENGTH, seed=0, begin="yes")
    assert own.id == with_it.id


def test_who_needs_one_and_who_is_refused(model: Path, text: Path, tmp_path: Path, capsys: Any) -> None:
    plain = tokenizer(adds=False)
    settings: dict[str, Any] = {"blocks": 8, "length": LENGTH, "seed": 0}
    assert of_text(str(text), plain, **settings).begin_token is None
    assert of_text(str(text), plain, **settings, model_type="gemma2").begin_token == BEGIN
    np.save(tmp_path / "ids.npy", np.full((2, 8), 5))
    assert diagnose(model, "--probe", tmp_path / "ids.npy", "--begin-token", "yes") == 1
    assert "--begin-token yes: the tokens of" in capsys.readouterr().err


def test_advice_names_flags_that_there_are(model: Path, tmp_path: Path, capsys: Any) -> None:
    plain = tokenizer(adds=False)
    plain.eos_token = None
    LlamaForCausalLM.from_pretrained(model).save_pretrained(tmp_path / "endless")
    plain.save_pretrained(tmp_path / "endless")
    assert diagnose(tmp_path / "endless", "--out", tmp_path) == 1
    told = capsys.readouterr().err
    assert "no end token" in told and "with --probe" in told and "--data" not in told and told.count("\n") == 1
    BertModel(BertConfig(vocab_size=30, hidden_size=32, num_hidden_layers=1, num_attention_heads=2)).save_pretrained(
        tmp_path / "bert"
    )
    plain.save_pretrained(tmp_path / "bert")
    assert diagnose(tmp_path / "bert", "--out", tmp_path) == 1
    told = capsys.readouterr().err
    assert "'bert' model" in told and "--data" not in told and told.count("\n") == 1
