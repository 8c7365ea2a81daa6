"""The micro-batches of a step: read, counted on the CPU, agreed on by all ranks, then copied to the device."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from lab.config.sections import RunConfig
from lab.data.loading import Batches
from lab.errors import RunError, UserError
from lab.model.loss import count_targets
from lab.parallel.collectives import all_sum, raise_if_any_failed
from lab.training.process import Process

Batch = dict[str, Tensor]
"""`input_ids`, `targets` and, where documents are kept apart, `position_ids`; each (B, T)."""


@dataclass(frozen=True)
class StepBatches:
    """What one optimizer step learns from."""

    batches: list[Batch]
    """This rank's micro-batches, on its device."""
    targets: int
    """Targets of all ranks' micro-batches together."""


class MicroBatches:
    """This rank's micro-batches, a step's at a time.

    Args:
        source: endless micro-batches of this rank, whose targets end where a token budget does.
        run: says how many a step takes.
        process: this one.
    """

    def __init__(self, source: Batches, run: RunConfig, process: Process) -> None:
        self._source, self._process = source, process
        self.per_step = run.train.global_batch // (run.train.micro_batch * process.accelerator.num_processes)

    @property
    def epoch(self) -> float:
        """Passes over the training data so far."""
        return self._source.epoch

    def state_dict(self) -> dict[str, Any]:
        """This rank's place in the data."""
        return self._source.state_dict()

    def take(self, step: int) -> StepBatches:
        """Those of the next step.

        Raises:
            RunError: data that cannot be read, on any rank.
        """
        self._process.heartbeat.at("reading data", step=step)
        failure: Exception | None = None
        batches: list[Batch] = []
        try:
            batches = [next(self._source) for _ in range(self.per_step)]
        except (UserError, OSError) as error:
            failure = error
        here = sum(count_targets(batch["targets"]) for batch in batches)
        self._process.heartbeat.at("waiting for the other ranks' data")
        targets, failures = all_sum(self._process.accelerator, [here, float(failure is not None)])
        if failures:
            raise_if_any_failed(RunError(f"step {step}: reading data: {failure}") if failure else None)
        return StepBatches([self._on_device(batch) for batch in batches], int(targets))

    def _on_device(self, batch: Batch) -> Batch:
        return {name: tensor.to(self._process.accelerator.device, non_blocking=True) for name, tensor in batch.items()}
