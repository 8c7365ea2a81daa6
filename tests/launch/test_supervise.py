"""Signals, exit codes and orphans, with real processes: a stand-in for the launcher whose rank has a session of its
own, as torchrun's have.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

LAUNCHER = """
import json, os, pathlib, subprocess, sys, time
folder, mode = pathlib.Path(sys.argv[1]), sys.argv[2]
if mode.startswith("exit"):
    sys.exit(int(mode[4:]))
rank = subprocess.Popen([sys.executable, "-c", '''
import pathlib, signal, sys, time
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
    signal.signal(number, lambda *_: None)
(pathlib.Path(sys.argv[1]) / "pid").write_text(str(__import__("os").getpid()))
while not (pathlib.Path(sys.argv[1]) / "end").exists():
    time.sleep(0.05)
''', str(folder)], start_new_session=True)
stop = folder / "stop"
if mode == "slow":  # a run that is still starting makes its folder late, and removes an old stop file
    while not (folder / "begin").exists():
        time.sleep(0.05)
    (folder / "config.yaml").touch()
    while not stop.exists():
        time.sleep(0.05)
    stop.unlink()
while not stop.exists():
    time.sleep(0.05)
with (folder / "metrics.jsonl").open("a") as log:
    log.write(json.dumps({"step": 8, "train/loss": 1.0}) + "\\n")
    if mode != "fails":
        log.write(json.dumps({"step": 8, "event": "stopped"}) + "\\n")
(folder / "end").touch()
rank.wait()
sys.exit(1)
"""
DRIVER = """
import pathlib, sys
from launch.supervise import supervise
command = [sys.executable, "-c", sys.argv[3], sys.argv[1], sys.argv[2]]
sys.exit(supervise(command, pathlib.Path(sys.argv[1]), lambda text: print(text, flush=True)))
"""
OLD = [{"step": 4, "train/loss": 2.0}, {"step": 4, "event": "stopped"}]


def wait_for(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, f"never: {what}"
        time.sleep(0.05)


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    """A run folder that has been stopped once before."""
    (tmp_path / "config.yaml").touch()
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in OLD))
    return tmp_path


@pytest.fixture
def supervised(start, run_dir):
    """Start the supervisor over the stand-in; the rank's process, once there is one."""

    def begin(mode: str) -> tuple[subprocess.Popen[str], psutil.Process]:
        process = start("-c", DRIVER, run_dir, mode, LAUNCHER)
        pid = run_dir / "pid"
        wait_for(lambda: pid.exists() and pid.read_text(), "a rank")
        return process, psutil.Process(int(pid.read_text()))

    return begin


def gone(process: psutil.Process) -> bool:
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
def test_the_first_signal_asks_by_the_stop_file_and_75_says_that_it_was_saved(supervised, run_dir, number):
    process, rank = supervised("stops")
    process.send_signal(number)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 75
    assert f"{number.name}: asking the run to save and stop" in output and "--resume auto goes on" in output
    assert not (run_dir / "stop").exists() and gone(rank)


def test_a_run_that_fails_after_being_asked_does_not_count_as_stopped(supervised):
    """Although the last run in the folder has a stop on record."""
    process, _ = supervised("fails")
    process.terminate()
    assert process.wait(60) == 1


def test_a_run_that_starts_meanwhile_is_asked_again(supervised, run_dir):
    """Without a folder nothing is put there; a start that removes the file once gets it again."""
    (run_dir / "config.yaml").unlink()
    process, _ = supervised("slow")
    process.terminate()
    time.sleep(1.5)  # several looks of the supervisor
    assert not (run_dir / "stop").exists()
    (run_dir / "begin").touch()
    assert process.wait(60) == 75


def test_the_second_signal_ends_every_process(supervised, run_dir):
    """Those too that have a session of their own and ignore SIGTERM."""
    process, rank = supervised("never")
    (run_dir / "config.yaml").unlink()  # nobody will honour a stop file
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGUSR1)  # at once: the same request, by another way
    time.sleep(1.5)
    assert process.poll() is None and rank.is_running()
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 128 + signal.SIGTERM
    assert gone(rank)


def test_a_killed_supervisor_leaves_no_process_behind(supervised):
    process, rank = supervised("never")
    process.kill()
    wait_for(lambda: gone(rank), "the end of the rank")


def test_a_killed_launcher_leaves_no_process_behind(supervised):
    """torchrun killed by the system: its ranks would train on, or hang, without it."""
    process, rank = supervised("never")
    parent = rank.parent()
    assert parent is not None
    os.kill(parent.pid, signal.SIGKILL)
    assert process.wait(60) == 128 + signal.SIGKILL
    assert gone(rank)


@pytest.mark.parametrize("code", [0, 1, 2])
def test_other_exit_codes_are_the_launchers(run_dir, code):
    driver = [sys.executable, "-c", DRIVER, str(run_dir), f"exit{code}", LAUNCHER]
    assert subprocess.run(driver, timeout=60).returncode == code


def test_a_stop_is_new_only_if_it_was_written_since():
    from launch.supervise import _stopped

    step = {"step": 8, "train/loss": 1.0}
    assert not _stopped(OLD, OLD)
    assert not _stopped([*OLD, step], OLD), "taken back to the earlier stop, then failed"
    assert _stopped([*OLD, step], [*OLD, {**step, "train/loss": 1.1}, {"step": 8, "event": "stopped"}])
    assert _stopped([], [step, {"step": 8, "event": "stopped"}])
    assert not _stopped(OLD, [*OLD, step])


def test_a_run_folder_is_known_by_its_config():
    from lab.runfolder.folder import CONFIG
    from launch import supervise

    assert supervise.CONFIG == CONFIG
