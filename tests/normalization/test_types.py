"""In bfloat16 and float16, at 2,048 positions: weights are rounded once, and nothing else is (rotary tables)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

import normalization
from normalization.remote import save_with_code
from tests.normalization import tiny
from tests.normalization.test_folding import FOLDABLE

LENGTH = 2048
HALVES = (torch.bfloat16, torch.float16)
ROTARY = tuple(family for family in tiny.FAMILIES if family != "gpt2")

each_half = pytest.mark.parametrize("dtype", HALVES, ids=("bf16", "fp16"))


def half(family: str, scheme: str | None, dtype: torch.dtype, **options: Any) -> Any:
    """A model for long texts, as a loaded one is: parameters rounded, tables in float32. Its attention is sharp, so
    that positions matter, and every token passes through every expert, as rounding may send it from one to another."""
    sizes = {"max_position_embeddings": LENGTH, "experts_implementation": "eager", "num_experts_per_tok": 4}
    model = tiny.stock(family, **sizes) if scheme is None else tiny.patched(family, scheme, options, **sizes)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if any(part in name for part in ("q_proj.weight", "k_proj.weight", "qkv", "query_key", "c_attn.weight")):
                parameter.mul_(2)
            parameter.data = parameter.data.to(dtype)
    return model


def long_logits(model: Any) -> Tensor:
    return tiny.logits(model, tiny.tokens(1, LENGTH)).double()


def buffers(model: Any) -> dict[str, Tensor]:
    return {name: buffer.clone() for name, buffer in model.named_buffers()}


def assert_same_buffers(found: Any, expected: dict[str, Tensor]) -> None:
    """Also those that no file holds."""
    assert buffers(found).keys() == expected.keys()
    for name, buffer in found.named_buffers():
        assert buffer.dtype == expected[name].dtype and torch.equal(buffer, expected[name]), name


def distance(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).abs().mean() / expected.abs().mean())


BOUND = {torch.bfloat16: 2.0**-8, torch.float16: 2.0**-11}
"""Half the spacing of numbers at one: the most by which rounding moves a weight, as a share of it."""
ROUNDINGS = 2 * tiny.LAYERS
"""Norms whose weights are rounded anew, each of which moves its branch by as much."""


@each_half
@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_folding_halves_and_quarters_is_exact(family: str, dtype: torch.dtype) -> None:
    """Powers of two round nothing away, so that a folded model must give the same bits; whatever else changed shows."""
    scales = (1.0, 0.5, 2.0, 0.25, 0.5) if family in FOLDABLE else (1.0,) * tiny.LAYERS
    own = "norm_out" if tiny.stock_scheme(family) == "out" else "norm_in"
    model = half(family, "mixed", dtype, layers=[{own: True, "input_scale": scale} for scale in scales])
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 1 and "norm" in name:
                parameter.copy_((parameter * 16).round() / 16)  # Gemma's 1 + w has to be scaled without rounding too
    expected, tables = long_logits(model), buffers(model)
    folded = normalization.fold(model)
    assert {parameter.dtype for parameter in folded.parameters()} == {dtype}
    assert_same_buffers(folded, tables)
    assert torch.equal(long_logits(folded), expected)


@each_half
@pytest.mark.parametrize("family", FOLDABLE)
def test_lns_folds_up_to_the_rounding_of_its_norms(family: str, dtype: torch.dtype) -> None:
    model = half(family, "lns", dtype)
    tables = buffers(model)
    folded = normalization.fold(model)
    assert {parameter.dtype for parameter in folded.parameters()} == {dtype}
    assert_same_buffers(folded, tables)
    assert distance(long_logits(folded), long_logits(model)) < ROUNDINGS * BOUND[dtype]


@each_half
@pytest.mark.parametrize("family", FOLDABLE)
def test_pre_ln_becomes_lns_up_to_the_rounding_of_its_norms(family: str, dtype: torch.dtype) -> None:
    model = half(family, None, dtype)
    expected, tables = long_logits(model), buffers(model)
    normalization.from_pre_ln(model)
    assert {parameter.dtype for parameter in model.parameters()} == {dtype}
    assert_same_buffers(model, tables)
    assert distance(long_logits(model), expected) < ROUNDINGS * BOUND[dtype]


@pytest.mark.parametrize("family", ROTARY)
def test_a_rounded_rotary_table_would_show(family: str) -> None:
    """What the bound above is worth: the fault that these tests are for is far beyond it, or shows in the bits."""
    model = half(family, None, torch.bfloat16)
    expected = long_logits(model)
    model.to(torch.bfloat16)
    assert not torch.equal(long_logits(model), expected)


@pytest.mark.parametrize(
    ("family", "scheme", "dtype"),
    [(family, "lns", torch.bfloat16) for family in tiny.FAMILIES]
    + [(family, "peri", torch.float16) for family in ("llama", "olmo2", "mixtral", "gpt_neox")],
)
def test_saved_and_with_code_it_is_the_same(tmp_path: Path, family: str, scheme: str, dtype: torch.dtype) -> None:
    model = half(family, scheme, dtype)
    expected, tables = long_logits(model), buffers(model)
    model.save_pretrained(tmp_path / "plain")
    save_with_code(model, tmp_path / "code", version="0")
    for folder in ("plain", "code"):
        again = AutoModelForCausalLM.from_pretrained(tmp_path / folder)
        assert {parameter.dtype for parameter in again.parameters()} == {dtype}
        for name, table in buffers(again).items():
            # transformers rounds Gemma's scale of embeddings itself when it loads, and ours where it is used.
            assert name.endswith("embed_scale") or (table.dtype, table.tolist()) == (
                torch.float32,
                tables[name].tolist(),
            )
        for name, value in again.state_dict().items():
            assert torch.equal(value, model.state_dict()[name]), name
        assert torch.equal(tiny.exact_logits(again, tiny.tokens(1, LENGTH)).double(), expected)


@pytest.mark.parametrize("family", ["llama", "gemma"])
def test_what_was_rounded_before_stays_as_it_is(family: str) -> None:
    """A model that someone rounded whole, `model.bfloat16()`: folded, it computes what that one computes."""
    model = tiny.patched(family, "lns", max_position_embeddings=LENGTH).bfloat16()
    folded = normalization.fold(model)
    assert_same_buffers(folded, buffers(model))
    assert distance(long_logits(folded), long_logits(model)) < ROUNDINGS * BOUND[torch.bfloat16]
