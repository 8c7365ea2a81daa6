"""The schemes' equations, written a second time from the papers in plain float64.

A new scheme needs its line in `SCHEMES`, a new family its class in `oracle_networks.NETWORKS`.
"""

# ruff: noqa: E741 (layer l of L, as in the papers)
from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from tests.normalization.oracle_networks import NETWORKS
from tests.normalization.oracle_parts import Map, Network

# Each paper's update of the stream x. F sublayer, N its own norm, M its second norm (peri), l = 1..L.


def pre(x: Tensor, F: Map, N: Map, M: Map, l: int, L: int) -> Tensor:
    return x + F(N(x))


def post(x: Tensor, F: Map, N: Map, M: Map, l: int, L: int) -> Tensor:
    return N(x + F(x))


def mix(x: Tensor, F: Map, N: Map, M: Map, l: int, L: int, alpha: float = 0.25, post_layers: int = -1) -> Tensor:
    first = math.floor(alpha * L) if post_layers < 0 else post_layers
    return N(x + F(x)) if l <= first else x + F(N(x))


def lns(x: Tensor, F: Map, N: Map, M: Map, l: int, L: int) -> Tensor:
    return x + F(N(x) / math.sqrt(l))


def deepnorm(x: Tensor, F: Map, N: Map, M: Map, l: int, L: int) -> Tensor:
    return N((2 * L) ** (1 / 4) * x + F(x))


def peri(x: Tensor, F: Map, N: Map, M: Map, l: int, L: int) -> Tensor:
    return x + M(F(N(x)))


def out(x: Tensor, F: Map, N: Map, M: Map, l: int, L: int) -> Tensor:
    return x + N(F(x))


def mixed(x: Tensor, F: Map, N: Map, M: Map, l: int, L: int, layers: str) -> Tensor:
    assert layers == "2 post, peri"
    return post(x, F, N, M, l, L) if l <= 2 else peri(x, F, N, M, l, L)


SCHEMES: dict[str, Callable[..., Tensor]] = {
    "pre": pre,
    "post": post,
    "mix": mix,
    "lns": lns,
    "deepnorm": deepnorm,
    "peri": peri,
    "out": out,
    "mixed": mixed,
}

NEEDED: dict[str, dict[str, Any]] = {"mixed": {"layers": "2 post, peri"}}
"""Options without which a scheme says nothing."""

NEW_NORMS = ("peri", "mixed")
"""Schemes with more norms than the stock layers have."""

OPTIONS: dict[str, list[dict[str, Any]]] = {"mix": [{"post_layers": 3}, {"alpha": 0.5}, {"alpha": 1.0}]}
"""Options to test besides a scheme's defaults."""

ENDS_IN_NORM: list[tuple[str, dict[str, Any]]] = [("post", {}), ("deepnorm", {}), ("mix", {"alpha": 1.0})]
"""Schemes whose last layer ends in a norm, so that `final_norm=False` is allowed."""


@torch.no_grad()
def streams(
    family: str,
    weights: dict[str, Tensor],
    config: Any,
    ids: Tensor,
    rule: str | Callable[..., Tensor],
    **options: Any,
) -> tuple[list[Tensor], Network]:
    """The residual stream h_0 (embeddings), h_1 .. h_L, before the final norm."""
    if isinstance(rule, str):
        assert rule in SCHEMES, f"write the equation of {rule!r} in tests/normalization/oracle.py"
        rule, options = SCHEMES[rule], NEEDED.get(rule, {}) | options
    net = NETWORKS[family](weights, config)
    L = config.num_hidden_layers
    x = net.embed(ids)
    h = [x]
    for l in range(1, L + 1):
        for F, own in ((net.attention(l), net.attention_norm), (net.mlp(l), net.mlp_norm)):
            N, M = net.norms(net.at(l) + own)
            x = rule(x, F, N, M, l, L, **options)
        h.append(x)
    return h, net


def logits(
    family: str,
    weights: dict[str, Tensor],
    config: Any,
    ids: Tensor,
    rule: str | Callable[..., Tensor],
    final_norm: bool = True,
    **options: Any,
) -> Tensor:
    h, net = streams(family, weights, config, ids, rule, **options)
    return net.head(net.norm(net.final)(h[-1]) if final_norm else h[-1])


def std(initialization: str, role: str, L: int, fan_in: int, fan_out: int, s: float) -> float:
    """Standard deviation of a layer's linear map of that role (as `Network.maps` names it) at the start."""
    if (
        initialization == "deepnorm" and role != "router"
    ):  # Xavier normal; gain beta everywhere but in the query and key
        beta = 1.0 if role in ("query", "key") else 1 / (8 * L) ** (1 / 4)
        return beta * math.sqrt(2 / (fan_in + fan_out))
    return s / math.sqrt(2 * L) if initialization == "scaled" and role in ("output", "down") else s
