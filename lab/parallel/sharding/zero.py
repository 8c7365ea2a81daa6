"""DeepSpeed ZeRO, through what DeepSpeed shows of its partitions and a few of its private fields."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lab.parallel.sharding.base import MOMENTS, Sharding


class _Zero(Sharding):
    """DeepSpeed keeps float32 weights and Adam's state in flat partitions of many parameters."""

    def __init__(self, engine: Any, stage: int) -> None:
        self.name = f"zero{stage}"
        self._engine, self._optimizer = engine, engine.optimizer

    def backward(self, loss: Tensor, *, is_last: bool) -> None:
        # Accelerate's own call would go on to the update, and clear the gradients before anyone has seen them.
        self._engine.backward(loss, scale_wrt_gas=False)
        if not is_last:
            self._engine.step()  # no update yet: it counts the micro-batch

    def update(self, clip: float | None, gradient_norm: float) -> None:
        self._engine.step()  # clips as its configuration says, which is the run's

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
        # ZeRO-1 in bf16 has an optimizer of its own (BF16_Optimizer), which sums gradients in fp32 on every rank.
        own = getattr(self._optimizer, "fp32_groups_flat_partition", None)
        return self._optimizer.single_partition_of_fp32_groups if own is None else own

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
