"""The equations, written a second time from the papers in plain float64, reading only weights of ours.

A new scheme needs its line in `SCHEMES`, a new family its class in `NETWORKS`.
"""

# ruff: noqa: E741 (layer l of L, as in the papers)
from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor

Map = Callable[[Tensor], Tensor]


# Schemes: DESIGN section 2, line by line. F sublayer, N its own norm, M its second norm (peri), l = 1..L.


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


SCHEMES: dict[str, Callable[..., Tensor]] = {
    "pre": pre,
    "post": post,
    "mix": mix,
    "lns": lns,
    "deepnorm": deepnorm,
    "peri": peri,
}

OPTIONS: dict[str, list[dict[str, Any]]] = {"mix": [{"post_layers": 3}, {"alpha": 0.5}, {"alpha": 1.0}]}
"""Options to test besides a scheme's defaults."""

ENDS_IN_NORM: list[tuple[str, dict[str, Any]]] = [("post", {}), ("deepnorm", {}), ("mix", {"alpha": 1.0})]
"""Schemes whose last layer ends in a norm, so that `final_norm=False` is allowed."""


# Families.


class Network:
    """A family's parts. `w` holds the state dict in float64."""

    layer: str
    attention_norm: str
    mlp_norm: str
    final: str
    embeddings: tuple[str, ...]
    roles: ClassVar[dict[str, tuple[str, ...]]]
    """Weight of a layer -> what its rows (or columns) are, as the initialisation formulas name them."""

    def __init__(self, weights: dict[str, Tensor], config: Any) -> None:
        self.w = {name: value.double() for name, value in weights.items()}
        self.c = config

    def norm(self, name: str) -> Map:
        raise NotImplementedError

    def embed(self, ids: Tensor) -> Tensor:
        raise NotImplementedError

    def attention(self, l: int) -> Map:
        raise NotImplementedError

    def mlp(self, l: int) -> Map:
        raise NotImplementedError

    def head(self, x: Tensor) -> Tensor:
        return x @ self.w["lm_head.weight"].T

    def at(self, l: int) -> str:
        return self.layer.format(l - 1)


def causal_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """(B, T, heads, d) queries; fewer key and value heads are shared by groups. Returns (B, T, heads * d)."""
    B, T, heads, d = q.shape
    out = torch.empty_like(q)
    past = torch.ones(T, T, dtype=torch.bool).tril()
    for h in range(heads):
        shared = h * k.shape[2] // heads
        scores = q[:, :, h] @ k[:, :, shared].transpose(1, 2) / math.sqrt(d)
        scores = scores.masked_fill(~past, -math.inf)
        out[:, :, h] = torch.softmax(scores, dim=-1) @ v[:, :, shared]
    return out.reshape(B, T, heads * d)


class Llama(Network):
    layer = "model.layers.{}."
    attention_norm = "input_layernorm"
    mlp_norm = "post_attention_layernorm"
    final = "model.norm"
    embeddings = ("model.embed_tokens.weight",)
    roles: ClassVar = {
        "self_attn.q_proj.weight": ("query",),
        "self_attn.k_proj.weight": ("key",),
        "self_attn.v_proj.weight": ("value",),
        "self_attn.o_proj.weight": ("output",),
        "mlp.gate_proj.weight": ("mlp",),
        "mlp.up_proj.weight": ("mlp",),
        "mlp.down_proj.weight": ("mlp output",),
    }

    def norm(self, name: str) -> Map:
        eps = self.c.rms_norm_eps
        return lambda x: self.w[name + ".weight"] * x / torch.sqrt((x * x).mean(-1, keepdim=True) + eps)

    def linear(self, name: str, x: Tensor) -> Tensor:
        y = x @ self.w[name + ".weight"].T
        return y + self.w[name + ".bias"] if name + ".bias" in self.w else y

    def embed(self, ids: Tensor) -> Tensor:
        return self.w["model.embed_tokens.weight"][ids]

    def rotate(self, x: Tensor) -> Tensor:
        """Turn the pair (x_i, x_{i + d/2}) at position t by the angle t * theta^(-2i/d)."""
        T, d = x.shape[1], x.shape[-1]
        speed = self.c.rope_parameters["rope_theta"] ** (-torch.arange(0, d, 2, dtype=torch.float64) / d)
        angle = torch.arange(T, dtype=torch.float64)[:, None] * speed
        turned = torch.complex(x[..., : d // 2], x[..., d // 2 :]) * torch.exp(1j * angle)[None, :, None, :]
        return torch.cat([turned.real, turned.imag], dim=-1)

    def attention(self, l: int) -> Map:
        def F(y: Tensor) -> Tensor:
            path = self.at(l) + "self_attn."
            q, k, v = (self.linear(path + f"{name}_proj", y).unflatten(-1, (-1, self.c.head_dim)) for name in "qkv")
            if path + "q_norm.weight" in self.w:
                q, k = self.norm(path + "q_norm")(q), self.norm(path + "k_norm")(k)
            return self.linear(path + "o_proj", causal_attention(self.rotate(q), self.rotate(k), v))

        return F

    def mlp(self, l: int) -> Map:
        def F(y: Tensor) -> Tensor:
            path = self.at(l) + "mlp."
            gate = self.linear(path + "gate_proj", y)
            return self.linear(path + "down_proj", gate / (1 + torch.exp(-gate)) * self.linear(path + "up_proj", y))

        return F


class GPT2(Network):
    layer = "transformer.h.{}."
    attention_norm = "ln_1"
    mlp_norm = "ln_2"
    final = "transformer.ln_f"
    embeddings = ("transformer.wte.weight", "transformer.wpe.weight")
    roles: ClassVar = {
        "attn.c_attn.weight": ("query", "key", "value"),
        "attn.c_proj.weight": ("output",),
        "mlp.c_fc.weight": ("mlp",),
        "mlp.c_proj.weight": ("mlp output",),
    }

    def norm(self, name: str) -> Map:
        def N(x: Tensor) -> Tensor:
            centred = x - x.mean(-1, keepdim=True)
            scale = torch.sqrt((centred**2).mean(-1, keepdim=True) + self.c.layer_norm_epsilon)
            return self.w[name + ".weight"] * centred / scale + self.w[name + ".bias"]

        return N

    def linear(self, name: str, x: Tensor) -> Tensor:
        return x @ self.w[name + ".weight"] + self.w[name + ".bias"]

    def embed(self, ids: Tensor) -> Tensor:
        return self.w["transformer.wte.weight"][ids] + self.w["transformer.wpe.weight"][: ids.shape[1]]

    def attention(self, l: int) -> Map:
        def F(y: Tensor) -> Tensor:
            path = self.at(l) + "attn."
            q, k, v = (
                part.unflatten(-1, (self.c.n_head, -1)) for part in self.linear(path + "c_attn", y).chunk(3, dim=-1)
            )
            return self.linear(path + "c_proj", causal_attention(q, k, v))

        return F

    def mlp(self, l: int) -> Map:
        def F(y: Tensor) -> Tensor:
            path = self.at(l) + "mlp."
            z = self.linear(path + "c_fc", y)
            z = z / 2 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (z + 0.044715 * z**3)))
            return self.linear(path + "c_proj", z)

        return F


NETWORKS: dict[str, type[Network]] = {"llama": Llama, "qwen3": Llama, "gpt2": GPT2}


@torch.no_grad()
def streams(
    family: str,
    weights: dict[str, Tensor],
    config: Any,
    ids: Tensor,
    rule: Callable[..., Tensor],
    **options: Any,
) -> tuple[list[Tensor], Network]:
    """The residual stream h_0 (embeddings), h_1 .. h_L, before the final norm."""
    net = NETWORKS[family](weights, config)
    L = config.num_hidden_layers
    x = net.embed(ids)
    h = [x]
    for l in range(1, L + 1):
        for F, own in ((net.attention(l), net.attention_norm), (net.mlp(l), net.mlp_norm)):
            N, M = net.norm(net.at(l) + own), net.norm(net.at(l) + own + "_out")
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
    if isinstance(rule, str):
        assert rule in SCHEMES, f"write the equation of {rule!r} in tests/normalization/oracle.py"
        rule = SCHEMES[rule]
    h, net = streams(family, weights, config, ids, rule, **options)
    return net.head(net.norm(net.final)(h[-1]) if final_norm else h[-1])


def std(initialization: str, role: str, L: int, fan_in: int, fan_out: int, s: float) -> float:
    """Standard deviation of a layer's weight of that role at the start."""
    if initialization == "deepnorm":  # Xavier normal; gain beta everywhere but in the query and key
        beta = 1.0 if role in ("query", "key") else 1 / (8 * L) ** (1 / 4)
        return beta * math.sqrt(2 / (fan_in + fan_out))
    return s / math.sqrt(2 * L) if initialization == "scaled" and role in ("output", "mlp output") else s
