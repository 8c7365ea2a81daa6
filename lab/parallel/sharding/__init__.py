"""How the processes share a model, under DDP, FSDP2 and DeepSpeed ZeRO: the part of each tensor that is here, and the
whole of it. One file an engine; base.py says what each must tell.

                                      weights that compute   weights that are updated, gradients, Adam's moments
    replicated.py  one process, DDP   whole                  whole
    zero.py        ZeRO-1, ZeRO-2     whole                  part
                   ZeRO-3             part                   part
    fsdp2.py       FSDP2              part                   part

Parts are for what is measured at every step: norms are a sum of squares on each rank and one small all-reduce, and no
whole gradient is gathered. Wholes are for checkpoints: they are the same however the model is shared, so a run goes on
on any number of processes and under any sharding.
"""

from __future__ import annotations

from typing import Any

from accelerate import Accelerator
from accelerate.utils import DistributedType
from torch.distributed.tensor import DTensor

from lab.parallel.sharding.base import MOMENTS, Sharding, whole_shape
from lab.parallel.sharding.fsdp2 import FullyShardedDataParallel
from lab.parallel.sharding.replicated import Replicated
from lab.parallel.sharding.zero import Zero3, Zero12

__all__ = ["MOMENTS", "Sharding", "sharding_of", "whole_shape"]


def sharding_of(accelerator: Accelerator, model: Any, optimizer: Any) -> Sharding:
    """How the accelerator's processes share the model and optimizer that it has prepared."""
    if accelerator.distributed_type == DistributedType.DEEPSPEED:
        stage = accelerator.state.deepspeed_plugin.zero_stage
        return Zero3(model, stage) if stage == 3 else Zero12(model, stage)
    if isinstance(next(model.parameters()), DTensor):
        return FullyShardedDataParallel(accelerator, model, optimizer)
    return Replicated(accelerator, model, optimizer)
