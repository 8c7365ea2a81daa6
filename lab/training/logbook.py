"""What a run writes down: metrics.jsonl, the trackers' curves and pictures, and the progress line."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accelerate import Accelerator

from lab.checkpoint.progress import Progress
from lab.config.names import flat
from lab.config.sections import RunConfig
from lab.errors import UserError
from lab.runfolder import metrics
from lab.runfolder.console import Console
from lab.runfolder.text import duration

if TYPE_CHECKING:
    from lab.report.trackers import TrackedReport
    from lab.training.budget import Budget
    from lab.training.step import StepResult


class Logbook:
    """Every rank has one; the main process's writes.

    Args:
        progress: the trainer's, which goes on as it trains.
        budget: how far it goes.
        flops_per_token: of a forward and a backward pass.
        peak_flops: of one device, None if it is not known.
    """

    def __init__(
        self,
        run: RunConfig,
        accelerator: Accelerator,
        console: Console,
        progress: Progress,
        budget: Budget,
        *,
        flops_per_token: float,
        peak_flops: float | None,
    ) -> None:
        self._run, self._accelerator, self._console, self._progress = run, accelerator, console, progress
        self._budget = budget
        self.flops_per_token, self.peak_flops = flops_per_token, peak_flops
        self._metrics: metrics.MetricsLog | None = None
        self._failure: str | None = None
        self._report: TrackedReport | None = None

    def open(self) -> None:
        """Open metrics.jsonl and the trackers, and start the clock of the progress line."""
        if self._accelerator.is_main_process:
            self._metrics = metrics.MetricsLog(Path(self._run.run_dir))
        if self._run.log.trackers:
            # Of a run that a crash has ended, TensorBoard has steps that come again: it is told to drop those.
            kwargs = {"tensorboard": {"purge_step": self._progress.step + 1}} if self._progress.step else {}
            self._accelerator.init_trackers(
                self._run.log.project, config=_tracker_config(self._run), init_kwargs=kwargs
            )
            if self._accelerator.is_main_process:
                from lab.report.trackers import TrackedReport

                self._report = TrackedReport(self._accelerator, Path(self._run.run_dir))
        self._clock = (time.monotonic(), self._progress.tokens)

    def sync(self) -> None:
        """Bring metrics.jsonl to disk."""
        if self._metrics is not None:
            self._keep(self._metrics.sync)

    def close(self) -> str | None:
        """Close metrics.jsonl; returns what was lost of it, if anything."""
        if self._metrics is None or self._keep(self._metrics.close) is None:
            return None
        return (
            f"{self._run.run_dir}: the last records of {metrics.NAME} could not be written ({self._failure}) and are "
            "lost; the checkpoints that were told of are whole. Make room on its disk"
        )

    def _keep(self, write: Callable[[], None]) -> str | None:
        """Write to metrics.jsonl; why it could not be, which costs no step and no checkpoint."""
        before, self._failure = self._failure, None
        try:
            write()
        except OSError as error:
            self._failure = error.strerror or str(error)
            if before is None:
                self._console.warn(
                    f"step {self._progress.step}: {metrics.NAME} cannot be written ({self._failure}); its records wait "
                    f"in memory. Make room on the disk of {self._run.run_dir}"
                )
        return self._failure

    def record(self, figures: dict[str, Any]) -> None:
        """Write figures down, with step and tokens; trackers get the numbers among them."""
        if (log := self._metrics) is not None:
            record = {"step": self._progress.step, "tokens": self._progress.tokens, **figures}
            self._keep(lambda: log.write(record))
        numbers = {key: value for key, value in figures.items() if isinstance(value, float)}
        if self._run.log.trackers and numbers:
            self._accelerator.log(numbers, step=self._progress.step)

    def step(self, result: StepResult, seconds: float, *, last: bool) -> None:
        """Record a step as often as the run wants it, and show it."""
        step = self._progress.step
        if step % self._run.log.every == 0 or last or result.figures:
            self.record(self._training_figures(result, seconds))
        started_s, started_tokens = self._clock
        mean_tokens_per_second = (self._progress.tokens - started_tokens) / (time.monotonic() - started_s)
        self._console.progress(lambda: self._line(result, mean_tokens_per_second), now=last or step == 1)

    def report(self) -> None:
        """Show the trackers what the report would show by now. What is broken in it stops no run."""
        if self._report is None:
            return
        try:
            self._report.log(self._progress.step)
        except (UserError, OSError) as error:
            self._console.warn(f"the trackers got no figures of the report: {error}")

    def _training_figures(self, result: StepResult, seconds: float) -> dict[str, Any]:
        per_second = result.tokens / seconds
        figures = {
            "epoch": result.epoch,
            "train/loss": result.loss,
            "train/lr": result.lr,
            "train/grad_norm": result.gradient_norm,
            "train/seconds_per_step": seconds,
            "train/tokens_per_second": per_second,
        }
        if result.aux_loss is not None:
            figures["train/aux_loss"] = result.aux_loss
        if (mfu := self._mfu(per_second)) is not None:
            figures["train/mfu"] = mfu
        return figures | result.figures

    def _mfu(self, tokens_per_second: float) -> float | None:
        if self.peak_flops is None:
            return None
        return tokens_per_second * self.flops_per_token / (self.peak_flops * self._accelerator.num_processes)

    def _line(self, result: StepResult, tokens_per_second: float) -> str:
        step, steps = self._progress.step, self._budget.steps
        left_s = (self._budget.tokens - self._progress.positions) / tokens_per_second
        mfu = self._mfu(tokens_per_second)
        # In the order of what is read most: a narrow terminal cuts the end.
        return (
            f"{step:>{len(str(steps))}}/{steps} {100 * step / steps:3.0f} % | loss {result.loss:.4f} | "
            f"{duration(left_s)} left | grad norm {result.gradient_norm:.3f} | lr {result.lr:.2e} | "
            f"{tokens_per_second:,.0f} tokens/s" + (f" | MFU {100 * mfu:.1f} %" if mfu is not None else "")
        )


def _tracker_config(run: RunConfig) -> dict[str, Any]:
    settings = flat(dataclasses.asdict(run))
    return {key: value if isinstance(value, int | float | str) else str(value) for key, value in settings.items()}
