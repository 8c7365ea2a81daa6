"""What happens to a run of several processes: ranks that die, hang, cannot read or come late; signals; time limits."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from lab.checkpoint.folder import all_steps, partial_of, path_of
from lab.runfolder import metrics
from lab.training.run import pretrain
from tests.lab.conftest import OUTPUT, ranks_of

TROUBLE = Path(__file__).with_name("rank_trouble.py")
ENDLESS = {"train__steps": 50000, "eval__every": 0, "checkpoint__every": 0, "train__micro_batch": 2}
ROOT = Path(__file__).parents[3]
SLOW = pytest.mark.slow
BOUND_S = 60
"""In which a run that lost a rank must have ended: a few seconds, and the launcher's 30 s of grace."""


def losses(run_dir: Path) -> dict[int, float]:
    return {record["step"]: record["train/loss"] for record in metrics.read(run_dir) if "train/loss" in record}


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str], output: Path) -> None:
    end = time.monotonic() + 120
    while not condition():
        assert process.poll() is None, output.read_text()
        assert time.monotonic() < end, f"it did not happen in time: {output.read_text()}"
        time.sleep(0.01)


LEAVING = """
from types import SimpleNamespace
import torch, torch.distributed as dist
from lab.parallel.accelerator import leave
def run():
    model = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(4, 4))
    dist.all_gather([torch.zeros(1000)], torch.ones(1000))
    leave(SimpleNamespace(end_training=dist.destroy_process_group), model)
for number in range(200):
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    run()
print("left")
"""


def test_a_process_can_leave_while_gloo_still_lets_go_of_a_tensor() -> None:
    """Without DDP's reducer gone first, one of some dozens of processes stayed for ever."""
    done = subprocess.run([sys.executable, "-c", LEAVING], capture_output=True, text=True, timeout=200, cwd=ROOT)
    assert done.returncode == 0 and done.stdout == "left\n", done.stderr


def recorded(run_dir: Path) -> int:
    file = run_dir / metrics.NAME
    return file.read_bytes().count(b"\n") if file.exists() else 0


@pytest.mark.parametrize(
    ("preset", "victim"),
    [("ddp", 1), *(pytest.param(*case, marks=SLOW) for case in [("ddp", 0), ("zero2", 0), ("zero2", 1)])],
)
def test_the_others_end_when_a_rank_is_killed_and_name_it(flags, launched, tmp_path, preset, victim):
    process = launched(2, *flags(**ENDLESS), preset=preset)
    wait_for(lambda: recorded(tmp_path / "run") > 3, process, tmp_path / OUTPUT)
    ranks = ranks_of(process)
    ranks[victim].kill()
    process.wait(timeout=BOUND_S)
    assert process.returncode != 0
    assert not any(rank.is_running() and rank.status() != psutil.STATUS_ZOMBIE for rank in ranks.values())
    output = (tmp_path / OUTPUT).read_text()
    assert f"lost rank {victim} on" in output and "error: step" in output, output


@SLOW  # it compiles
def test_a_killed_compilation_does_not_hold_up_later_starts(flags, launch, tmp_path, monkeypatch):
    """PyTorch's lock of a compilation outlives a kill; a start that waited for it would wait for ever."""
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path / "extensions"))
    folder = tmp_path / "extensions" / "deepspeed_shm_comm"
    folder.mkdir(parents=True)
    (folder / "lock").touch()
    done = launch(2, *flags(train__micro_batch=2, train__steps=1), preset="zero1")
    assert done.returncode == 0, done.stderr
    assert not (folder / "lock").exists() and list(folder.glob("*.so"))


def test_a_rank_that_stands_still_is_named_with_the_step(flags, launched, tmp_path):
    process = launched(2, *flags(**ENDLESS, train__hang_timeout=5))
    wait_for(lambda: recorded(tmp_path / "run") > 3, process, tmp_path / OUTPUT)
    ranks_of(process)[1].suspend()
    process.wait(timeout=2 * BOUND_S)
    assert process.returncode != 0
    output = (tmp_path / OUTPUT).read_text()
    assert "no progress for 5 s (--train.hang-timeout); missing: rank 1 on" in output, output
    step = max(losses(tmp_path / "run"))
    assert f"error: step {step + 1}, " in output or f"error: step {step}, " in output


@pytest.mark.parametrize(
    ("trouble", "told"),
    [
        ("unreadable source", "/nowhere/text.jsonl"),
        ("read error", "step 6: reading data: [Errno 5] Input/output error"),
    ],
)
def test_a_rank_that_cannot_read_its_data_ends_the_run_with_one_message(flags, launch, tmp_path, trouble, told):
    begun = time.monotonic()
    done = launch(2, trouble, *flags(**{**ENDLESS, "train__micro_batch": 2, "train__global_batch": 4}), program=TROUBLE)
    assert done.returncode != 0 and time.monotonic() - begun < 2 * BOUND_S
    (message,) = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert message.startswith("error: rank 1 on ") and told in message


@SLOW
@pytest.mark.parametrize("late", [0, 1])
def test_ranks_may_start_at_different_times(settings, flags, launch, tmp_path, late):
    """With nothing prepared: whichever comes first trains the tokenizer and tokenises, and one alone makes folders."""
    common = {"train__micro_batch": 2, "data__tokenizer": "bpe:300"}
    fresh = tmp_path / "cache of this test"
    done = launch(2, f"late rank {late}", *flags(**common, data__cache_dir=fresh), program=TROUBLE)
    assert done.returncode == 0, done.stderr
    assert pretrain(settings("one", **common))
    assert losses(tmp_path / "run") == pytest.approx(losses(tmp_path / "one"), rel=2e-5)


@SLOW
def test_sigterm_to_the_launcher_saves_and_a_kill_in_a_checkpoint_loses_only_it(settings, flags, launched, tmp_path):
    common = {"train__steps": 60, "train__micro_batch": 2, "eval__every": 0, "checkpoint__every": 20}
    assert pretrain(settings("whole", **common))
    run_dir, output = tmp_path / "run", tmp_path / OUTPUT

    process = launched(2, *flags(**common))
    wait_for(lambda: recorded(run_dir) > 2, process, output)
    process.send_signal(signal.SIGTERM)
    process.wait(timeout=BOUND_S)
    assert metrics.read(run_dir)[-1]["event"] == "stopped", output.read_text()
    stopped = max(losses(run_dir))
    assert all_steps(run_dir)[-1] == stopped < 60

    process = launched(2, *flags(resume="latest", **common))
    partial = partial_of(path_of(run_dir, 60))
    wait_for(lambda: len(ranks_of(process)) == 2, process, output)
    ranks = ranks_of(process)
    wait_for(partial.exists, process, output)
    # The ranks have sessions of their own: they would save on without their launcher.
    for rank in ranks.values():
        rank.kill()
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert all_steps(run_dir)[-1] < 60, "the kill came too late to show anything"

    process = launched(2, *flags(resume="latest", **common))
    assert process.wait(timeout=2 * BOUND_S) == 0, output.read_text()
    assert losses(run_dir) == pytest.approx(losses(tmp_path / "whole"), rel=2e-5)
    assert list(losses(run_dir)) == list(range(1, 61)) and not partial.exists()


@SLOW
def test_a_job_that_is_requeued_three_times_ends_with_the_losses_of_one_that_was_not(
    settings, flags, launched, tmp_path
):
    """Every start is the same command, as a batch system gives it; the stop file ends three of them."""
    common = {"train__steps": 80, "train__micro_batch": 2, "eval__every": 0, "checkpoint__every": 0}
    assert pretrain(settings("whole", **common))
    run_dir, output = tmp_path / "run", tmp_path / OUTPUT
    starts = 0
    while True:
        before = recorded(run_dir)
        process = launched(2, *flags(resume="auto", **common))
        starts += 1
        if starts < 4:
            wait_for(lambda before=before: recorded(run_dir) > before + 3, process, output)
            (run_dir / "stop").touch()
        process.wait(timeout=2 * BOUND_S)
        if metrics.read(run_dir)[-1].get("event") != "stopped":
            break
        assert not (run_dir / "stop").exists()
    assert starts == 4 and process.returncode == 0, output.read_text()
    assert losses(run_dir) == pytest.approx(losses(tmp_path / "whole"), rel=2e-5)
    assert list(losses(run_dir)) == list(range(1, 81))
