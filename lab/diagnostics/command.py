"""`depthlab diagnose CHECKPOINT_OR_RUN`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from evaluators import command_line
from lab.diagnostics.options import Options

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Diagnose:
    """Measure what each layer of a model contributes. The record is saved with the run (or in --out); what it has
    already is not measured again. Several processes share the work: accelerate launch -m lab.cli diagnose ...
    """

    path: Annotated[str, tyro.conf.Positional]
    """A run folder (every checkpoint that is not measured yet), a checkpoint, any Hugging Face folder or hub name, or
    a .gguf file; or a record (.json), which is only shown."""
    only: str | None = None
    """Diagnostics, such as angular,removal; all of them if not given. A name that there is not lists those that there
    are; docs/diagnostics.md defines them."""
    probe: str | None = None
    """Text to measure on, as --data.source of pretrain takes it (files, builtin, a data set); or token ids in a .npy
    file, blocks x tokens, negative ones being padding; or a record (.json), whose tokens are used again. If not given:
    held-out blocks for a run, builtin for any other model."""
    text_field: Annotated[str, tyro.conf.arg(name="field")] = "text"
    """Field of a JSON Lines, Parquet or Hugging Face record of the probe that holds the text."""
    begin_token: Literal["auto", "yes", "no"] = "auto"
    """Begin token of the tokenizer before every document and block of text. auto: where the model was trained with
    one, as its run, its tokenizer or its family says."""
    blocks: int | None = None
    """Blocks of the probe; as many as make about 4,096 tokens, and at least 8, if not given."""
    block_length: int | None = None
    """Tokens of a block; the run's if not given, or up to 512 for other models."""
    latest: bool = False
    """Of a run, only the newest checkpoint."""
    watch: bool = False
    """Wait for checkpoints of a run that is training, and measure each as it appears, up to the last."""
    parent: Annotated[int | None, tyro.conf.arg(metavar="PID")] = None
    """With --watch: end when this process has ended and everything is measured."""
    out: str | None = None
    """Folder for the records; RUN/diagnostics for a run, ./diagnostics for other models if not given."""
    again: bool = False
    """Measure anew what is measured already."""
    show: bool = False
    """Print tables: an overview, or every figure of the diagnostics that --only names."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Type of the weights; auto is what the checkpoint has. Reductions are in float32 or float64 always."""
    device: str = "auto"
    """Device of torch, such as cpu or cuda:1; auto is a GPU if there is one."""
    measurement: Annotated[Options, tyro.conf.OmitArgPrefixes] = field(default_factory=Options)


def main(argv: Sequence[str], *, prog: str) -> int:
    """Exit code 0; 1 where nothing can be measured; 2 for an impossible setting."""
    is_main = os.environ.get("RANK", "0") == "0"
    from lab.errors import ConfigError, UserError, exit_code, tell
    from lab.light import without_torch
    from lab.parallel import ranks

    try:
        ranks.check()
    except ConfigError as error:
        return tell(error)
    try:
        wanted = command_line.read(Diagnose, argv, prog=prog, console_outputs=is_main)
        with without_torch():
            _check(wanted)
        from lab.quiet import quieten

        quieten()
        _diagnose(wanted)
    except UserError as error:
        if is_main:
            tell(error)
        return exit_code(error)
    return 0


def _check(wanted: Diagnose) -> None:
    """Raises UserError for what can be told before torch is loaded."""
    from lab.checkpoint.folder import FOLDER as CHECKPOINTS
    from lab.checkpoint.search import of_another_kind
    from lab.errors import ConfigError
    from lab.modes import check_place

    folder = Path(wanted.path)
    is_run = (folder / CHECKPOINTS).is_dir()
    if wanted.watch and wanted.latest:
        raise ConfigError("--watch and --latest exclude each other: watching measures every checkpoint")
    if wanted.parent is not None and not (wanted.watch and wanted.parent > 0):
        raise ConfigError(f"--parent {wanted.parent}: the number of a process, with --watch; leave it out")
    other = (
        "a file; give the --run-dir of a run" if folder.exists() and not folder.is_dir() else of_another_kind(folder)
    )
    if wanted.watch and not is_run and other is not None:
        raise ConfigError(f"--watch: {folder} is no run folder but {other}")
    if wanted.latest and not is_run:
        raise ConfigError(f"--latest: {folder} is no run folder; leave it out, or name a run's")
    for flag, value, least in (("blocks", wanted.blocks, 1), ("block-length", wanted.block_length, 2)):
        if value is not None and value < least:
            raise ConfigError(f"--{flag} {value}: must be at least {least}")
    if wanted.out is not None:
        check_place("--out", Path(wanted.out))


def _diagnose(wanted: Diagnose) -> None:
    from lab.checkpoint.search import resolve
    from lab.diagnostics import registry, runs, targets
    from lab.diagnostics.engine.processes import Processes
    from lab.diagnostics.record import load
    from lab.diagnostics.show import show
    from lab.errors import ConfigError

    only = registry.chosen(wanted.only)
    shown = None if wanted.only is None else only
    if Path(wanted.path).suffix == ".json":
        print(show(load(wanted.path), shown))
        return
    run = targets.is_run(wanted.path)
    processes = Processes.join()
    if wanted.watch and processes.world > 1:
        raise ConfigError("--watch: runs in one process; start it without a launcher")
    say = (lambda text: print(text, flush=True)) if processes.is_main else (lambda text: None)
    plan = runs.Plan(
        only,
        wanted.measurement,
        wanted.probe,
        wanted.blocks,
        wanted.block_length,
        {"field": wanted.text_field, "begin": wanted.begin_token},
        wanted.out,
        wanted.again,
        wanted.dtype,
        _device(wanted.device),
        processes,
        say,
    )
    try:
        if wanted.watch:
            runs.watch(Path(wanted.path), plan, parent=wanted.parent)
            return
        if run and not wanted.latest:
            records = runs.diagnose_run(Path(wanted.path), plan)
        elif run:
            records = [runs.diagnose(targets.of_path(resolve(wanted.path)), plan)]
        else:
            records = [runs.diagnose(targets.of_path(wanted.path), plan)]
    finally:
        processes.leave()
    if run and not wanted.show:
        say(f"next: depthlab report {wanted.path}")
    if wanted.show:
        say("\n" + "\n\n\n".join(show(record, shown) for record in records))


def _device(name: str) -> torch.device:
    import torch

    from lab.diagnostics.engine.session import has_float64
    from lab.errors import ConfigError

    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
        return torch.device("cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"--device {name}: {str(error).splitlines()[0]}") from error
    if not has_float64(device):
        raise ConfigError(f"--device {name}: has no float64, in which sums are kept; use cpu")
    return device
