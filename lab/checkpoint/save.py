"""Checkpoints of a run that trains: all ranks write one together."""

from __future__ import annotations

import copy
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lab.checkpoint import optimizer_state
from lab.checkpoint.folder import STATE, WRITE_ERRORS, abandon, begin, finish, partial_of, path_of
from lab.checkpoint.manifest import Manifest
from lab.checkpoint.progress import Progress, write_progress
from lab.checkpoint.retention import retain
from lab.config.read import dump
from lab.config.sections import RunConfig
from lab.errors import RunError
from lab.hashing import file_hash
from lab.modes import as_umask
from lab.parallel.collectives import all_sum, gather
from lab.parallel.heartbeat import Heartbeat
from lab.parallel.sharding import Sharding
from lab.runfolder.console import Console
from lab.runfolder.folder import CONFIG, versions


class Saver:
    """Writes the checkpoints of one run; every rank has one."""

    def __init__(
        self,
        run: RunConfig,
        model: PreTrainedModel,
        sharding: Sharding,
        tokenizer: PreTrainedTokenizerBase,
        accelerator: Accelerator,
        console: Console,
        heartbeat: Heartbeat,
        resume_from: Path | None,
    ) -> None:
        self._run, self._model, self._sharding, self._tokenizer = run, model, sharding, tokenizer
        self._accelerator, self._console, self._heartbeat = accelerator, console, heartbeat
        self._run_dir = Path(run.run_dir)
        self._parameters = dict(model.named_parameters())
        self.last: Path | None = resume_from
        """The last whole checkpoint."""
        self.awaited: Callable[[Path], bool] = lambda folder: False
        """Whether something else still waits to read a checkpoint, so that it stays."""

    def save(
        self,
        progress: Progress,
        position: Callable[[], dict[str, Any]],
        eval_loss: float | None,
        *,
        must_succeed: bool,
    ) -> str | None:
        """Write a checkpoint; a disk that refuses costs this one, not the older ones.

        Args:
            progress: where the run stands.
            position: gives this rank's place in the data.
            eval_loss: held-out loss at this step, if it was measured.
            must_succeed: whether there will be no other.

        Returns:
            Why it could not be written, or None.

        Raises:
            RunError: it could not be written, and must.
        """
        accelerator, folder = self._accelerator, path_of(self._run_dir, progress.step)
        partial = partial_of(folder)
        weights, share = optimizer_state.gather(self._parameters, self._sharding, self._heartbeat)

        def make() -> None:
            if accelerator.is_main_process:
                begin(folder)

        def write() -> None:
            optimizer_state.write(partial / STATE, share, position(), accelerator.scaler)
            if accelerator.is_main_process:
                self._write_model(partial, weights)
                write_progress(partial, progress)
                (partial / CONFIG).write_text(dump(self._run), encoding="utf-8")

        def complete() -> None:
            if accelerator.is_main_process:
                as_umask(partial)
                finish(folder, self._manifest(partial, progress, eval_loss))

        for part in (make, write, complete):
            # Nobody is ended for a slow file system: started again, the run would come to the same place.
            self._heartbeat.at("writing a checkpoint, as long as the file system needs", limited=False)
            if (failure := _attempt(accelerator, part)) is not None:
                return self._give_up(folder, progress.step, failure, must_succeed=must_succeed)
        self.last = folder
        if accelerator.is_main_process:
            retain(self._run_dir, self._run.checkpoint, self._console.warn, awaited=self.awaited)
        self._console.say(f"step {progress.step}: checkpoint {folder}")
        return None

    def _write_model(self, folder: Path, weights: dict[str, torch.Tensor]) -> None:
        buffers = {name: tensor for name, tensor in self._model.state_dict().items() if name not in weights}
        parameters = {name for name, _ in self._model.named_parameters(remove_duplicate=False)}
        persistent = {name: tensor for name, tensor in buffers.items() if name not in parameters}
        self._model.save_pretrained(folder, state_dict=weights | persistent)
        if self._model.dtype != torch.float32:
            # The weights are those that the optimizer updates, not the copy that DeepSpeed computes with.
            config = copy.deepcopy(self._model.config)
            config.dtype = torch.float32
            config.save_pretrained(folder)
        self._tokenizer.save_pretrained(folder)

    def _give_up(self, folder: Path, step: int, failure: str, *, must_succeed: bool) -> str:
        if self._accelerator.is_main_process:
            abandon(folder)
        kept = f"the last whole one is {self.last}" if self.last else "there is none before it"
        text = f"step {step}: the checkpoint could not be written ({failure}); {kept}"
        if must_succeed:
            raise RunError(f"{text}. Make room on the disk of {self._run_dir}, then go on with --resume latest")
        self._console.warn(f"{text}. Training goes on; the next one is tried at its time")
        return failure

    def _manifest(self, partial: Path, progress: Progress, eval_loss: float | None) -> Manifest:
        return Manifest(
            step=progress.step,
            tokens=progress.tokens,
            config_digest=file_hash(partial / CONFIG),
            world_size=self._accelerator.num_processes,
            sharding=self._sharding.name,
            eval_loss=eval_loss,
            versions=versions(),
        )


def _attempt(accelerator: Accelerator, part: Callable[[], None]) -> str | None:
    """Why a part of a checkpoint could not be written, on any rank; None where it was."""
    failure = None
    try:
        part()
    except WRITE_ERRORS as error:
        failure = str(error)
    if not all_sum(accelerator, [float(failure is not None)])[0]:
        return None
    told = gather((failure, socket.gethostname()))
    rank, (text, host) = next((rank, entry) for rank, entry in enumerate(told) if entry[0] is not None)
    return text if rank == 0 else f"rank {rank} on {host}: {text}"
