"""Tiny models and probes for the tests of diagnostics."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from lab.diagnostics import Probe
from tests.normalization import tiny

FAMILIES = ("llama", "gpt2", "gpt_neox")
CASES = [(family, scheme) for family in FAMILIES for scheme in tiny.SCHEMES]
STOCK = [
    ("llama", None),
    ("mistral", None),
    ("qwen2", None),
    ("qwen3", None),
    ("gpt2", None),
    ("gpt_neox", None),
    ("gpt_neox", "parallel"),
    ("olmo2", None),
    ("phi3", None),
    ("gemma", None),
    ("mixtral", None),
]

each_case = pytest.mark.parametrize(("family", "scheme"), [*CASES, *STOCK], ids=lambda value: str(value))

each_kind = pytest.mark.parametrize(
    ("family", "scheme"),
    [("llama", "peri"), ("gpt_neox", "deepnorm"), ("gpt2", "lns"), *STOCK[:3], *STOCK[6:8]],
    ids=lambda value: str(value),
)
"""Fewer of them, for what depends on the kind of layer alone or costs much."""


def build(family: str, scheme: str | None) -> Any:
    """A stock model, one with parallel residual, or one with a scheme; random weights, 5 layers of width 32."""
    if scheme is None:
        return tiny.stock(family)
    if scheme == "parallel":
        return tiny.stock(family, use_parallel_residual=True)
    return tiny.patched(family, scheme)


def probe(lengths: tuple[int, ...] = (9, 4, 7), seed: int = 0) -> Probe:
    """Blocks of unequal lengths, padded to the longest."""
    generator = np.random.default_rng(seed)
    ids = np.full((len(lengths), max(lengths)), -1)
    for row, length in enumerate(lengths):
        ids[row, :length] = generator.integers(tiny.SIZES["vocab_size"], size=length)
    return Probe.from_ids(ids)
