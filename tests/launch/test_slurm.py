"""The sbatch template as it is, run by bash, with stand-ins for srun and scontrol on two loopback "nodes"."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from lab.runfolder import metrics
from launch.guard import end_tree
from tests.launch.conftest import ENVIRONMENT, REPOSITORY, free_port, losses, run

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


class Job:
    """The script as Slurm would start it, on two nodes; its output goes to a file, as Slurm's does."""

    def __init__(self, folder: Path, stand_ins: Path, flags: tuple[str, ...]) -> None:
        # The script takes its port from the number of the job.
        self.id = str(free_port(range(10000, 30000)) - 10000)
        self.output = folder / "job.out"
        variables = {
            "PATH": f"{stand_ins}:{os.environ['PATH']}",
            "PYTHONPATH": str(REPOSITORY),
            "STAND_INS": str(folder),
            "SLURM_JOB_ID": self.id,
            "SLURM_JOB_NUM_NODES": "2",
            "SLURM_JOB_NODELIST": "node-[a-b]",
            "PRESET": "ddp",
            "PROCESSES_PER_NODE": "1",
        }
        with self.output.open("a") as output:
            self.process = psutil.Popen(
                ["bash", SCRIPT, *flags], cwd=folder, env=ENVIRONMENT | variables, stdout=output, stderr=output
            )

    def ends_with(self, code: int, within_s: float = 60) -> None:
        assert self.process.wait(within_s) == code, self.output.read_text()

    def end(self) -> None:
        if self.process.poll() is None:
            end_tree(self.process, grace_s=1)


@pytest.fixture
def submit(stand_ins: Path, tmp_path: Path) -> Iterator[Callable[..., Job]]:
    jobs: list[Job] = []

    def begin(*flags: str) -> Job:
        jobs.append(Job(tmp_path, stand_ins, flags))
        return jobs[-1]

    yield begin
    for job in jobs:
        job.end()


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
    job.process.send_signal(signal.SIGUSR1)
    job.ends_with(75)
    assert "back into the queue" in job.output.read_text()
    assert lines(tmp_path / "asked") == ["asked", "asked"]
    assert lines(tmp_path / "scontrol.log") == [f"requeue {job.id}"]
    first = sorted(lines(tmp_path / "started"))[0]
    assert first.startswith("0 launch --preset ddp --nodes 2 --processes-per-node 1 --main-port")
    assert first.endswith(f"--log-dir logs/{job.id}-0 -- --run-dir runs/a b --resume auto")


@pytest.mark.parametrize("code", [0, 1])
def test_a_run_that_ends_or_fails_is_not_requeued(submit, tmp_path, code):
    job = submit()
    wait_for(lambda: len(lines(tmp_path / "started")) == 2)
    (tmp_path / "code").write_text(str(code))
    job.ends_with(code)
    assert not (tmp_path / "scontrol.log").exists()


def test_the_template_asks_slurm_for_what_it_relies_on():
    text = SCRIPT.read_text(encoding="utf-8")
    for option in ("--ntasks-per-node=1", "--signal=B:USR1@300", "--requeue", "--open-mode=append"):
        assert f"#SBATCH {option}\n" in text
    assert subprocess.run(["bash", "-n", SCRIPT]).returncode == 0


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_requeued_job_ends_with_the_losses_of_one_that_was_not(submit, stand_ins, tmp_path, flags):
    """The real thing on two loopback nodes: started, asked to stop, started again by the same command."""
    write(stand_ins / "depthlab", REAL_DEPTHLAB)
    settings = {"train__steps": 400, "checkpoint__every": 0, "eval__every": 0}
    ours = flags(tmp_path / "run", **settings)
    assert run("-m", "lab.pretrain", *flags(tmp_path / "one", **settings)).returncode == 0
    job = submit(*ours)
    wait_for(lambda: len(losses(tmp_path / "run")) > 3, 240)
    job.process.send_signal(signal.SIGUSR1)
    job.ends_with(75, within_s=240)
    assert len(lines(tmp_path / "scontrol.log")) == 1
    stopped = metrics.read(tmp_path / "run")[-1]
    assert stopped["event"] == "stopped" and stopped["step"] < 400
    submit(*ours).ends_with(0, within_s=300)
    assert len(lines(tmp_path / "scontrol.log")) == 1
    assert losses(tmp_path / "run") == pytest.approx(losses(tmp_path / "one"), rel=3e-4)
