"""`depthlab launch --preset zero2 --nodes 4 --processes-per-node 8 -- RUN FLAGS`."""

from __future__ import annotations

import math
import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from evaluators import command_line
from lab.errors import ConfigError, UserError, tell
from lab.modes import check_place

if TYPE_CHECKING:
    from lab.config.sections import RunConfig
    from launch.presets import Preset

ADDRESS = "MAIN_ADDRESS"
"""Stands for the main address in commands that are only printed."""


@dataclass(frozen=True)
class Launch:
    """Start a run on several processes and machines, with the run's flags after `--`.

    Checks the run's flags, estimates the memory per GPU, prints the `accelerate launch` command of this machine, runs
    it, and sees it through: the first SIGTERM, SIGUSR1 or Ctrl-C asks the run to save and stop (exit code 75), the
    second ends all its processes. On several machines every one starts the same command; under `srun` machine
    rank and main address are Slurm's.
    """

    preset: Annotated[
        str,
        tyro.conf.arg(
            metavar="{single,ddp,zero1,zero2,zero3,zero3-offload,fsdp2}",
            help="How state is shared among processes: single: one process. ddp: all state whole on each. zero1, "
            "zero2, zero3: DeepSpeed shares out optimizer state, gradients too, weights too. zero3-offload: state in "
            "the machine's memory. fsdp2: all state shared out by PyTorch.",
        ),
    ] = "ddp"
    nodes: int = 1
    """Machines."""
    processes_per_node: int | None = None
    """Processes on each machine: its GPUs if not given, or 1 without any."""
    machine_rank: int | None = None
    """Number of this machine, from 0; Slurm's SLURM_NODEID if not given."""
    main_address: str | None = None
    """Name or address of machine 0; the first of SLURM_JOB_NODELIST if not given."""
    main_port: int = 29500
    """Port of machine 0 at which the processes meet; with one machine a free one is taken."""
    log_dir: str | None = None
    """Folder for one log per rank, `machine-M/*/attempt_0/LOCAL_RANK/{stdout,stderr}.log`."""
    gpu_memory: float | None = None
    """Memory of a GPU, in GiB, to compare the estimate with; that of the GPU here if not given."""
    dry_run: bool = False
    """Only print the command: on standard output, all else on standard error. With several machines and no
    --machine-rank, one line for each."""


def main(argv: Sequence[str], *, prog: str) -> int:
    """Run the launcher.

    Returns:
        0 complete, 75 asked to stop and saved, 2 impossible settings, 1 what cannot start; else what the launcher
        ended with.
    """
    try:
        ours, flags = _split(argv, prog)
        launch = command_line.read(Launch, ours, prog=prog)
        return _launch(launch, flags, prog)
    except UserError as error:
        return tell(error)


def _split(argv: Sequence[str], prog: str) -> tuple[list[str], list[str]]:
    words = list(argv)
    if "--" in words:
        at = words.index("--")
        return words[:at], words[at + 1 :]
    strays = [word for word in words if word.startswith("--") and ("." in word or word.split("=")[0] in _RUN_FLAGS)]
    if strays:
        raise ConfigError(f"{strays[0]}: a flag of the run; write those after `--`: {prog} --preset ddp -- {strays[0]}")
    return words, []


_RUN_FLAGS = ("--config", "--run-dir", "--resume")


def _launch(launch: Launch, flags: list[str], prog: str) -> int:
    from lab.light import without_torch
    from lab.quiet import quieten
    from launch import presets

    preset = presets.get(launch.preset)
    _check(launch, preset)
    if launch.processes_per_node is None:
        launch = replace(launch, processes_per_node=_gpus_here() or 1)
        _check(launch, preset)
    if launch.nodes > 1 and not launch.dry_run:
        number, host = _place(launch)
        launch = replace(launch, machine_rank=number, main_address=host)
    with without_torch():
        run = _check_run(launch, flags, prog)
    quieten()
    _tell_memory(launch, preset, run)
    if launch.dry_run:
        one = launch.nodes == 1 or launch.machine_rank is not None
        ranks = [launch.machine_rank or 0] if one else range(launch.nodes)
        address = launch.main_address or (ADDRESS if launch.nodes > 1 else None)
        for rank in ranks:
            print(shlex.join(command(replace(launch, machine_rank=rank, main_address=address), preset, flags)))
        return 0
    words = command(launch, preset, flags)
    _say(shlex.join(words))
    from launch.supervise import supervise

    return supervise(words, Path(run.run_dir), _say)


def command(launch: Launch, preset: Preset, flags: Sequence[str]) -> list[str]:
    """The words of `accelerate launch` on one machine."""
    words = [sys.executable, "-m", "accelerate.commands.launch"]
    words += ["--config_file", str(preset.file(nodes=launch.nodes))]
    words += ["--num_machines", str(launch.nodes)]
    words += ["--num_processes", str(launch.nodes * (launch.processes_per_node or 1))]
    if launch.nodes > 1:
        words += ["--machine_rank", str(launch.machine_rank), "--main_process_ip", str(launch.main_address)]
        words += ["--main_process_port", str(launch.main_port)]
    if launch.log_dir is not None:
        words += ["--log_dir", str(Path(launch.log_dir) / f"machine-{launch.machine_rank or 0}"), "--tee", "3"]
    return [*words, "-m", "lab.pretrain", *flags]


def _check(launch: Launch, preset: Preset) -> None:
    processes = 1 if launch.processes_per_node is None else launch.processes_per_node
    if launch.nodes < 1:
        raise ConfigError(f"--nodes {launch.nodes}: must be at least 1")
    if processes < 1:
        raise ConfigError(f"--processes-per-node {processes}: must be at least 1")
    if launch.machine_rank is not None and not 0 <= launch.machine_rank < launch.nodes:
        raise ConfigError(f"--machine-rank {launch.machine_rank}: must be 0 to {launch.nodes - 1} (--nodes)")
    if not 0 < launch.main_port < 65536:
        raise ConfigError(f"--main-port {launch.main_port}: must be from 1 to 65535")
    if launch.gpu_memory is not None and not 0 < launch.gpu_memory < math.inf:
        raise ConfigError(f"--gpu-memory {launch.gpu_memory}: must be a number of GiB, more than 0")
    if launch.log_dir is not None:
        check_place("--log-dir", Path(launch.log_dir))
    if preset.name == "single" and launch.nodes * processes > 1:
        raise ConfigError(f"--preset single: one process, not {launch.nodes} x {processes}; use ddp")
    if preset.name == "single" and launch.log_dir is not None:
        raise ConfigError("--log-dir: a log per rank needs more than one; with --preset single redirect the output")


def _check_run(launch: Launch, flags: list[str], prog: str) -> RunConfig:
    """The run's settings, with what only the number of processes decides."""
    from lab.training.start import parse

    run = parse(flags, prog=f"{prog} --")
    processes = launch.nodes * (launch.processes_per_node or 1)
    micro_step = run.train.micro_batch * processes
    if run.train.global_batch % micro_step:
        raise ConfigError(
            f"--train.global-batch {run.train.global_batch}: must be a multiple of --train.micro-batch x nodes x "
            f"processes per node = {run.train.micro_batch} x {launch.nodes} x {launch.processes_per_node} = "
            f"{micro_step}"
        )
    if run.resume is None:
        from lab.runfolder.folder import refuse_existing

        refuse_existing(Path(run.run_dir))
    return run


def _tell_memory(launch: Launch, preset: Preset, run: RunConfig) -> None:
    from launch.memory import GIB, estimate, measure

    shape, assumed = measure(run)
    per_node = launch.processes_per_node or 1
    found = estimate(run, preset, shape, nodes=launch.nodes, processes_per_node=per_node)
    parts = ", ".join(f"{name} {size / GIB:.2f}" for name, size in found.gpu.items())
    _say(f"memory per GPU for {shape.parameters:,} parameters, about {found.total / GIB:.2f} GiB: {parts}")
    if found.machine:
        _say(f"memory of each machine for the state of its processes: {found.machine / GIB:.2f} GiB")
    for line in (found.theirs, *assumed):
        _say(f"  {line}")
    available = launch.gpu_memory or _gpu_memory_here()
    if available is None:
        _say("  no GPU here to compare with; --gpu-memory GIB names one")
    elif found.total / GIB + _OTHER_GIB > available:
        _say(
            f"warning: with about {_OTHER_GIB:g} GiB for CUDA and NCCL that passes the GPU's {available:g} GiB. "
            f"What lowers it: {'; '.join(_remedies(launch, preset, run))}"
        )


_OTHER_GIB = 1.0


def _remedies(launch: Launch, preset: Preset, run: RunConfig) -> list[str]:
    from launch import presets

    remedies = []
    # fsdp2 comes last among the names, and shares out no more than zero3 does.
    further = [name for name in presets.NAMES[presets.NAMES.index(preset.name) + 1 :] if name not in ("ddp", "fsdp2")]
    if further and preset.name != "fsdp2":
        remedies.append(f"--preset {' or '.join(further)}")
    if preset.name == "fsdp2":
        remedies.append("--preset zero3-offload")
    if not run.train.activation_checkpointing:
        remedies.append("--train.activation-checkpointing")
    if run.train.micro_batch > 1:
        remedies.append(f"--train.micro-batch {run.train.micro_batch // 2}")
    if run.train.precision == "fp32":
        remedies.append("--train.precision bf16")
    if preset.zero_stage or preset.name == "fsdp2":
        remedies.append("more processes")
    return remedies


def _gpus_here() -> int:
    import torch

    return torch.cuda.device_count()


def _gpu_memory_here() -> float | None:
    import torch

    return torch.cuda.get_device_properties(0).total_memory / 2**30 if torch.cuda.is_available() else None


def _place(launch: Launch) -> tuple[int, str]:
    """Number of this machine, and the address of the first."""
    rank: int | str | None = launch.machine_rank
    rank = os.environ.get("SLURM_NODEID") if rank is None else rank
    address = launch.main_address or _first_slurm_host()
    if rank is None:
        raise ConfigError(f"--nodes {launch.nodes}: say which machine this is, --machine-rank 0 to {launch.nodes - 1}")
    if address is None:
        raise ConfigError(f"--nodes {launch.nodes}: say where machine 0 is, --main-address HOST")
    if not str(rank).isdecimal() or int(rank) >= launch.nodes:
        raise ConfigError(
            f"SLURM_NODEID {rank!r} (environment): must be from 0 to {launch.nodes - 1}; give --machine-rank"
        )
    return int(rank), address


def _first_slurm_host() -> str | None:
    hosts = os.environ.get("SLURM_JOB_NODELIST")
    if not hosts:
        return None
    # node[01-04,09]: only Slurm itself reads all of its notation.
    try:
        done = subprocess.run(["scontrol", "show", "hostnames", hosts], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise ConfigError(f"SLURM_JOB_NODELIST {hosts}: scontrol cannot read it ({error}); give --main-address") from (
            error
        )
    return done.stdout.split()[0] if done.stdout.split() else None


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
