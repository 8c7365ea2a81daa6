"""The training loop: steps, evaluation, checkpoints."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from typing import Any

from accelerate.utils import set_seed
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lab.checkpoint.folder import path_of
from lab.checkpoint.progress import Progress
from lab.checkpoint.restore import restore
from lab.checkpoint.save import Saver
from lab.config.sections import RunConfig
from lab.data import Corpus
from lab.diagnostics import after_checkpoint, awaits, start_watcher
from lab.diagnostics.engine.probe_source import of_blocks
from lab.errors import RunError, UserError
from lab.model.flops import flops_per_token, peak_flops
from lab.monitors import Monitors
from lab.parallel.accelerator import leave
from lab.parallel.collectives import all_sum, several
from lab.runfolder import metrics
from lab.training.batches import MicroBatches
from lab.training.budget import Budget
from lab.training.evaluate import evaluate
from lab.training.learner import share_out
from lab.training.logbook import Logbook
from lab.training.nonfinite import NotFiniteError
from lab.training.process import Process
from lab.training.signals import StopRequest
from lab.training.step import Stepper, StepResult


class Trainer:
    """Trains one model on one corpus. Every rank makes one and calls `run`.

    Args:
        run: the settings.
        model: a causal LM, with the weights that it starts or goes on with.
        corpus: what it learns from.
        tokenizer: kept in each checkpoint.
        process: this one, among those that train together.
        resume_from: a checkpoint, whose training state the run goes on with.
    """

    def __init__(
        self,
        run: RunConfig,
        model: PreTrainedModel,
        corpus: Corpus,
        tokenizer: PreTrainedTokenizerBase,
        process: Process,
        resume_from: Path | None,
    ) -> None:
        self.run_config, self.corpus, self.process = run, corpus, process
        self.learner = share_out(run, model, process.accelerator)
        self.monitors = Monitors(run.monitors, model, self.learner.groups, compiled=run.train.compile)
        for name in self.monitors.left_out:
            process.console.warn(f"monitor {name} is left out: it cannot look into compiled code (--train.compile)")
        self.progress, places = self._restored(resume_from)
        self.budget = Budget(run, self.progress)
        source = corpus.batches(
            rank=process.accelerator.process_index,
            world_size=process.accelerator.num_processes,
            micro_batch=run.train.micro_batch,
            start_sequences=self.progress.sequences,
            states=places,
            tokens=self.budget.tokens - self.progress.positions,
        )
        self.batches = MicroBatches(source, run, process)
        self.stepper = Stepper(self.learner, process, run.optim.clip, self._is_asked_to_stop)
        self.saver = Saver(
            run,
            model,
            self.learner.sharding,
            tokenizer,
            process.accelerator,
            process.console,
            process.heartbeat,
            resume_from,
        )
        self.logbook = Logbook(
            run,
            process.accelerator,
            process.console,
            self.progress,
            self.budget,
            flops_per_token=flops_per_token(model, run.data.block_length),
            peak_flops=peak_flops(process.accelerator.device, run.train.precision),
        )
        self.stop_request: StopRequest | None = None
        self.eval_loss: tuple[int, float] | None = None

    def _restored(self, resume_from: Path | None) -> tuple[Progress, list[dict[str, Any]]]:
        """Where the run stands, and the places in the data of all ranks; optimizer and random numbers put back."""
        # Each rank draws its own dropout masks.
        set_seed(self.run_config.train.seed, device_specific=True)
        if resume_from is None:
            return Progress(), []
        process, learner = self.process, self.learner
        process.heartbeat.at("reading the training state, as long as the file system needs", limited=False)
        progress, places = restore(
            resume_from, self.run_config, learner.bare, learner.sharding, process.accelerator, process.console
        )
        self.monitors.load_state_dict(progress.monitors)
        return progress, places

    def _is_asked_to_stop(self) -> bool:
        return bool(self.stop_request)

    # -- the run ---------------------------------------------------------------------------------------------------

    def run(self, stop_request: StopRequest) -> bool:
        """Train to the end of the budget.

        Returns:
            True when the run is complete, False when it was asked to stop and has saved a checkpoint.

        Raises:
            RunError: a loss or gradient that is not finite (no update was made of it), or a last checkpoint that
                could not be written.
        """
        self.stop_request = stop_request
        self.logbook.open()
        if self.run_config.checkpoint.diagnose == "beside" and self.process.accelerator.is_main_process:
            device = self.run_config.checkpoint.diagnose_device
            watcher = start_watcher(Path(self.run_config.run_dir), "--device", device)
            self.saver.awaited = partial(awaits, watcher)
        try:
            complete = self._loop(stop_request)
        except UserError:  # all ranks raise it; after other errors the process group cannot be left in order
            self.close()
            raise
        if (lost := self.close()) is not None:
            raise RunError(lost)
        if complete:
            folder = self.run_config.run_dir
            self.process.console.say(f"next: depthlab diagnose {folder}; depthlab report {folder}")
        return complete

    def close(self) -> str | None:
        """Close the logbook and leave the process group; returns what was lost of the records, if anything."""
        lost = self.logbook.close()
        leave(self.process.accelerator, self.learner.model)
        return lost

    def _loop(self, stop_request: StopRequest) -> bool:
        run, steps = self.run_config, self.budget.steps
        if self.progress.step >= steps:
            self._complete_already()
        while self.progress.step < steps:
            stop = self.advance().stop or (bool(stop_request) and not several())
            step = self.progress.step
            if not stop and (step == steps or (run.eval.every and step % run.eval.every == 0)):
                self._evaluate()
                stop = self._asked_to_stop()
            if stop or step == steps or (run.checkpoint.every and step % run.checkpoint.every == 0):
                saved = self._save(must_succeed=stop or step == steps)
                if not stop and self._asked_to_stop():
                    stop = True
                    if not saved:
                        self._save(must_succeed=True)
            if stop and self._owes_something(step):
                self.logbook.record({"event": "stopped", "reason": "asked to"})
                stop_request.honoured()
                self.process.console.say(f"stopped after step {step} as asked; go on with --resume latest")
                return False
        return True

    def _asked_to_stop(self) -> bool:
        """After an evaluation or a checkpoint, which may take long: whether any rank has been asked meanwhile."""
        return all_sum(self.process.accelerator, [float(bool(self.stop_request))])[0] > 0

    def _owes_something(self, step: int) -> bool:
        """Whether a run that ends after `step` has updates, or its last evaluation, still to make."""
        return step < self.budget.steps or self.eval_loss is None or self.eval_loss[0] != step

    def _complete_already(self) -> None:
        self.process.console.say(
            f"complete already: step {self.progress.step} of {self.budget.steps}; raise "
            f"{'--train.steps' if self.run_config.train.tokens is None else '--train.tokens'} to go on"
        )
        evaluated = self.process.accelerator.is_main_process and any(
            record.get("step") == self.progress.step and "eval/loss" in record
            for record in metrics.read(Path(self.run_config.run_dir))
        )
        if not all_sum(self.process.accelerator, [float(evaluated)])[0]:
            self._evaluate()

    def advance(self) -> StepResult:
        """One optimizer step, its record and its progress line.

        Raises:
            RunError: data that cannot be read, a loss or gradient that is not finite; no update was made.
        """
        begun_s = time.monotonic()
        progress = self.progress
        step, positions = progress.step + 1, progress.positions + self.budget.next(progress.positions)
        taken = self.batches.take(step)
        try:
            lr = self.budget.learning_rate(step, positions)
            result = self.stepper.step(taken, lr, self.batches.epoch, self.monitors.watch(step))
        except NotFiniteError as error:
            raise self._not_finite(step, error) from error
        progress.step, progress.positions = step, positions
        progress.tokens += result.tokens
        progress.sequences += self.run_config.train.global_batch
        last = step == self.budget.steps or result.stop
        self.logbook.step(result, time.monotonic() - begun_s, last=last)
        return result

    def _not_finite(self, step: int, error: NotFiniteError) -> RunError:
        kept = f"last good checkpoint: {self.saver.last}" if self.saver.last else "no checkpoint was written before it"
        self.logbook.record({"event": "not finite", "step": step, "what": error.what, "where": error.where})
        return RunError(
            f"step {step}: {error}. No update was made of it; {kept}. A lower --optim.lr, a longer "
            "--optim.warmup, a smaller --optim.clip or --train.precision fp32 may help"
        )

    # -- evaluation and checkpoints ----------------------------------------------------------------------------------

    def _evaluate(self) -> None:
        run = self.run_config
        figures = evaluate(
            self.learner.model,
            self.corpus,
            self.process.accelerator,
            self.process.heartbeat,
            micro_batch=run.train.micro_batch,
            blocks=self.corpus.evaluated_blocks(run.eval.blocks),
        )
        self.learner.sharding.settle(self.learner.bare)
        self.eval_loss = (self.progress.step, figures["eval/loss"])
        self.logbook.record(figures)
        error = f" (s.e. {figures['eval/loss_se']:.4f})" if "eval/loss_se" in figures else ""
        self.process.console.say(
            f"step {self.progress.step}: held-out loss {figures['eval/loss']:.4f}{error} nats/token, perplexity "
            f"{figures['eval/perplexity']:.2f}, {figures['eval/bits_per_byte']:.4f} bits/byte"
        )

    def _save(self, *, must_succeed: bool) -> bool:
        measured = self.eval_loss is not None and self.eval_loss[0] == self.progress.step
        eval_loss = self.eval_loss[1] if measured and self.eval_loss else None
        self.progress.monitors = self.monitors.state_dict()
        self.logbook.sync()
        failure = self.saver.save(self.progress, self.batches.state_dict, eval_loss, must_succeed=must_succeed)
        if failure is not None:
            self.logbook.record({"event": "checkpoint failed", "reason": failure})
        elif self.run_config.checkpoint.diagnose == "cheap" and self.process.accelerator.is_main_process:
            self.process.heartbeat.at("diagnosing a checkpoint")
            self._diagnose(path_of(Path(self.run_config.run_dir), self.progress.step))
        self.process.heartbeat.at("drawing for the trackers")
        self.logbook.report()
        return failure is None

    def _diagnose(self, folder: Path) -> None:
        source = f"held-out blocks of {' '.join(self.run_config.data.source)}"
        probe = of_blocks(self.corpus.heldout, None, seed=0, source=source)
        try:
            after_checkpoint(self.learner.bare, folder, probe)
        except UserError as error:  # the run is worth more than its measurement
            self.process.console.warn(f"{folder.name} was not diagnosed: {error}")
