"""The sbatch template as it is, run by bash, with stand-ins for srun and scontrol on two loopback "nodes"."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from lab import metrics
from tests.launch.conftest import ENVIRONMENT, REPOSITORY, losses, run

SCRIPT = REPOSITORY / "launch/slurm/pretrain.sbatch"
# Starts the command once per node and hands signals on to every task, as srun does; ends with the highest code.
SRUN = """#!{python}
import os, signal, subprocess, sys
words = [word for word in sys.argv[1:]]
while words[0].startswith("--"):
    words.pop(0)
tasks = [
    subprocess.Popen(words, env=os.environ | {{"SLURM_NODEID": str(node)}}, start_new_session=True)
    for node in range(int(os.environ["SLURM_JOB_NUM_NODES"]))
]
for number in (signal.SIGUSR1, signal.SIGTERM):
    signal.signal(number, lambda number, frame: [task.send_signal(number) for task in tasks])
sys.exit(max(task.wait() for task in tasks))
"""
SCONTROL = """#!/bin/bash
if [ "$1" = show ]; then echo 127.0.0.1; echo node-b; else echo "$*" >> "$STAND_INS/scontrol.log"; fi
"""
DEPTHLAB = """#!/bin/bash
trap 'echo asked >> "$STAND_INS/asked"; exit 75' USR1
echo "$SLURM_NODEID $*" >> "$STAND_INS/started"
for _ in $(seq 600); do sleep 0.1; [ -e "$STAND_INS/code" ] && exit "$(cat "$STAND_INS/code")"; done
"""
REAL_DEPTHLAB = """#!/bin/bash
exec {python} -m lab.cli "$@"
"""


@pytest.fixture
def stand_ins(tmp_path: Path) -> Path:
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, text in (("srun", SRUN), ("scontrol", SCONTROL), ("depthlab", DEPTHLAB)):
        write(folder / name, text)
    return folder


def write(path: Path, text: str) -> None:
    path.write_text(text.format(python=sys.executable) if "{python}" in text else text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


@pytest.fixture
def submit(stand_ins: Path, tmp_path: Path):
    """Start the script as Slurm would, as job 4242 on two nodes."""
    jobs: list[subprocess.Popen[str]] = []

    def begin(*flags: str) -> subprocess.Popen[str]:
        variables = {
            "PATH": f"{stand_ins}:{os.environ['PATH']}",
            "PYTHONPATH": str(REPOSITORY),
            "STAND_INS": str(tmp_path),
            "SLURM_JOB_ID": str(os.getpid()),  # the port comes from it
            "SLURM_JOB_NUM_NODES": "2",
            "SLURM_JOB_NODELIST": "node-[a-b]",
            "PRESET": "ddp",
            "PROCESSES_PER_NODE": "1",
        }
        job = subprocess.Popen(
            ["bash", SCRIPT, *flags], cwd=tmp_path, env=ENVIRONMENT | variables, text=True, stdout=subprocess.PIPE
        )
        jobs.append(job)
        return job

    yield begin
    for job in jobs:
        if job.poll() is None:
            job.kill()
        job.communicate()


def wait_for(condition: Callable[[], object], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def test_the_signal_before_the_time_limit_reaches_both_nodes_and_requeues_the_job(submit, tmp_path):
    job = submit("--run-dir", "runs/a b")
    wait_for(lambda: len(lines(tmp_path / "started")) == 2)
    job.send_signal(signal.SIGUSR1)
    output, _ = job.communicate(timeout=60)
    assert job.returncode == 75 and "back into the queue" in output
    assert lines(tmp_path / "asked") == ["asked", "asked"]
    assert lines(tmp_path / "scontrol.log") == [f"requeue {os.getpid()}"]
    first = sorted(lines(tmp_path / "started"))[0]
    assert first.startswith("0 launch --preset ddp --nodes 2 --processes-per-node 1 --main-port")
    assert first.endswith(f"--log-dir logs/{os.getpid()}-0 -- --run-dir runs/a b --resume auto")


@pytest.mark.parametrize("code", [0, 1])
def test_a_run_that_ends_or_fails_is_not_requeued(submit, tmp_path, code):
    job = submit()
    wait_for(lambda: len(lines(tmp_path / "started")) == 2)
    (tmp_path / "code").write_text(str(code))
    assert job.wait(60) == code
    assert not (tmp_path / "scontrol.log").exists()


def test_the_template_asks_slurm_for_what_it_relies_on():
    text = SCRIPT.read_text(encoding="utf-8")
    for option in ("--ntasks-per-node=1", "--signal=B:USR1@300", "--requeue", "--open-mode=append"):
        assert f"#SBATCH {option}\n" in text
    assert subprocess.run(["bash", "-n", SCRIPT]).returncode == 0


@pytest.mark.slow
def test_a_requeued_job_ends_with_the_losses_of_one_that_was_not(submit, stand_ins, tmp_path, flags):
    """The real thing on two loopback nodes: started, asked to stop, started again by the same command."""
    write(stand_ins / "depthlab", REAL_DEPTHLAB)
    settings = {"train__steps": 150, "checkpoint__every": 0, "eval__every": 0}
    ours = flags(tmp_path / "run", **settings)
    assert run("-m", "lab.pretrain", *flags(tmp_path / "one", **settings)).returncode == 0
    job = submit(*ours)
    wait_for(lambda: len(losses(tmp_path / "run")) > 3, 240)
    job.send_signal(signal.SIGUSR1)
    assert job.wait(240) == 75
    assert len(lines(tmp_path / "scontrol.log")) == 1
    assert metrics.read(tmp_path / "run")[-1]["event"] == "stopped"
    assert submit(*ours).wait(300) == 0
    assert len(lines(tmp_path / "scontrol.log")) == 1
    assert losses(tmp_path / "run") == pytest.approx(losses(tmp_path / "one"), rel=3e-4)
