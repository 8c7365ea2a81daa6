"""How the processes share a model, under DDP, FSDP2 and DeepSpeed ZeRO: the part of each tensor that is here, and the
whole of it.

Parts are for what is measured at every step: norms are a sum of squares on each rank and one small all-reduce, and no
whole gradient is gathered. Wholes are for checkpoints: they are the same however the model is shared, so a run goes on
on any number of processes and under any sharding.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from accelerate.utils import DistributedType
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor, distribute_tensor

MOMENTS = ("exp_avg", "exp_avg_sq")
"""Adam's state of a parameter, beside the number of its updates."""


def whole_shape(parameter: Any) -> tuple[int, ...]:
    """A parameter's shape, also where ZeRO-3 keeps only a part of it here."""
    return tuple(getattr(parameter, "ds_shape", parameter.shape))


class Sharding(ABC):
    """One way to share weights, gradients and Adam's state. Parts that together are the whole, each element on one
    rank, unless it says that a part is the whole already.
    """

    name: str
    shares_weights = False
    """Whether no process holds the whole model that computes."""
    gradients_are_parts = True
    weights_are_parts = True

    @abstractmethod
    def gradient(self, parameter: nn.Parameter) -> Tensor:
        """A parameter's gradient between backward pass and update, or this rank's part: any shape, maybe empty."""

    @abstractmethod
    def weight(self, parameter: nn.Parameter) -> Tensor:
        """The weight that the optimizer updates (float32 also where the model computes in bf16), or a part of it."""

    @abstractmethod
    def whole(self, parameter: nn.Parameter, moment: str | None = None) -> Tensor:
        """The whole weight, or the whole of one of `MOMENTS`, float32 in the parameter's shape; all ranks call it."""

    @abstractmethod
    def updates(self, parameter: nn.Parameter) -> float:
        """How many updates Adam has made of a parameter; 0 if none, and then it has no moments."""

    def settle(self, model: nn.Module) -> None:  # noqa: B027
        """After forward passes that no backward pass follows: give back what they have gathered; all ranks call it."""

    @abstractmethod
    def restore(
        self, parameter: nn.Parameter, weight: Tensor | None, moments: dict[str, Tensor], updates: float
    ) -> None:
        """Put back what `whole` and `updates` gave; every rank is given the whole.

        Args:
            parameter: of the prepared model, which holds the weights of the checkpoint.
            weight: float32, where the checkpoint knows it better than a model that computes in bf16.
            moments: each of `MOMENTS`, if there were updates.
            updates: how many.
        """


class Replicated(Sharding):
    """One process, or DDP: every rank holds everything."""

    name = "replicated"
    gradients_are_parts = False
    weights_are_parts = False

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self._optimizer = optimizer
        self._fused = {id(p): group["fused"] for group in optimizer.param_groups for p in group["params"]}

    def gradient(self, parameter: nn.Parameter) -> Tensor:  # noqa: D102
        return torch.zeros_like(parameter) if parameter.grad is None else parameter.grad

    def weight(self, parameter: nn.Parameter) -> Tensor:  # noqa: D102
        return parameter.detach()

    def whole(self, parameter: nn.Parameter, moment: str | None = None) -> Tensor:  # noqa: D102
        return parameter.detach() if moment is None else self._optimizer.state[parameter][moment]

    def updates(self, parameter: nn.Parameter) -> float:  # noqa: D102
        state = self._optimizer.state.get(parameter)
        return float(state["step"]) if state else 0.0

    def restore(self, parameter: Any, weight: Tensor | None, moments: dict[str, Tensor], updates: float) -> None:  # noqa: D102
        if updates:  # the weights themselves are float32 and loaded
            step = torch.tensor(updates, device=parameter.device if self._fused[id(parameter)] else "cpu")
            self._optimizer.state[parameter] = {
                "step": step,
                **{name: self._part(parameter, moment).clone() for name, moment in moments.items()},
            }

    def _part(self, parameter: Any, whole: Tensor) -> Tensor:
        return whole.to(parameter.device)


class FullyShardedDataParallel(Replicated):
    """FSDP2: every tensor is a DTensor."""

    name = "fsdp2"
    shares_weights = True
    gradients_are_parts = True
    weights_are_parts = True

    def gradient(self, parameter: Any) -> Tensor:  # noqa: D102
        return torch.zeros_like(parameter.to_local()) if parameter.grad is None else parameter.grad.to_local()

    def weight(self, parameter: Any) -> Tensor:  # noqa: D102
        return parameter.detach().to_local()

    def whole(self, parameter: Any, moment: str | None = None) -> Tensor:  # noqa: D102
        shared: Any = super().whole(parameter, moment)
        return shared.full_tensor()

    def settle(self, model: nn.Module) -> None:  # noqa: D102
        # Or one rank, whose weights something else brought back to their shards, would gather them alone.
        for module in model.modules():
            if isinstance(module, FSDPModule):
                module.reshard()

    def _part(self, parameter: Any, whole: Tensor) -> Tensor:
        # Every rank has the whole, so each cuts its own part out.
        whole = whole.to(parameter.device)
        return distribute_tensor(whole, parameter.device_mesh, parameter.placements, src_data_rank=None)


class _Zero(Sharding):
    """DeepSpeed keeps float32 weights and Adam's state in flat partitions of many parameters."""

    def __init__(self, engine: Any, stage: int) -> None:
        self.name = f"zero{stage}"
        self._optimizer = engine.optimizer

    @property
    @abstractmethod
    def _partitions(self) -> list[Tensor]:
        """The flat partitions of this rank, which are what the inner optimizer updates."""

    def whole(self, parameter: nn.Parameter, moment: str | None = None) -> Tensor:
        from deepspeed.utils import safe_get_full_fp32_param, safe_get_full_optimizer_state

        if moment is None:
            return safe_get_full_fp32_param(parameter)
        return safe_get_full_optimizer_state(parameter, moment)

    def updates(self, parameter: nn.Parameter) -> float:
        # A partition is updated as one, so all its parameters have the same number.
        states = [self._optimizer.optimizer.state.get(partition) for partition in self._partitions]
        return max((float(state["step"]) for state in states if state), default=0.0)

    def _make_state(self, updates: float) -> None:
        """Adam's state of each partition, as its first update would make it."""
        inner = self._optimizer.optimizer
        for partition in self._partitions:
            if not inner.state.get(partition):
                fused = inner.param_groups[0].get("fused")
                step: Any = torch.tensor(updates, device=partition.device if fused else "cpu")
                inner.state[partition] = {"step": step, **{name: torch.zeros_like(partition) for name in MOMENTS}}


class Zero12(_Zero):
    """DeepSpeed ZeRO-1 and 2: weights whole, optimizer (and gradients) in parts."""

    @property
    def _partitions(self) -> list[Tensor]:
        return self._optimizer.single_partition_of_fp32_groups

    def gradient(self, parameter: Any) -> Tensor:
        """The fragment of a reduced gradient that belongs to this rank's optimizer partition.

        As `deepspeed.utils.safe_get_full_grad` finds it before it gathers the others.
        """
        mapping = parameter._hp_mapping
        if mapping is None:
            return parameter.new_zeros(0, dtype=torch.float32)
        fragment = mapping.get_lp_grad_fragment(parameter._index_in_param_group).detach().float().flatten()
        if fragment.numel() == parameter.numel() != mapping.lp_fragment_address.numel:
            fragment = fragment.narrow(0, mapping.lp_fragment_address.start, mapping.lp_fragment_address.numel)
        return fragment

    def weight(self, parameter: Any) -> Tensor:  # noqa: D102
        mapping = parameter._hp_mapping
        return parameter.new_zeros(0, dtype=torch.float32) if mapping is None else mapping.hp_fragment.detach()

    def whole(self, parameter: Any, moment: str | None = None) -> Tensor:  # noqa: D102
        if moment is not None:
            self._link_moments(parameter)
        return super().whole(parameter, moment)

    def _link_moments(self, parameter: Any) -> None:
        """DeepSpeed does this for all groups once, after the update of the first, when the others have no state yet."""
        if (mapping := parameter._hp_mapping) is not None:
            partition = self._partitions[mapping.param_group_index]
            mapping.set_optim_state_fragment(partition, self._optimizer.optimizer.state[partition])

    def restore(self, parameter: Any, weight: Tensor | None, moments: dict[str, Tensor], updates: float) -> None:  # noqa: D102
        from deepspeed.utils import safe_set_full_fp32_param, safe_set_full_optimizer_state

        if weight is not None:
            safe_set_full_fp32_param(parameter, weight)
        if updates:
            self._make_state(updates)
            self._link_moments(parameter)
            for name, moment in moments.items():
                safe_set_full_optimizer_state(parameter, moment, name)


class Zero3(_Zero):
    """DeepSpeed ZeRO-3: everything in parts."""

    shares_weights = True

    @property
    def _partitions(self) -> list[Tensor]:
        return self._optimizer.fp32_partitioned_groups_flat

    def gradient(self, parameter: nn.Parameter) -> Tensor:  # noqa: D102
        from deepspeed.utils import safe_get_local_grad

        return safe_get_local_grad(parameter)

    def weight(self, parameter: nn.Parameter) -> Tensor:  # noqa: D102
        from deepspeed.utils import safe_get_local_fp32_param

        return safe_get_local_fp32_param(parameter).detach()

    def restore(self, parameter: Any, weight: Tensor | None, moments: dict[str, Tensor], updates: float) -> None:  # noqa: D102
        from deepspeed.utils import safe_set_local_fp32_param, safe_set_local_optimizer_state

        if weight is not None:
            safe_set_local_fp32_param(parameter, self._part(parameter, weight))
        if updates:
            self._make_state(updates)
            for name, moment in moments.items():
                safe_set_local_optimizer_state(parameter, self._part(parameter, moment), name)

    def _part(self, parameter: Any, whole: Tensor) -> Tensor:
        """This rank's part; the last one is filled up with zeros, as DeepSpeed does."""
        from deepspeed import comm

        size = parameter.ds_tensor.numel()
        ranks = comm.get_world_size(parameter.ds_process_group)
        filled = F.pad(whole.flatten(), (0, size * ranks - whole.numel()))
        return filled.narrow(0, size * comm.get_rank(parameter.ds_process_group), size)


def sharding_of(accelerator: Accelerator, model: Any, optimizer: Any) -> Sharding:
    """How the accelerator's processes share the model and optimizer that it has prepared."""
    if accelerator.distributed_type == DistributedType.DEEPSPEED:
        stage = accelerator.state.deepspeed_plugin.zero_stage
        return Zero3(model, stage) if stage == 3 else Zero12(model, stage)
    if isinstance(next(model.parameters()), DTensor):
        return FullyShardedDataParallel(optimizer.optimizer)
    return Replicated(optimizer.optimizer)
