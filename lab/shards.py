"""The part of each gradient and weight that this process holds, under DDP, DeepSpeed ZeRO and FSDP2."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType
from torch import Tensor, nn


@dataclass(frozen=True)
class Shards:
    """Between the backward pass and the update, parts that together are the whole, each element on one rank.

    Norms are then a sum of squares on each rank and one small all-reduce; no whole gradient is gathered.
    """

    gradient: Callable[[nn.Parameter], Tensor]
    """A parameter's gradient, or this rank's part of it (any shape, maybe empty)."""
    weight: Callable[[nn.Parameter], Tensor]
    """A parameter, or this rank's part of it."""
    gradients_are_parts: bool = False
    weights_are_parts: bool = False


def whole_shape(parameter: Any) -> tuple[int, ...]:
    """A parameter's shape, also where ZeRO-3 keeps only a part of it here."""
    return tuple(getattr(parameter, "ds_shape", parameter.shape))


def shards_of(accelerator: Accelerator) -> Shards:
    """How the accelerator's processes share gradients and weights."""
    if accelerator.distributed_type == DistributedType.DEEPSPEED:
        return _ZERO[accelerator.state.deepspeed_plugin.zero_stage]
    if accelerator.distributed_type == DistributedType.FSDP:
        return Shards(_dtensor_gradient, _dtensor, True, True)
    return Shards(_gradient, _whole)


def _whole(parameter: nn.Parameter) -> Tensor:
    return parameter.detach()


def _gradient(parameter: nn.Parameter) -> Tensor:
    return torch.zeros_like(parameter) if parameter.grad is None else parameter.grad


def _dtensor(parameter: Any) -> Tensor:
    return parameter.detach().to_local()


def _dtensor_gradient(parameter: Any) -> Tensor:
    return parameter.new_zeros(0).to_local() if parameter.grad is None else parameter.grad.to_local()


def _zero_partition(parameter: Any) -> Tensor:
    return parameter.ds_tensor.detach()


def _zero3_gradient(parameter: Any) -> Tensor:
    from deepspeed.utils import safe_get_local_grad

    return safe_get_local_grad(parameter)


def _zero12_gradient(parameter: Any) -> Tensor:
    """The fragment of a reduced gradient that belongs to this rank's optimizer partition.

    As `deepspeed.utils.safe_get_full_grad` finds it before it gathers the others.
    """
    mapping = parameter._hp_mapping
    if mapping is None:
        return parameter.new_zeros(0)
    fragment = mapping.get_lp_grad_fragment(parameter._index_in_param_group).detach().float().flatten()
    if fragment.numel() == parameter.numel() != mapping.lp_fragment_address.numel:
        fragment = fragment.narrow(0, mapping.lp_fragment_address.start, mapping.lp_fragment_address.numel)
    return fragment


_ZERO = {
    0: Shards(_gradient, _whole),
    1: Shards(_zero12_gradient, _whole, True, False),
    2: Shards(_zero12_gradient, _whole, True, False),
    3: Shards(_zero3_gradient, _zero_partition, True, True),
}
