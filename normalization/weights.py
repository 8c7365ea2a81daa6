"""How families lay out their weight matrices, and what each part of one is for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

from torch import Tensor

Role = Literal["query", "key", "value", "attention_output", "mlp_input", "mlp_output", "router"]


class Part(NamedTuple):
    """A part of a weight, as a view into it, and the size of the linear map that it is."""

    role: Role
    view: Tensor
    fan_in: int
    fan_out: int


Layout = Callable[[Tensor, Any], list[Part]]
"""(weight, config) -> its parts, which cover it."""


def rows(*roles: Role) -> Layout:
    """(out, in) as in nn.Linear, or (experts, out, in); several roles lie one below the other in equal parts."""

    def parts(weight: Tensor, config: Any) -> list[Part]:
        chunks = weight.chunk(len(roles), dim=-2)
        return [Part(role, chunk, chunk.shape[-1], chunk.shape[-2]) for role, chunk in zip(roles, chunks, strict=True)]

    return parts


def columns(*roles: Role) -> Layout:
    """(in, out) as in GPT-2's Conv1D; several roles lie side by side in equal parts."""

    def parts(weight: Tensor, config: Any) -> list[Part]:
        chunks = weight.chunk(len(roles), dim=-1)
        return [Part(role, chunk, chunk.shape[-2], chunk.shape[-1]) for role, chunk in zip(roles, chunks, strict=True)]

    return parts


def grouped_rows(weight: Tensor, config: Any) -> list[Part]:
    """(out, in): query, key and value one below the other, with fewer key and value heads (Phi-3)."""
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    shared = config.num_key_value_heads * width
    chunks = weight.split([config.num_attention_heads * width, shared, shared])
    roles: tuple[Role, ...] = ("query", "key", "value")
    return [Part(role, chunk, chunk.shape[1], chunk.shape[0]) for role, chunk in zip(roles, chunks, strict=True)]


def rows_by_head(weight: Tensor, config: Any) -> list[Part]:
    """(heads x (query, key, value) x head width, in): the three take turns head by head (GPT-NeoX)."""
    out, width = weight.shape
    by_head = weight.view(config.num_attention_heads, 3, -1, width)
    roles: tuple[Role, ...] = ("query", "key", "value")
    return [Part(role, by_head[:, number], width, out // 3) for number, role in enumerate(roles)]
