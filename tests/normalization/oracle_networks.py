"""The model families, written a second time from their papers in plain float64, reading only weights of ours.

A new family needs its class in `NETWORKS`.
"""

# ruff: noqa: E741 (layer l of L, as in the papers)
from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from torch import Tensor

from tests.normalization.oracle_parts import (
    Linear,
    Map,
    Network,
    gelu,
    gelu_tanh,
    mean_square_one,
    mean_zero_variance_one,
    rotated,
    silu,
)


class Llama(Network):
    layer = "model.layers.{}."
    attention_norm = "input_layernorm"
    mlp_norm = "post_attention_layernorm"
    final = "model.norm"
    embeddings = ("model.embed_tokens.weight",)
    names: ClassVar = {
        "query": "self_attn.q_proj",
        "key": "self_attn.k_proj",
        "value": "self_attn.v_proj",
        "output": "self_attn.o_proj",
        "gate": "mlp.gate_proj",
        "up": "mlp.up_proj",
        "down": "mlp.down_proj",
    }
    activation = staticmethod(silu)

    def norm(self, name: str) -> Map:
        return lambda x: self.w[name + ".weight"] * mean_square_one(x, self.c.rms_norm_eps)

    def rope(self, l: int) -> dict[str, Any]:
        return self.c.rope_parameters

    def positioned(self, l: int, x: Tensor) -> Tensor:
        width = int(x.shape[-1] * self.rope(l).get("partial_rotary_factor", 1.0))
        return rotated(x, self.rope(l)["rope_theta"], width)

    def gated(self, m: dict[str, Linear], expert: str = "") -> Map:
        gate, up, down = (m[expert + name] for name in ("gate", "up", "down"))
        return lambda y: down(self.activation(gate(y)) * up(y))

    def mlp(self, l: int) -> Map:
        return self.gated(self.maps(l))


class Mistral(Llama):
    def window(self, l: int) -> int | None:
        return self.c.sliding_window


class Qwen2(Llama):
    def window(self, l: int) -> int | None:
        return self.c.sliding_window if self.c.use_sliding_window and l > self.c.max_window_layers else None


class Qwen3(Qwen2):
    def heads(self, l: int, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        q, k = super().heads(l, q, k)
        return self.norm(self.at(l) + "self_attn.q_norm")(q), self.norm(self.at(l) + "self_attn.k_norm")(k)


class SmolLM3(Llama):
    """Every fourth layer knows no positions, if the config does not say otherwise."""

    def positioned(self, l: int, x: Tensor) -> Tensor:
        return x if l % self.c.no_rope_layer_interval == 0 else super().positioned(l, x)

    def window(self, l: int) -> int | None:
        return self.c.sliding_window if self.c.use_sliding_window and l % self.c.no_rope_layer_interval == 0 else None


class Gemma(Llama):
    activation = staticmethod(gelu_tanh)
    unit = 0.0

    def norm(self, name: str) -> Map:
        return lambda x: (1 + self.w[name + ".weight"]) * mean_square_one(x, self.c.rms_norm_eps)

    def embed(self, ids: Tensor) -> Tensor:
        return super().embed(ids) * math.sqrt(self.c.hidden_size)


class Olmo(Llama):
    def norm(self, name: str) -> Map:
        return lambda x: mean_zero_variance_one(x, 1e-5)


class Olmo2(Llama):
    attention_norm = "post_attention_layernorm"
    mlp_norm = "post_feedforward_layernorm"

    def heads(self, l: int, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        q, k = self.norm(self.at(l) + "self_attn.q_norm")(q), self.norm(self.at(l) + "self_attn.k_norm")(k)
        return super().heads(l, q, k)


class Olmo3(Olmo2):
    """Every fourth layer sees everything, the others a window."""

    def rope(self, l: int) -> dict[str, Any]:
        return self.c.rope_parameters["full_attention" if l % 4 == 0 else "sliding_attention"]

    def window(self, l: int) -> int | None:
        return None if l % 4 == 0 else self.c.sliding_window


class Mixtral(Mistral):
    """Each token goes through its `num_experts_per_tok` likeliest experts, weighted by their share of the softmax."""

    normalised = True

    def sparse(self, l: int) -> bool:
        return True

    def maps(self, l: int) -> dict[str, Linear]:
        if not self.sparse(l):
            return super().maps(l)
        path = self.at(l)
        maps = {role: self.linear(path + name) for role, name in self.names.items() if "mlp" not in name}
        maps["router"] = self.linear(path + "mlp.gate")
        both, down = self.w[path + "mlp.experts.gate_up_proj"], self.w[path + "mlp.experts.down_proj"]
        for e in range(self.c.num_local_experts):
            half = both.shape[1] // 2
            maps[f"expert {e} gate"] = Linear(both[e, :half], None)
            maps[f"expert {e} up"] = Linear(both[e, half:], None)
            maps[f"expert {e} down"] = Linear(down[e], None)
        return maps

    def mlp(self, l: int) -> Map:
        m = self.maps(l)
        if not self.sparse(l):
            return self.gated(m)

        def F(y: Tensor) -> Tensor:
            share = torch.softmax(m["router"](y), dim=-1)
            least = share.sort(dim=-1, descending=True).values[..., self.c.num_experts_per_tok - 1, None]
            share = torch.where(share >= least, share, 0.0)
            if self.normalised:
                share = share / share.sum(-1, keepdim=True)
            return sum(share[..., e, None] * self.gated(m, f"expert {e} ")(y) for e in range(share.shape[-1]))

        return F


class Qwen3Moe(Mixtral, Qwen3):
    def window(self, l: int) -> int | None:
        return self.c.sliding_window if self.c.use_sliding_window else None

    @property
    def normalised(self) -> bool:  # type: ignore[override]
        return self.c.norm_topk_prob

    def sparse(self, l: int) -> bool:
        return l - 1 not in self.c.mlp_only_layers and l % self.c.decoder_sparse_step == 0


class Phi3(Mistral):
    def maps(self, l: int) -> dict[str, Linear]:
        qkv, both = self.linear(self.at(l) + "self_attn.qkv_proj"), self.linear(self.at(l) + "mlp.gate_up_proj")
        heads, shared, half = self.c.num_attention_heads, self.c.num_key_value_heads, len(both.weight) // 2
        d = len(qkv.weight) // (heads + 2 * shared)
        return {
            "query": qkv.rows(slice(0, heads * d)),
            "key": qkv.rows(slice(heads * d, (heads + shared) * d)),
            "value": qkv.rows(slice((heads + shared) * d, None)),
            "output": self.linear(self.at(l) + "self_attn.o_proj"),
            "gate": both.rows(slice(0, half)),
            "up": both.rows(slice(half, None)),
            "down": self.linear(self.at(l) + "mlp.down_proj"),
        }


class GPT2(Network):
    layer = "transformer.h.{}."
    attention_norm = "ln_1"
    mlp_norm = "ln_2"
    final = "transformer.ln_f"
    embeddings = ("transformer.wte.weight", "transformer.wpe.weight")
    names: ClassVar = {"output": "attn.c_proj", "up": "mlp.c_fc", "down": "mlp.c_proj"}

    def linear(self, name: str) -> Linear:
        return Linear(self.w[name + ".weight"].T, self.w[name + ".bias"])  # stored (in, out)

    def maps(self, l: int) -> dict[str, Linear]:
        qkv, D = self.linear(self.at(l) + "attn.c_attn"), self.c.n_embd
        parts = {role: qkv.rows(slice(i * D, (i + 1) * D)) for i, role in enumerate(("query", "key", "value"))}
        return parts | super().maps(l)

    def norm(self, name: str) -> Map:
        weight, bias = name + ".weight", name + ".bias"
        return lambda x: self.w[weight] * mean_zero_variance_one(x, self.c.layer_norm_epsilon) + self.w[bias]

    def embed(self, ids: Tensor) -> Tensor:
        return super().embed(ids) + self.w["transformer.wpe.weight"][: ids.shape[1]]

    def mlp(self, l: int) -> Map:
        m = self.maps(l)
        return lambda y: m["down"](gelu_tanh(m["up"](y)))


class GPTNeoX(Llama):
    """With `use_parallel_residual=False`: attention, then the MLP."""

    layer = "gpt_neox.layers.{}."
    final = "gpt_neox.final_layer_norm"
    embeddings = ("gpt_neox.embed_in.weight",)
    names: ClassVar = {"output": "attention.dense", "up": "mlp.dense_h_to_4h", "down": "mlp.dense_4h_to_h"}

    def maps(self, l: int) -> dict[str, Linear]:
        qkv, heads = self.linear(self.at(l) + "attention.query_key_value"), self.c.num_attention_heads
        d = self.c.hidden_size // heads
        parts = {}
        for i, role in enumerate(("query", "key", "value")):  # each head has its query, key and value side by side
            parts[role] = qkv.rows([3 * d * h + d * i + j for h in range(heads) for j in range(d)])
        return parts | super().maps(l)

    def norm(self, name: str) -> Map:
        weight, bias = name + ".weight", name + ".bias"
        return lambda x: self.w[weight] * mean_zero_variance_one(x, self.c.layer_norm_eps) + self.w[bias]

    def mlp(self, l: int) -> Map:
        m = self.maps(l)
        return lambda y: m["down"](gelu(m["up"](y)))


NETWORKS: dict[str, type[Network]] = {
    "llama": Llama,
    "mistral": Mistral,
    "qwen2": Qwen2,
    "qwen3": Qwen3,
    "smollm3": SmolLM3,
    "gemma": Gemma,
    "olmo": Olmo,
    "olmo2": Olmo2,
    "olmo3": Olmo3,
    "mixtral": Mixtral,
    "qwen3_moe": Qwen3Moe,
    "phi3": Phi3,
    "gpt2": GPT2,
    "gpt_neox": GPTNeoX,
}
