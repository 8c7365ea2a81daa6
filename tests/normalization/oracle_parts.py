"""What the networks of `oracle_networks.py` are made of, in plain float64."""

# ruff: noqa: E741 (layer l of L, as in the papers)
from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

Map = Callable[[Tensor], Tensor]


class Linear(NamedTuple):
    """One linear map: weight (out, in) and bias (out), cut out of whatever a family fuses it into."""

    weight: Tensor
    bias: Tensor | None

    def __call__(self, x: Tensor) -> Tensor:
        y = x @ self.weight.T
        return y if self.bias is None else y + self.bias

    def rows(self, chosen: Any) -> Linear:
        return Linear(self.weight[chosen], None if self.bias is None else self.bias[chosen])


def mean_square_one(x: Tensor, eps: float) -> Tensor:
    return x / torch.sqrt((x * x).mean(-1, keepdim=True) + eps)


def mean_zero_variance_one(x: Tensor, eps: float) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    return centred / torch.sqrt((centred**2).mean(-1, keepdim=True) + eps)


def silu(z: Tensor) -> Tensor:
    return z / (1 + torch.exp(-z))


def gelu(z: Tensor) -> Tensor:
    return z / 2 * (1 + torch.erf(z / math.sqrt(2)))


def gelu_tanh(z: Tensor) -> Tensor:
    return z / 2 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (z + 0.044715 * z**3)))


def causal_attention(q: Tensor, k: Tensor, v: Tensor, window: int | None) -> Tensor:
    """(B, T, heads, d) queries; fewer key and value heads are shared by groups. Returns (B, T, heads * d).

    With a window, a token sees itself and the window - 1 before it.
    """
    B, T, heads, d = q.shape
    out = torch.empty_like(q)
    seen = torch.tensor([[0 <= t - s < (window or T) for s in range(T)] for t in range(T)])
    for h in range(heads):
        shared = h * k.shape[2] // heads
        scores = q[:, :, h] @ k[:, :, shared].transpose(1, 2) / math.sqrt(d)
        scores = scores.masked_fill(~seen, -math.inf)
        out[:, :, h] = torch.softmax(scores, dim=-1) @ v[:, :, shared]
    return out.reshape(B, T, heads * d)


def rotated(x: Tensor, theta: float, width: int) -> Tensor:
    """Turn the pair (x_i, x_{i + width/2}), i < width/2, at position t by the angle t * theta^(-2i/width)."""
    half = width // 2
    speed = theta ** (-torch.arange(0, width, 2, dtype=torch.float64) / width)
    angle = torch.arange(x.shape[1], dtype=torch.float64)[:, None] * speed
    turned = torch.complex(x[..., :half], x[..., half:width]) * torch.exp(1j * angle)[None, :, None, :]
    return torch.cat([turned.real, turned.imag, x[..., width:]], dim=-1)


class Network:
    """A family's parts. `w` holds the state dict in float64."""

    layer: str
    attention_norm: str
    mlp_norm: str
    final: str
    embeddings: tuple[str, ...]
    unit = 1.0
    """The weight with which a norm scales by one."""
    names: ClassVar[dict[str, str]]
    """What a linear map of a layer is for -> its module."""

    def __init__(self, weights: dict[str, Tensor], config: Any) -> None:
        self.w = {name: value.double() for name, value in weights.items()}
        self.c = config

    def at(self, l: int) -> str:
        return self.layer.format(l - 1)

    def linear(self, name: str) -> Linear:
        return Linear(self.w[name + ".weight"], self.w.get(name + ".bias"))

    def maps(self, l: int) -> dict[str, Linear]:
        """All linear maps of layer l. The last word of a name is what the initialisation formulas go by."""
        return {role: self.linear(self.at(l) + name) for role, name in self.names.items()}

    def norm(self, name: str) -> Map:
        raise NotImplementedError

    def norms(self, own: str) -> tuple[Map, Map]:
        """N and M of a sublayer whose stock norm has that name."""
        # The stock norm stays where the family has it: OLMo 2's is an output norm, and peri's input norm is new there.
        if own + "_in.weight" in self.w:
            return self.norm(own + "_in"), self.norm(own)
        return self.norm(own), self.norm(own + "_out")

    def embed(self, ids: Tensor) -> Tensor:
        return self.w[self.embeddings[0]][ids]

    def heads(self, l: int, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        """Queries and keys (B, T, heads * d) to (B, T, heads, d), with norms if the family has some."""
        d = q.shape[-1] // self.c.num_attention_heads
        return q.unflatten(-1, (-1, d)), k.unflatten(-1, (-1, d))

    def positioned(self, l: int, x: Tensor) -> Tensor:
        """Queries or keys (B, T, heads, d) that know their position."""
        return x

    def window(self, l: int) -> int | None:
        return None

    def attention(self, l: int) -> Map:
        m = self.maps(l)

        def F(y: Tensor) -> Tensor:
            q, k = self.heads(l, m["query"](y), m["key"](y))
            v = m["value"](y).unflatten(-1, (-1, q.shape[-1]))
            return m["output"](causal_attention(self.positioned(l, q), self.positioned(l, k), v, self.window(l)))

        return F

    def mlp(self, l: int) -> Map:
        raise NotImplementedError

    def head(self, x: Tensor) -> Tensor:
        return x @ self.w["lm_head.weight"].T
