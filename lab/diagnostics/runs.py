"""Measuring what is not measured yet: one model, every checkpoint of a run, or a run while it trains."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, PreTrainedModel

from lab.checkpoint import manifest
from lab.checkpoint.folder import path_of
from lab.checkpoint.load import not_loaded
from lab.checkpoint.search import resolve
from lab.diagnostics import registry, targets
from lab.diagnostics.engine.probe import Probe
from lab.diagnostics.engine.probe_source import make_probe
from lab.diagnostics.engine.processes import Processes
from lab.diagnostics.engine.session import check_family, has_float64
from lab.diagnostics.measurement import measure
from lab.diagnostics.options import Options
from lab.diagnostics.record import Record, load
from lab.diagnostics.targets import Target
from lab.errors import RunError
from lab.runfolder.folder import ENVIRONMENT

WATCH_INTERVAL_S = 5.0


@dataclass
class Plan:
    """What to measure, how, and where records go. The probe is made once and serves all checkpoints of a run."""

    only: Sequence[str]
    options: Options = field(default_factory=Options)
    probe: str | None = None
    blocks: int | None = None
    block_length: int | None = None
    data: dict[str, Any] = field(default_factory=dict)
    out: str | None = None
    again: bool = False
    dtype: str = "auto"
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    processes: Processes = field(default_factory=Processes)
    say: Callable[[str], None] = lambda text: None
    _made: dict[Any, Probe] = field(default_factory=dict)

    def probe_for(self, target: Target) -> Probe:
        """The probe, from the run's data or the model's tokenizer."""
        key = target.run_dir or target.source
        if key not in self._made:
            extra = {"gguf_file": target.gguf_file} if target.gguf_file else {}
            resolve(target.source)  # a damaged checkpoint is refused before anything is read of it
            try:
                config: Any = AutoConfig.from_pretrained(target.source, **extra)
            except (OSError, ValueError, ImportError) as error:
                raise RunError(f"{target.source} {not_loaded(target.source, error)}") from error
            check_family(config)
            self._made[key] = make_probe(
                self.probe,
                run_dir=target.run_dir,
                tokenizer=target.tokenizer(),
                longest=getattr(config, "max_position_embeddings", None),
                blocks=self.blocks,
                length=self.block_length,
                seed=self.options.seed,
                model_type=config.model_type.removeprefix("depthlab_"),
                **self.data,
            )
        return self._made[key]


def diagnose(target: Target, plan: Plan) -> Record:
    """The record of one model: what it lacks is measured, and saved with what it has.

    Raises:
        UserError: the model cannot be loaded, the probe cannot be made or does not fit, or its record was measured
            on another probe, with other options or of other weights.
    """
    path = target.record_path(plan.out)
    probe = plan.probe_for(target)
    earlier = None if plan.again else _earlier(path, plan)
    if earlier is not None:
        _refuse_others(path, earlier, probe, plan)
        if target.run_dir is not None and not _missing(earlier, plan):
            found = manifest.read(Path(target.source))
            if earlier.model.get("digest") == found.model_digest():
                return earlier
    plan.say(f"{target.name}: loading")
    # What is added to a record is measured in the type of what it has.
    dtype = plan.dtype if earlier is None else earlier.model["dtype"]
    model = target.load(dtype=dtype, device=plan.device)
    about = target.about(model)
    if earlier is not None and earlier.model.get("digest") != about["digest"]:
        raise RunError(
            f"{path} was measured on other weights than {target.source} has now; measure anew with --again, or choose "
            "another --out"
        )
    missing = plan.only if earlier is None else _missing(earlier, plan)
    if earlier is not None and not missing:
        return earlier
    say = lambda text: plan.say(f"{target.name}: {text}")  # noqa: E731
    record = measure(model, probe, only=missing, options=plan.options, processes=plan.processes, say=say)
    record = record.about(**about)
    if earlier is not None:
        record = record.merged(earlier)
    if plan.processes.is_main:
        record.save(path)
    plan.processes.wait()
    for name, reason in record.failures.items():
        if name in missing:
            plan.say(f"{target.name}: not measured: {name}: {reason}")
    plan.say(f"{target.name}: {path}")
    return record


def _earlier(path: Path, plan: Plan) -> Record | None:
    if not path.is_file():
        return None
    try:
        return load(path)
    except RunError as error:
        plan.say(f"measuring anew: {error}")
        return None


def _refuse_others(path: Path, earlier: Record, probe: Probe, plan: Plan) -> None:
    remedy = "measure anew with --again, or choose another --out"
    if earlier.probe.id != probe.id:
        raise RunError(
            f"{path} was measured on another probe ({earlier.probe.source}, {len(earlier.probe)} x "
            f"{earlier.probe.length}) than this ({probe.source}, {len(probe)} x {probe.length}); {remedy}"
        )
    if plan.dtype not in ("auto", earlier.model["dtype"]):
        raise RunError(f"{path} was measured in {earlier.model['dtype']}, not --dtype {plan.dtype}; {remedy}")
    wanted = asdict(plan.options)
    for name, value in wanted.items():
        stored = earlier.options.get(name)
        stored = tuple(stored) if isinstance(stored, list) else stored
        if name != "batch" and stored != value:
            raise RunError(f"{path} was measured with --{name.replace('_', '-')} {stored}, not {value}; {remedy}")


def _missing(earlier: Record, plan: Plan) -> list[str]:
    """Diagnostics that the record lacks; what failed is tried again with another --batch only."""
    done = set(earlier.diagnostics)
    if earlier.options.get("batch") == plan.options.batch:
        done |= set(earlier.failures)
    return [name for name in plan.only if name not in done]


def diagnose_run(run_dir: Path, plan: Plan) -> list[Record]:
    """Every whole checkpoint of a run, oldest first; those that are measured already cost nothing.

    Raises:
        UserError: no whole checkpoint, or what `diagnose` raises.
    """
    found = targets.of_run(run_dir, plan.say)
    if not found:
        raise RunError(f"{run_dir} has no whole checkpoint yet; with --watch, depthlab diagnose waits for them")
    records = [record for target in found if (record := _still_there(target, plan)) is not None]
    if not records:
        raise RunError(f"{run_dir} has no whole checkpoint")
    return records


def watch(run_dir: Path, plan: Plan, *, parent: int | None = None) -> None:
    """Measure each checkpoint of a run as it appears, until its last one is measured.

    Args:
        run_dir: a run that trains, or is about to.
        plan: what to measure.
        parent: a process; when it has ended, what is there is measured and that is all.

    Raises:
        UserError: what `diagnose` raises.
    """
    done: set[str] = set()
    while True:
        last_round = parent is not None and not _lives(parent)
        for target in targets.of_run(run_dir, say=lambda text: None):
            if target.source not in done:
                done.add(target.source)
                _still_there(target, plan)
        if last_round or _is_complete(run_dir, done):
            return
        time.sleep(WATCH_INTERVAL_S)


def _is_complete(run_dir: Path, done: set[str]) -> bool:
    try:
        steps = json.loads((run_dir / ENVIRONMENT).read_text(encoding="utf-8"))["derived"]["steps"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return str(path_of(run_dir, steps)) in done


def _still_there(target: Target, plan: Plan) -> Record | None:
    """None for a checkpoint that is damaged, or that the run's retention has deleted in the meantime."""
    try:
        return diagnose(target, plan)
    except (RunError, OSError, ValueError) as error:
        if not (Path(target.source) / manifest.NAME).is_file():
            plan.say(f"{target.name}: deleted while it was being measured ({type(error).__name__})")
        elif isinstance(error, manifest.DamagedError) and not isinstance(error, manifest.ForbiddenError):
            plan.say(f"passing over a checkpoint: {error}")
        else:
            raise
        return None


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def after_checkpoint(
    model: PreTrainedModel,
    folder: Path,
    probe: Probe,
    *,
    only: Sequence[str] | None = None,
    options: Options | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> Record:
    """Measure the model of a checkpoint that was just written, in the training process, and save the record where
    `depthlab diagnose RUN` adds the rest.

    Args:
        model: the bare causal LM whose weights are in `folder`, whole on this process. It is measured in the type of
            its weights, without autocast, and where its device has no float64, as a copy on the CPU.
        folder: `RUN/checkpoints/step-000300`, complete.
        probe: such as `probe_source.of_blocks(corpus.heldout, None, seed=0, source=...)`.
        only: diagnostics; the cheap ones (about two forward passes together) if not given.
        options: how they are measured.
        say: is told what is being measured.

    Returns:
        The record.

    Raises:
        UserError: an incomplete checkpoint, an unknown diagnostic or family, or a probe that does not fit.
    """
    target = Target(str(folder), folder.name, run_dir=folder.parent.parent)
    try:
        about = target.about(model)
    except ValueError as error:
        raise RunError(str(error)) from error
    names = registry.names(cheap=True) if only is None else only
    with _as_it_is(model) as bare:
        record = measure(bare, probe, only=names, options=options, say=say).about(**about)
    record.save(target.record_path(None))
    return record


@contextmanager
def _as_it_is(model: PreTrainedModel) -> Iterator[PreTrainedModel]:
    # Accelerate puts autocast around `forward`, on the instance.
    patched = {name: vars(model).pop(name) for name in ("forward",) if name in vars(model)}
    try:
        yield model if has_float64(model.device) else copy.deepcopy(model).to("cpu")
    finally:
        vars(model).update(patched)


def awaits(watcher: subprocess.Popen[bytes], folder: Path) -> bool:
    """Whether a watcher lives that has not measured this checkpoint of its run yet."""
    target = Target(str(folder), folder.name, run_dir=folder.parent.parent)
    return watcher.poll() is None and not target.record_path(None).is_file()


def start_watcher(run_dir: Path, *flags: str) -> subprocess.Popen[bytes]:
    """Start `depthlab diagnose RUN --watch` as a process of its own, which ends after this one has ended and what it
    left is measured. What it says goes to `RUN/diagnostics/watch.log`.

    Args:
        run_dir: the run; its folder may be empty yet.
        *flags: more flags of `depthlab diagnose`, such as `--only removal`.
    """
    log = run_dir / targets.FOLDER / "watch.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    words = [sys.executable, "-m", "lab.cli", "diagnose", str(run_dir), "--watch", "--parent", str(os.getpid()), *flags]
    alone = {name: value for name, value in os.environ.items() if name not in ("WORLD_SIZE", "RANK", "LOCAL_RANK")}
    with log.open("ab") as file:
        return subprocess.Popen(words, stdout=file, stderr=subprocess.STDOUT, env=alone, start_new_session=True)
