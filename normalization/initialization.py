"""Initialisation, a choice of its own apart from the scheme: one table, tensor -> distribution."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from difflib import get_close_matches
from typing import Any

from torch import Tensor, nn

from normalization import schemes
from normalization.api import _family, spec
from normalization.families import Role

Distribution = Callable[[Tensor], Any]


def gaussian(std: float) -> Distribution:
    """N(0, std^2)."""
    return lambda tensor: nn.init.normal_(tensor, mean=0.0, std=std)


def xavier(gain: float) -> Distribution:
    """N(0, gain^2 * 2 / (fan_in + fan_out))."""
    return lambda tensor: nn.init.xavier_normal_(tensor, gain=gain)


def _table(depth: int, std: float) -> dict[str, dict[Role, Distribution]]:
    """Initialisation -> role of a layer's weight matrix -> distribution; L = depth, s = std.

    | role                       | normal    | scaled             | deepnorm                  |
    |----------------------------|-----------|--------------------|---------------------------|
    | query, key                 | N(0, s^2) | N(0, s^2)          | xavier(1)                 |
    | value, mlp input           | N(0, s^2) | N(0, s^2)          | xavier(beta)              |
    | attention and mlp output   | N(0, s^2) | N(0, s^2 / (2L))   | xavier(beta)              |
    | embeddings (all three)     | N(0, embedding_std^2)                                      |
    | untied head (all three)    | N(0, s^2)                                                  |
    | norms, biases (all three)  | weight 1, bias 0                                           |

    `scaled` is GPT-2's (Radford et al. 2019). `deepnorm` has beta = (8L)^(-1/4) (arXiv:2203.00555, decoder).
    """
    normal, shrunk = gaussian(std), gaussian(std / math.sqrt(2 * depth))
    unit, beta = xavier(1.0), xavier((8 * depth) ** -0.25)
    return {
        "normal": dict.fromkeys(_ROLES, normal),
        "scaled": dict.fromkeys(_ROLES, normal) | {"attention_output": shrunk, "mlp_output": shrunk},
        "deepnorm": dict.fromkeys(_ROLES, beta) | {"query": unit, "key": unit},
    }


_ROLES: tuple[Role, ...] = ("query", "key", "value", "attention_output", "mlp_input", "mlp_output")
NAMES: tuple[str, ...] = tuple(_table(1, 1.0))


def initialize(
    model: nn.Module, initialization: str | None = None, *, std: float = 0.02, embedding_std: float = 0.02
) -> nn.Module:
    """Draw every parameter of a causal LM anew, in place, from torch's global generator.

    Args:
        model: a causal LM of a known family, with or without a scheme.
        initialization: `normal`, `scaled` or `deepnorm`; by default the one that the scheme's paper uses.
        std: standard deviation of weight matrices (unused by `deepnorm`, except for an untied head).
        embedding_std: standard deviation of token and position embeddings. The reference repositories of LNS
            and Mix-LN differ in it (0.02 and 0.63), and their baselines with it.

    Raises:
        ValueError: unknown initialisation or family; a parameter that the family's entry does not name; one
            on the meta device or partitioned by ZeRO-3, where drawing would do nothing.
    """
    scheme = schemes.get(spec(model).scheme)
    initialization = initialization or scheme.initialization
    if initialization not in NAMES:
        near = get_close_matches(initialization, NAMES, n=1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        raise ValueError(f"unknown initialization {initialization!r}{hint}; choose from {', '.join(NAMES)}")
    if initialization in scheme.discouraged:
        warnings.warn(
            f"{scheme.name} with {initialization!r} initialisation: {scheme.discouraged[initialization]}",
            stacklevel=2,
        )

    depth: int = model.config.num_hidden_layers  # type: ignore[assignment, union-attr]
    by_role = _table(depth, std)[initialization]
    matrices = {id(matrix): roles for matrix, roles in _matrices(model)}
    head = model.get_output_embeddings()  # type: ignore[operator]
    drawn: set[int] = set()
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if id(parameter) in drawn:
                continue
            drawn.add(id(parameter))
            if parameter.is_meta or parameter.numel() == 0:
                raise ValueError(
                    f"{type(module).__name__}.{name} has no memory to draw into; give the model some first "
                    "(`to_empty`), or gather what ZeRO-3 has partitioned"
                )
            if id(parameter) in matrices:
                roles = matrices[id(parameter)]
                for role, part in zip(roles, _fused_parts(module, parameter, len(roles)), strict=True):
                    by_role[role](part)
            elif isinstance(module, nn.Embedding):
                gaussian(embedding_std)(parameter)
            elif name == "bias":
                nn.init.zeros_(parameter)
            elif module is head:
                gaussian(std)(parameter)
            elif parameter.ndim == 1:
                nn.init.ones_(parameter)
            else:
                raise ValueError(
                    f"{type(module).__name__}.{name} of shape {tuple(parameter.shape)} has no distribution; "
                    "add the weight to its family's entry in normalization/families.py"
                )
    return model


def _matrices(model: nn.Module) -> Iterator[tuple[Tensor, tuple[Role, ...]]]:
    family = _family(model)
    weights: Mapping[str, tuple[Role, ...]] = family.weights
    for layer in family.decoder_layers(model):
        for path, roles in weights.items():
            yield layer.get_submodule(path).weight, roles  # type: ignore[misc]


def _fused_parts(module: nn.Module, weight: Tensor, parts: int) -> tuple[Tensor, ...]:
    # nn.Linear keeps (out, in), GPT-2's Conv1D (in, out); fused projections lie side by side along `out`.
    return weight.detach().chunk(parts, dim=0 if isinstance(module, nn.Linear) else 1)
