"""`depthlab launch` as a user runs it."""

from __future__ import annotations

import shlex
import signal
import sys
from pathlib import Path

import pytest

from lab.runfolder import metrics
from tests.launch.conftest import REPOSITORY, free_port, losses, run
from tests.launch.test_slurm import wait_for

LAUNCH = ("-m", "lab.cli", "launch")


def test_a_dry_run_prints_the_command_alone_on_standard_output(flags, tmp_path):
    ours = flags(tmp_path / "a run", normalization__scheme="lns")
    done = run(*LAUNCH, "--preset", "zero2", "--processes-per-node", "2", "--dry-run", "--", *ours)
    assert done.returncode == 0
    (line,) = done.stdout.splitlines()
    file = REPOSITORY / "launch/presets/zero2.yaml"
    expected = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(file), "--num_machines", "1"]
    assert shlex.split(line) == [*expected, "--num_processes", "2", "-m", "lab.pretrain", *map(str, ours)]
    assert "memory per GPU" in done.stderr and not (tmp_path / "a run").exists()


def test_several_machines_get_a_line_each(flags, tmp_path):
    words = ["--nodes", "2", "--processes-per-node", "2", "--main-port", "29600", "--dry-run", "--log-dir", "logs"]
    done = run(*LAUNCH, *words, "--", *flags(tmp_path / "run"))
    first, second = map(shlex.split, done.stdout.splitlines())
    assert first[first.index("--machine_rank") + 1] == "0" and second[second.index("--machine_rank") + 1] == "1"
    assert first[first.index("--num_processes") + 1] == "4" and "MAIN_ADDRESS" in first and "29600" in first
    assert second[second.index("--log_dir") + 1 :][:3] == ["logs/machine-1", "--tee", "3"]
    assert Path(first[first.index("--config_file") + 1]) == REPOSITORY / "launch/presets/multinode/ddp.yaml"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--preset", "zeros2"], "Did you mean zero2? Choose from single, ddp"),
        (["--run-dir", "runs/a"], "--run-dir: a flag of the run; write those after `--`"),
        (["--train.steps=3"], "a flag of the run; write those after `--`"),
        (["--processes-per-node", "3", "--"], "16 x 1 x 3 = 48"),
        (["--nodes", "2", "--machine-rank", "2", "--"], "--machine-rank 2: must be 0 to 1"),
        (["--nodes", "0", "--"], "--nodes 0: must be at least 1"),
        (["--preset", "single", "--processes-per-node", "2", "--"], "--preset single: one process, not 1 x 2"),
        (["--", "--optim.lr", "-1"], "--optim.lr -1.0: must be positive"),
        (["--", "--optim.lrr", "1"], "--optim.lrr: no such flag; did you mean --optim.lr?"),
        (["--nodes", "2", "--", "--train.global-batch", "32"], "say which machine this is, --machine-rank 0 to 1"),
        (["--nodes", "2", "--machine-rank", "0", "--", "--train.global-batch", "32"], "--main-address HOST"),
    ],
)
def test_what_is_wrong_is_told_at_once_in_one_message(words, told, tmp_path):
    done = run(*LAUNCH, *words, cwd=tmp_path, env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(REPOSITORY)})
    assert done.returncode == 2 and told in " ".join(done.stderr.split()), done.stderr
    assert "Traceback" not in done.stderr


def test_a_run_folder_that_exists_is_told_before_anything_starts(flags, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/config.yaml").touch()
    done = run(*LAUNCH, "--", *flags(tmp_path / "run"))
    assert done.returncode == 1 and "exists already and is never overwritten" in done.stderr


def test_a_gpu_that_is_too_small_is_warned_of_with_what_helps(tmp_path):
    words = ["--preset", "zero2", "--processes-per-node", "8", "--gpu-memory", "40", "--dry-run", "--"]
    ours = ["--model.preset", "llama_7b", "--train.global-batch", "512", "--train.micro-batch", "16"]
    done = run(*LAUNCH, *words, *ours, cwd=tmp_path)
    assert done.returncode == 0
    assert "passes the GPU's 40 GiB" in done.stderr
    for remedy in ("--preset zero3 or zero3-offload", "--train.activation-checkpointing", "--train.micro-batch 8"):
        assert remedy in done.stderr
    fits = run(*LAUNCH, "--dry-run", "--gpu-memory", "8", "--processes-per-node", "1", "--", cwd=tmp_path)
    assert "warning" not in fits.stderr


def test_two_machines_train_as_one_process_and_leave_a_log_per_rank(flags, tmp_path, start, reference):
    """Two supervisors on the loopback address, each with its launcher and its rank."""
    port = str(free_port())
    machines = [
        start(
            *LAUNCH,
            *("--nodes", "2", "--processes-per-node", "1", "--machine-rank", str(rank), "--main-address", "127.0.0.1"),
            *("--main-port", port, "--log-dir", tmp_path / "logs", "--", *flags(tmp_path / "run")),
        )
        for rank in (0, 1)
    ]
    outputs = [machine.communicate(timeout=200)[0] for machine in machines]
    assert [machine.returncode for machine in machines] == [0, 0], outputs
    assert losses(tmp_path / "run") == pytest.approx(reference, rel=3e-4)
    logs = [sorted((tmp_path / f"logs/machine-{rank}").glob("*/attempt_0/0/*.log")) for rank in (0, 1)]
    assert [len(found) for found in logs] == [2, 2]
    assert "2 processes on cpu" in logs[0][1].read_text()


@pytest.mark.slow
def test_a_run_is_asked_to_stop_and_goes_on(flags, tmp_path, start):
    """SIGTERM to the launcher: a checkpoint and 75; the same command again: the losses of an uninterrupted run."""
    settings = {"train__steps": 120, "checkpoint__every": 0, "eval__every": 0}
    assert run("-m", "lab.pretrain", *flags(tmp_path / "one", **settings)).returncode == 0
    words = ["--preset", "ddp", "--processes-per-node", "2", "--", *flags(tmp_path / "run", **settings)]
    process = start(*LAUNCH, *words, "--resume", "auto")
    wait_for(lambda: len(losses(tmp_path / "run")) > 3, 120)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 75, output
    assert metrics.read(tmp_path / "run")[-1]["event"] == "stopped" and not (tmp_path / "run/stop").exists()
    done = run(*LAUNCH, *words, "--resume", "auto")
    assert done.returncode == 0, done.stderr
    assert losses(tmp_path / "run") == pytest.approx(losses(tmp_path / "one"), rel=3e-4)
