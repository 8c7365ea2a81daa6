"""The processes that measure together, each on its share of the batches."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor


@dataclass(frozen=True)
class Processes:
    """This process among those that measure together."""

    rank: int = 0
    world: int = 1

    @classmethod
    def join(cls) -> Processes:
        """The processes of `accelerate launch` or `torchrun`; one alone otherwise."""
        world = int(os.environ.get("WORLD_SIZE", "1"))
        if world == 1:
            return cls()
        if not dist.is_initialized():
            # gloo: what is added up is small, and a group of CPU tensors works on every machine.
            dist.init_process_group("gloo", timeout=timedelta(hours=6))
        return cls(dist.get_rank(), dist.get_world_size())

    @property
    def is_main(self) -> bool:
        """Whether this one writes and prints."""
        return self.rank == 0

    def add_up(self, tensor: Tensor) -> None:
        """The sum over processes, in place."""
        if self.world == 1:
            return
        here = tensor.cpu()
        dist.all_reduce(here)
        if here is not tensor:
            tensor.copy_(here)

    def any(self, flags: list[bool]) -> list[bool]:
        """For each flag, whether any process has it set."""
        together = torch.tensor([float(flag) for flag in flags])
        self.add_up(together)
        return [value > 0 for value in together.tolist()]

    def wait(self) -> None:
        """Until all are here."""
        if self.world > 1:
            dist.barrier()

    def leave(self) -> None:
        """End the group."""
        if self.world > 1 and dist.is_initialized():
            dist.destroy_process_group()
