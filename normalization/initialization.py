"""Initialisation, a choice of its own apart from the scheme: one table, tensor -> distribution."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from typing import get_args

from torch import nn

from normalization.api import family_of, spec
from normalization.families import Family
from normalization.schemes import get as get_scheme
from normalization.weights import Layout, Role

Distribution = Callable[[int, int], float]
"""Standard deviation of a zero-mean normal distribution from a linear map's (fan_in, fan_out)."""


def gaussian(std: float) -> Distribution:
    """N(0, std^2)."""
    return lambda fan_in, fan_out: std


def xavier(gain: float) -> Distribution:
    """N(0, gain^2 * 2 / (fan_in + fan_out))."""
    return lambda fan_in, fan_out: gain * math.sqrt(2 / (fan_in + fan_out))


def _table(depth: int, std: float) -> dict[str, dict[Role, Distribution]]:
    """Initialisation -> role of a layer's weight matrix -> distribution; L = depth, s = std.

    | role                       | normal    | scaled             | deepnorm                  |
    |----------------------------|-----------|--------------------|---------------------------|
    | query, key                 | N(0, s^2) | N(0, s^2)          | xavier(1)                 |
    | value, mlp input           | N(0, s^2) | N(0, s^2)          | xavier(beta)              |
    | attention and mlp output   | N(0, s^2) | N(0, s^2 / (2L))   | xavier(beta)              |
    | embeddings (all three)     | N(0, embedding_std^2)                                      |
    | untied head, router (all)  | N(0, s^2)                                                  |
    | norms, biases (all three)  | weight 1, bias 0                                           |

    `scaled` is GPT-2's (Radford et al. 2019). `deepnorm` has beta = (8L)^(-1/4) (arXiv:2203.00555, decoder).
    """
    normal, shrunk = gaussian(std), gaussian(std / math.sqrt(2 * depth))
    unit, beta = xavier(1.0), xavier((8 * depth) ** -0.25)
    return {
        "normal": dict.fromkeys(_ROLES, normal),
        "scaled": dict.fromkeys(_ROLES, normal) | {"attention_output": shrunk, "mlp_output": shrunk},
        "deepnorm": dict.fromkeys(_ROLES, beta) | {"query": unit, "key": unit, "router": normal},
    }


_ROLES: tuple[Role, ...] = get_args(Role)
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
            on the meta device, where drawing would do nothing.
    """
    scheme = get_scheme(spec(model).scheme)
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

    for name, parameter in model.named_parameters():
        if parameter.is_meta or (parameter.numel() == 0 and not _is_partitioned(parameter)):
            raise ValueError(f"{name} has no memory to draw into; give the model some first (`to_empty`)")

    depth: int = model.config.num_hidden_layers  # type: ignore[assignment, union-attr]
    by_role = _table(depth, std)[initialization]
    family = family_of(model)
    layouts = dict(_layouts(model, family))
    head = model.get_output_embeddings()  # type: ignore[operator]
    drawn: set[int] = set()
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if id(parameter) in drawn:
                continue
            drawn.add(id(parameter))
            with _whole(parameter):
                if id(parameter) in layouts:
                    for part in layouts[id(parameter)](parameter.detach(), model.config):
                        nn.init.normal_(part.view, std=by_role[part.role](part.fan_in, part.fan_out))
                elif isinstance(module, nn.Embedding):
                    nn.init.normal_(parameter, std=embedding_std)
                elif name == "bias":
                    nn.init.zeros_(parameter)
                elif module is head:
                    nn.init.normal_(parameter, std=std)
                elif parameter.ndim == 1:
                    nn.init.constant_(parameter, family.unit_weight)
                else:
                    raise ValueError(
                        f"{type(module).__name__}.{name} of shape {tuple(parameter.shape)} has no distribution; "
                        "add the weight to its family's entry in normalization/families.py"
                    )
    return model


def _layouts(model: nn.Module, family: Family) -> Iterator[tuple[int, Layout]]:
    for layer in family.decoder_layers(model):
        weights = dict(layer.named_parameters())
        for path, layout in family.weights.items():
            if path in weights:
                yield id(weights[path]), layout


def _is_partitioned(parameter: nn.Parameter) -> bool:
    """Whether ZeRO-3 has spread a parameter over the ranks."""
    return hasattr(parameter, "ds_id")


@contextmanager
def _whole(parameter: nn.Parameter) -> Iterator[None]:
    """One parameter at a time is whole under ZeRO-3: all ranks draw alike, and keep what rank 0 drew."""
    if not _is_partitioned(parameter):
        yield
        return
    import deepspeed

    with deepspeed.zero.GatheredParameters([parameter], modifier_rank=0):
        yield
