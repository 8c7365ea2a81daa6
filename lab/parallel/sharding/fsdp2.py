from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import distribute_tensor

from lab.parallel.sharding.replicated import Replicated


class FullyShardedDataParallel(Replicated):
    """FSDP2: every tensor is a DTensor."""

    name = "fsdp2"
    shares_weights = True
    gradients_are_parts = True
    weights_are_parts = True

    def micro_batch(self, *, is_last: bool) -> AbstractContextManager[Any]:  # noqa: D102
        # Gradients are reduced and cut after every micro-batch: FSDP2 would else keep them whole until the last.
        return nullcontext()

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
