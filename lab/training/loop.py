"""The training loop: steps, evaluation, checkpoints, and the moments that monitors take part in."""

from __future__ import annotations

import math
import time
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType, set_seed
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lab.checkpoint.folder import path_of
from lab.checkpoint.progress import Progress
from lab.checkpoint.restore import restore
from lab.checkpoint.save import Saver
from lab.config.sections import RunConfig
from lab.data import Corpus
from lab.data.packing import IGNORED
from lab.diagnostics import after_checkpoint, awaits, start_watcher
from lab.diagnostics.engine.probe_source import of_blocks
from lab.errors import ConfigError, RunError, UserError
from lab.model.attention import keep_documents_apart
from lab.model.flops import flops_per_token, peak_flops
from lab.model.loss import Objective, count_targets
from lab.monitors import build
from lab.parallel.accelerator import leave
from lab.parallel.collectives import all_sum, gather, raise_if_any_failed
from lab.parallel.heartbeat import Heartbeat
from lab.parallel.places import Groups
from lab.parallel.sharding import sharding_of
from lab.runfolder.console import Console
from lab.training import nonfinite
from lab.training.evaluate import evaluate
from lab.training.logbook import Logbook
from lab.training.optim import build_optimizer, learning_rate
from lab.training.signals import StopRequest
from lab.training.step import StepResult

Batch = dict[str, Tensor]


class Trainer:
    """Trains one model on one corpus. Every rank makes one and calls `run`."""

    def __init__(
        self,
        run: RunConfig,
        model: PreTrainedModel,
        corpus: Corpus,
        tokenizer: PreTrainedTokenizerBase,
        accelerator: Accelerator,
        console: Console,
        heartbeat: Heartbeat,
        resume_from: Path | None,
    ) -> None:
        self.run_config = run
        self.run_dir = Path(run.run_dir)
        self.corpus, self.accelerator, self.console, self.heartbeat = corpus, accelerator, console, heartbeat
        self.bare_model = model
        self.flops_per_token = flops_per_token(model, run.data.block_length)
        self.peak_flops = peak_flops(accelerator.device, run.train.precision)

        if run.train.activation_checkpointing:
            model.activation_checkpointing_enable({"use_reentrant": False})
        self.objective = Objective(model, compiled=run.train.compile)
        if run.data.isolate_documents:
            keep_documents_apart(model)
        if run.train.compile:
            model.compile()
        model.train()
        optimizer = build_optimizer(model, run.optim, accelerator.device)
        self.model, self.optimizer = accelerator.prepare(model, optimizer)
        sharding = sharding_of(accelerator, self.model, self.optimizer)
        self.groups = Groups(model, sharding)
        if run.checkpoint.diagnose == "cheap" and sharding.shares_weights:
            raise ConfigError(
                f"--checkpoint.diagnose cheap: no process holds the whole model under {sharding.name}; use beside"
            )
        self.engine: Any = self.model if accelerator.distributed_type == DistributedType.DEEPSPEED else None
        self.monitors = build(self.groups)

        self.progress = Progress()
        # Each rank draws its own dropout masks.
        set_seed(run.train.seed, device_specific=True)
        self.saver = Saver(run, model, sharding, tokenizer, accelerator, console, heartbeat, resume_from)
        state: dict[str, Any] | None = None
        if resume_from is not None:
            self.progress, state = restore(resume_from, model, sharding, accelerator, console)
        self.batches = corpus.batches(
            rank=accelerator.process_index,
            world_size=accelerator.num_processes,
            micro_batch=run.train.micro_batch,
            start_sequences=self.progress.sequences,
            state=state,
        )
        self.logbook = Logbook(
            run,
            accelerator,
            console,
            self.progress,
            flops_per_token=self.flops_per_token,
            peak_flops=self.peak_flops,
        )
        self.stop_request: StopRequest | None = None
        self.eval_loss: tuple[int, float] | None = None

    # -- the run ---------------------------------------------------------------------------------------------------

    def run(self) -> bool:
        """Train to the end of the budget.

        Returns:
            True when the run is complete, False when it was asked to stop and has saved a checkpoint.

        Raises:
            RunError: a loss or gradient that is not finite (no update was made of it), or a last checkpoint that
                could not be written.
        """
        self.stop_request = StopRequest(self.run_dir, looks_for_file=self.accelerator.is_main_process)
        if self.progress.step >= self.run_config.steps:
            where = f"step {self.progress.step} of {self.run_config.steps}"
            self.console.say(f"complete already: {where}; raise --train.steps to go on")
        self.logbook.open()
        if self.run_config.checkpoint.diagnose == "beside" and self.accelerator.is_main_process:
            watcher = start_watcher(self.run_dir, "--device", self.run_config.checkpoint.diagnose_device)
            self.saver.awaited = partial(awaits, watcher)
        try:
            complete = self._loop(self.stop_request)
        except UserError:  # all ranks raise it; after other errors the process group cannot be left in order
            self.close()
            raise
        self.close()
        return complete

    def close(self) -> None:
        """Close the logbook and leave the process group."""
        self.logbook.close()
        leave(self.accelerator, self.model)

    def _loop(self, stop_request: StopRequest) -> bool:
        run, steps = self.run_config, self.run_config.steps
        while self.progress.step < steps:
            result = self.advance()
            step = self.progress.step
            last = step == steps or result.stop
            if step == steps or (run.eval.every and step % run.eval.every == 0):
                self._evaluate()
            if last or (run.checkpoint.every and step % run.checkpoint.every == 0):
                self._save(must_succeed=last)
            if result.stop and step < steps:
                self.logbook.record({"event": "stopped", "reason": "asked to"})
                stop_request.honoured()
                self.console.say(f"stopped after step {step} as asked; go on with --resume latest")
                return False
        return True

    def advance(self) -> StepResult:
        """One optimizer step, its record and its progress line."""
        begun_s = time.monotonic()
        result = self._step(self.progress.step + 1)
        last = self.progress.step == self.run_config.steps or result.stop
        self.logbook.step(result, time.monotonic() - begun_s, last=last)
        return result

    # -- one step --------------------------------------------------------------------------------------------------

    def _step(self, step: int) -> StepResult:
        run, world = self.run_config, self.accelerator.num_processes
        micro_batches = run.train.global_batch // (run.train.micro_batch * world)
        self.heartbeat.at("reading data", step=step)
        failure: Exception | None = None
        batches: list[Batch] = []
        try:
            batches = [self._next_batch(number) for number in range(micro_batches)]
        except (UserError, OSError) as error:
            failure = error
        local_targets = sum(count_targets(batch["targets"]) for batch in batches)
        self.heartbeat.at("waiting for the other ranks' data")
        told = [local_targets, float(bool(self.stop_request)), float(failure is not None)]
        targets, stop, failures = all_sum(self.accelerator, told)
        if failures:
            raise_if_any_failed(RunError(f"step {step}: reading data: {failure}") if failure else None)

        sums = []
        for number, batch in enumerate(batches, start=1):
            is_last = number == micro_batches
            self.heartbeat.at(f"forward and backward pass of micro-batch {number}")
            with nullcontext() if is_last or self.engine else self.accelerator.no_sync(self.model):
                inputs = {name: tensor for name, tensor in batch.items() if name != "targets"}
                objective, figures_sums = self.objective(self.model, inputs, batch["targets"])
                # Ranks average their gradients; the loss is a sum over all ranks' targets divided by their number.
                self._backward(objective * (world / max(targets, 1)), is_last=is_last)
                sums.append(figures_sums)
        totals = all_sum(self.accelerator, torch.stack(sums).sum(0).tolist())
        loss, aux_loss, router_load = self.objective.figures(totals, max(targets, 1))

        self.heartbeat.at("update")
        gradient_norms = self._gradient_norms()
        gradient_norm = float(gradient_norms.square().sum().sqrt())
        self._stop_if_not_finite(step, loss, gradient_norm, gradient_norms, batches)
        measure = bool(run.monitors.every) and (step == 1 or step % run.monitors.every == 0)
        figures = self._update(step, gradient_norms, gradient_norm, measure=measure)
        figures |= router_load if measure else {}

        self.progress.step = step
        self.progress.tokens += int(targets)
        self.progress.sequences += run.train.global_batch
        lr = learning_rate(step, run.steps, run.optim)
        return StepResult(loss, gradient_norm, lr, int(targets), stop > 0, figures, aux_loss)

    def _next_batch(self, number: int) -> Batch:
        """This rank's micro-batch `number` of the step, cut where a token budget ends."""
        run, accelerator = self.run_config, self.accelerator
        batch = next(self.batches)
        length = run.data.block_length
        first = (number * accelerator.num_processes + accelerator.process_index) * run.train.micro_batch
        remaining = run.tokens - self.progress.step * run.tokens_per_step - first * length
        if remaining < run.train.micro_batch * length:
            batch["targets"].view(-1)[max(remaining, 0) :] = IGNORED
        return {name: tensor.to(accelerator.device, non_blocking=True) for name, tensor in batch.items()}

    def _backward(self, loss: Tensor, *, is_last: bool) -> None:
        if self.engine is None:
            self.accelerator.backward(loss)
            return
        # Accelerate's own call would go on to the update, and clear the gradients before anyone has seen them.
        self.engine.backward(loss, scale_wrt_gas=False)
        if not is_last:
            self.engine.step()  # no update yet: it counts the micro-batch

    def _gradient_norms(self) -> Tensor:
        """L2 norm of the gradient by place."""
        if self.accelerator.scaler is not None:
            self.accelerator.unscale_gradients(self.optimizer)
        return self.groups.gradient_norms()

    def _update(self, step: int, gradient_norms: Tensor, gradient_norm: float, *, measure: bool) -> dict[str, float]:
        run = self.run_config
        if measure:
            for monitor in self.monitors:
                monitor.before_update(gradient_norms)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(step, run.steps, run.optim)
        self._clip_and_apply(gradient_norm)
        figures: dict[str, float] = {}
        if measure:
            for monitor in self.monitors:
                figures |= monitor.after_update()
        return figures

    def _clip_and_apply(self, gradient_norm: float) -> None:
        if self.engine is not None:
            self.engine.step()  # clips as its configuration says, which is the run's
            return
        clip = self.run_config.optim.clip
        if clip is not None and gradient_norm > clip:
            # As torch.nn.utils.clip_grad_norm_ does, with the norm that is known already.
            factor = clip / (gradient_norm + 1e-6)
            torch._foreach_mul_([p.grad for p in self.groups.parameters if p.grad is not None], factor)
        self.optimizer.step()
        self.optimizer.zero_grad()

    def _stop_if_not_finite(
        self, step: int, loss: float, gradient_norm: float, gradient_norms: Tensor, batches: list[Batch]
    ) -> None:
        # With loss scaling, an overflowing gradient is part of the search for a scale: the scaler skips that update.
        scaler = self.accelerator.scaler
        if math.isfinite(loss) and (math.isfinite(gradient_norm) or (scaler is not None and scaler.get_scale() > 1)):
            return
        place = nonfinite.locate(self.bare_model, batches, gradient_norms, self.groups)
        places = [found for found in gather(place) if found is not None]
        what = f"the loss is {loss}" if not math.isfinite(loss) else f"the gradient norm is {gradient_norm}"
        where = f"; first not finite: {places[0]}" if places else ""
        kept = f"last good checkpoint: {self.saver.last}" if self.saver.last else "no checkpoint was written before it"
        self.logbook.record({"event": "not finite", "step": step, "what": what, "where": places[0] if places else None})
        raise RunError(
            f"step {step}: {what}{where}. No update was made of it; {kept}. A lower --optim.lr, a longer "
            "--optim.warmup, a smaller --optim.clip or --train.precision fp32 may help"
        )

    # -- evaluation and checkpoints ----------------------------------------------------------------------------------

    def _evaluate(self) -> None:
        run = self.run_config
        figures = evaluate(
            self.model,
            self.corpus,
            self.accelerator,
            self.heartbeat,
            micro_batch=run.train.micro_batch,
            blocks=run.eval.blocks,
        )
        self.groups.sharding.settle(self.bare_model)
        self.eval_loss = (self.progress.step, figures["eval/loss"])
        self.logbook.record(figures)
        self.console.say(
            f"step {self.progress.step}: held-out loss {figures['eval/loss']:.4f} nats/token, perplexity "
            f"{figures['eval/perplexity']:.2f}, {figures['eval/bits_per_byte']:.4f} bits/byte"
        )

    def _save(self, *, must_succeed: bool) -> None:
        measured = self.eval_loss is not None and self.eval_loss[0] == self.progress.step
        eval_loss = self.eval_loss[1] if measured and self.eval_loss else None
        failure = self.saver.save(self.progress, self.batches.state_dict, eval_loss, must_succeed=must_succeed)
        if failure is not None:
            self.logbook.record({"event": "checkpoint failed", "reason": failure})
        elif self.run_config.checkpoint.diagnose == "cheap" and self.accelerator.is_main_process:
            self.heartbeat.at("diagnosing a checkpoint")
            self._diagnose(path_of(self.run_dir, self.progress.step))
        self.heartbeat.at("drawing for the trackers")
        self.logbook.report()

    def _diagnose(self, folder: Path) -> None:
        source = f"held-out blocks of {' '.join(self.run_config.data.source)}"
        probe = of_blocks(self.corpus.heldout, None, seed=0, source=source)
        try:
            after_checkpoint(self.bare_model, folder, probe)
        except UserError as error:  # the run is worth more than its measurement
            self.console.warn(f"{folder.name} was not diagnosed: {error}")
