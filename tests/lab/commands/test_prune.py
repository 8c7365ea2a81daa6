"""Smaller checkpoints: they compute what skipping computes, load everywhere, and are what was asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

import normalization
from lab.commands.prune import Prune, least, main, numbers, prune, ranges
from lab.diagnostics import Figure, Record, load, measure
from lab.diagnostics.command import main as diagnose
from lab.errors import ConfigError, RunError
from lab.model.shrink import difference_to_skipping, without
from tests.lab.diagnostics import slow_formulas as slow
from tests.lab.diagnostics.models import STOCK, build, each_case, probe
from tests.normalization import tiny

FAMILIES = sorted({family for family, _ in STOCK} | {"smollm3", "qwen3_moe", "olmo3"})


@each_case
def test_a_smaller_model_is_the_whole_one_with_layers_skipped(family: str, scheme: str | None) -> None:
    model = build(family, scheme)
    smaller = without(model, [2, 4])
    assert smaller.config.num_hidden_layers == 3
    assert slow.loss(smaller, probe()) == pytest.approx(slow.loss(slow.deleted(model, {2, 4}), probe()), rel=1e-6)
    assert difference_to_skipping(smaller, model, [2, 4]) < 1e-6
    kept = [plan for number, plan in enumerate(normalization.plans(model), start=1) if number not in (2, 4)]
    assert normalization.plans(smaller) == kept
    for index, layer in enumerate(normalization.decoder_layers(smaller)):
        assert layer.get_submodule(normalization.api.family_of(model).attention).layer_idx == index


@pytest.mark.parametrize("family", FAMILIES)
def test_it_is_saved_and_loads(family: str, tmp_path: Path) -> None:
    model = tiny.stock(family)
    smaller = without(model, [1, 3])
    smaller.save_pretrained(tmp_path / "small")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "small").eval()
    assert type(again) is type(model)
    torch.testing.assert_close(tiny.logits(again), tiny.logits(smaller))
    assert difference_to_skipping(again, model, [1, 3]) < 1e-6
    # Cached decoding too: its caches go by layer number.
    ids = tiny.tokens(1, 5)
    cached = again.generate(ids, max_new_tokens=4, do_sample=False)
    plain = again.generate(ids, max_new_tokens=4, do_sample=False, use_cache=False)
    assert torch.equal(cached, plain)


def test_layer_norm_scaling_keeps_its_scales(tmp_path: Path) -> None:
    build("llama", "lns").save_pretrained(tmp_path / "lns")
    removed, differences = prune(Prune(str(tmp_path / "lns"), str(tmp_path / "small"), layers="2-3"))
    assert removed == [2, 3]
    assert max(differences.values()) < 1e-6
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "small")
    scales = [plan.input_scale for plan in normalization.plans(again)]
    assert scales == pytest.approx([1, 1 / 4**0.5, 1 / 5**0.5])
    card = (tmp_path / "small" / "README.md").read_text()
    assert "without 2 of its 5 layers: 2-3 (counted from 1), chosen by hand" in card
    # What stays the scheme is still called by its name.
    assert normalization.spec(without(build("llama", "peri"), [5])).scheme == "peri"
    assert normalization.spec(without(build("llama", "lns"), [4, 5])).scheme == "lns"


def test_by_what_a_record_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.chdir(tmp_path)
    model = build("gpt2", None)
    model.save_pretrained("model")
    np.save("ids.npy", np.random.default_rng(0).integers(61, size=(2, 8)))
    assert diagnose(["model", "--probe", "ids.npy", "--only", "removal,angular"], prog="") == 0
    record = load("diagnostics/model.json")
    costs = record.figure("removal/increase").values
    assert main(["model", "--drop", "2", "--by", "removal", "--out", "small"], prog="prune") == 0
    expected = sorted(int(layer) for layer in np.argsort(costs)[:2] + 1)
    assert f"without layers {ranges(expected)}\n" in capsys.readouterr().out
    assert AutoModelForCausalLM.from_pretrained("small").config.n_layer == 3


def _record(**figures: Figure) -> Record:
    whole = measure(build("llama", None), probe(), only="rank")
    diagnostics = {"angular": {name: figures[name] for name in figures}}
    return Record(whole.model, whole.probe, {}, diagnostics, {"removal": "removal: it ran out"}, {}, {})


def test_least_by_each_rule() -> None:
    distance = np.abs(np.subtract.outer(np.arange(6), np.arange(6))) * 0.1
    distance[3, 5] = 0.05  # layers 4 and 5 together turn the stream least
    places = {"from": range(6), "to": range(6)}
    influence = Figure(np.array([0.5, 0.1, 0.4, 0.2, 0.3]), {"layer": range(1, 6)}, "1", "")
    record = _record(distance=Figure(distance, places, "", ""), influence=influence)
    assert least(record, 2, "angular") == [4, 5]
    assert least(record, 2, "influence") == [2, 4]
    with pytest.raises(RunError, match="--by removal: removal/increase: removal: it ran out"):
        least(record, 1, "removal")


def test_numbers_and_ranges() -> None:
    assert numbers("3-5,8", 10) == [3, 4, 5, 8]
    assert numbers(" 2 , 1", 3) == [1, 2]
    assert ranges([3, 4, 5, 8]) == "3-5, 8"
    for text, message in (
        ("0", "'*0'* is not within 1-6"),
        ("4-7", "4-7 is not within 1-6"),
        ("5-4", "5-4 is not within 1-6"),
        ("2,1-3", "names layer 2 twice"),
        ("1-6", "names every layer"),
        ("a", "'a' is no layer and no range"),
        ("", "'' is no layer and no range"),
        ("-1", "'-1' is no layer and no range"),
    ):
        with pytest.raises(ConfigError, match=message):
            numbers(text, 6)


def test_wrong_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    build("llama", None).save_pretrained(tmp_path / "model")
    source, out = str(tmp_path / "model"), str(tmp_path / "small")
    for words, code, message in (
        ([source, "--out", out], 2, "give either --layers, such as 21-25, or --drop"),
        ([source, "--out", out, "--layers", "1", "--drop", "1"], 2, "give either --layers"),
        ([source, "--out", source, "--layers", "1"], 1, "exists already and is never overwritten"),
        ([source, "--out", out, "--drop", "5"], 2, "--drop 5: must be 1 to 4"),
        ([source, "--out", out, "--layers", "6"], 2, "6 is not within 1-5"),
        ([source, "--out", out, "--drop", "1", "--record", out], 1, "there is no record"),
        ([str(tmp_path / "none"), "--out", out, "--layers", "1"], 1, "is no folder here"),
    ):
        assert main(words, prog="prune") == code
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1
        assert not Path(out).exists()


def test_a_model_that_divides_attention_by_the_layers_number_is_refused() -> None:
    model = tiny.stock("gpt2", scale_attn_by_inverse_layer_idx=True)
    with pytest.raises(ValueError, match="scale_attn_by_inverse_layer_idx"):
        without(model, [2])
