"""The check of what is handed on: long inputs, in the type of the weights, with experts or without."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import normalization
from lab.commands.convert import Convert, convert
from lab.commands.export import Export, export
from lab.commands.prune import Prune, prune
from lab.errors import RunError
from lab.model.handover import TOLERANCE
from lab.model.shrink import difference_to_skipping, without
from tests.normalization import tiny

LENGTH = 2048


def saved(folder: Path, family: str, scheme: str, **changes: Any) -> str:
    tiny.patched(family, scheme, max_position_embeddings=LENGTH, **changes).save_pretrained(folder)
    return str(folder)


def spoil(monkeypatch: pytest.MonkeyPatch, change: Any) -> None:
    """What `fold` gives is changed before it is handed on."""
    fold = normalization.fold

    def wrong(model: Any) -> Any:
        folded = fold(model)
        with torch.no_grad():
            change(folded)
        return folded

    monkeypatch.setattr(normalization, "fold", wrong)


@pytest.mark.parametrize("position", [70, 2000])
def test_a_fault_far_into_the_text_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, position: int) -> None:
    source = saved(tmp_path / "lns", "gpt2", "lns")
    spoil(monkeypatch, lambda model: model.transformer.wpe.weight[position:].mul_(1.1))
    with pytest.raises(RunError, match="computes something else"):
        export(Export(source, out=str(tmp_path / "out")))
    assert [path.name for path in tmp_path.iterdir()] == ["lns"]


def test_a_pruned_model_is_compared_as_far() -> None:
    model = tiny.patched("gpt2", "lns", max_position_embeddings=LENGTH)
    smaller = without(model, [2])
    assert difference_to_skipping(smaller, model, [2]) < 1e-6
    with torch.no_grad():
        smaller.transformer.wpe.weight[2000:].mul_(1.1)
    assert difference_to_skipping(smaller, model, [2]) > 1e-3


@pytest.mark.parametrize("family", [pytest.param("llama", marks=pytest.mark.slow), "mixtral"])
def test_in_bfloat16_at_2048_positions(tmp_path: Path, family: str) -> None:
    """Also with experts, where rounding alone sends some tokens to another one."""
    source = saved(tmp_path / "lns", family, "lns")
    cases = {
        "stock": export(Export(source, out=str(tmp_path / "stock"), dtype="bfloat16")),
        "code": export(Export(source, out=str(tmp_path / "code"), to="remote-code", dtype="bfloat16")),
        "small": prune(Prune(source, str(tmp_path / "small"), layers="2-3", dtype="bfloat16"))[1],
        "back": convert(Convert(str(tmp_path / "stock"), str(tmp_path / "back"))),
    }
    for name, measured in cases.items():
        assert 0 <= measured["random"] < TOLERANCE[torch.bfloat16], name
        card = (tmp_path / name / "README.md").read_text()
        assert "| type | bfloat16 |" in card and "in this type at up to 2,048 positions" in card
        assert ("the median token's largest difference" in card) is (family == "mixtral")


def test_experts_that_compute_something_else_are_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = saved(tmp_path / "lns", "mixtral", "lns")
    spoil(monkeypatch, lambda model: model.model.layers[2].mlp.experts.down_proj.mul_(3))
    with pytest.raises(RunError, match="computes something else"):
        export(Export(source, out=str(tmp_path / "out"), dtype="bfloat16"))


def test_a_short_model_is_compared_as_far_as_it_goes(tmp_path: Path) -> None:
    source = saved(tmp_path / "lns", "gpt2", "lns")
    tiny.patched("gpt2", "lns").save_pretrained(source)
    export(Export(source, out=str(tmp_path / "out")))
    assert "| type | float32 |" in (card := (tmp_path / "out" / "README.md").read_text())
    assert "at up to 64 positions" in card


# -- the config of a smaller model -------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_only_lists_by_layer_are_cut(family: str) -> None:
    ends = list(range(tiny.LAYERS))
    model = tiny.stock(family, eos_token_id=ends)
    model.config.suppress_tokens = model.generation_config.eos_token_id = ends
    smaller = without(model, [2, 4])
    assert smaller.config.eos_token_id == smaller.config.suppress_tokens == ends
    assert smaller.generation_config.eos_token_id == ends
    for name, value in vars(smaller.config).items():
        if name in ("layer_types", "no_rope_layers") and value is not None:
            assert value == [vars(model.config)[name][layer] for layer in (0, 2, 4)], name


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_every_list_by_layer_is_known(family: str) -> None:
    """What a config makes one entry a layer of is what has to be cut."""

    def lengths(depth: int) -> dict[str, int]:
        made = vars(tiny.config(family, num_hidden_layers=depth))
        return {name: len(value) for name, value in made.items() if isinstance(value, list | tuple)}

    seven, nine = lengths(7), lengths(9)
    assert {name for name in seven if (seven[name], nine[name]) == (7, 9)} <= {"layer_types", "no_rope_layers"}
