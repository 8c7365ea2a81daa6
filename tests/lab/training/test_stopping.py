"""A stop costs no further step, no evaluation and no second checkpoint; and a folder has one writer at a time."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lab.checkpoint import manifest
from lab.checkpoint.folder import all_steps, path_of
from lab.checkpoint.save import Saver
from lab.runfolder import metrics
from lab.training import run as run_module
from lab.training.run import pretrain
from tests.lab.training.test_going_on import flip

BOTH = {"train__steps": 9, "checkpoint__every": 3, "eval__every": 3, "monitors__every": 0}
"""Step 3 is one of evaluation and of a checkpoint."""


def signal_in_forward(build: Callable[..., Any], number: int, what: signal.Signals, *, training: bool = True) -> Any:
    """Builds a model in whose forward pass of that number, counted from 1, the process gets a signal."""

    def built(*args: Any, **options: Any) -> Any:
        model, passes = build(*args, **options), [0]

        def count(*_: Any) -> None:
            passes[0] += model.training == training
            if passes[0] == number and model.training == training:
                os.kill(os.getpid(), what)

        model.register_forward_pre_hook(count)
        return model

    return built


@pytest.fixture
def saves(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Steps at which a checkpoint was written."""
    steps: list[int] = []
    save = Saver.save

    def counted(self: Saver, progress: Any, *args: Any, **options: Any) -> Any:
        steps.append(progress.step)
        return save(self, progress, *args, **options)

    monkeypatch.setattr(Saver, "save", counted)
    return steps


def of(run_dir: Path, name: str) -> list[int]:
    return [record["step"] for record in metrics.read(run_dir) if name in record]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
def test_a_stop_in_a_step_that_is_also_one_of_evaluation_costs_neither_it_nor_another_step(
    settings, saves, monkeypatch, number
):
    monkeypatch.setattr(run_module, "build_model", signal_in_forward(run_module.build_model, 3, number))
    run = settings(**BOTH)
    assert pretrain(run) is False
    run_dir = Path(run.run_dir)
    assert of(run_dir, "train/loss") == [1, 2, 3] and of(run_dir, "eval/loss") == []
    assert saves == all_steps(run_dir) == [3]
    assert metrics.read(run_dir)[-1]["event"] == "stopped"


@pytest.mark.parametrize("when", ["evaluation", "checkpoint"])
def test_a_stop_in_an_evaluation_or_a_checkpoint_costs_no_further_step(settings, saves, monkeypatch, when):
    if when == "evaluation":
        model = signal_in_forward(run_module.build_model, 1, signal.SIGTERM, training=False)
        monkeypatch.setattr(run_module, "build_model", model)
    else:
        write = manifest.write

        def signalled(*args: Any) -> None:
            os.kill(os.getpid(), signal.SIGTERM)
            write(*args)

        monkeypatch.setattr(manifest, "write", signalled)
    run = settings(**BOTH)
    assert pretrain(run) is False
    run_dir = Path(run.run_dir)
    assert of(run_dir, "train/loss") == [1, 2, 3] and of(run_dir, "eval/loss") == [3]
    assert saves == all_steps(run_dir) == [3]


def test_a_stop_in_the_last_step_leaves_the_last_evaluation_to_the_next_start(settings, saves, monkeypatch):
    build = run_module.build_model
    monkeypatch.setattr(run_module, "build_model", signal_in_forward(build, 9, signal.SIGTERM))
    run = settings(**BOTH)
    assert pretrain(run) is False
    run_dir = Path(run.run_dir)
    assert of(run_dir, "eval/loss") == [3, 6] and saves == [3, 6, 9]
    for _ in range(2):  # the second has nothing left to do
        assert pretrain(settings(resume="latest", **BOTH))
        assert of(run_dir, "eval/loss") == [3, 6, 9] and saves == [3, 6, 9]
    whole = settings("whole", **BOTH)
    monkeypatch.setattr(run_module, "build_model", build)
    assert pretrain(whole)
    last = [[r for r in metrics.read(folder) if "eval/loss" in r][-1] for folder in (run_dir, Path(whole.run_dir))]
    assert last[0]["eval/loss"] == last[1]["eval/loss"]


def wait_for(condition: Callable[[], bool], process: Any) -> None:
    end = time.monotonic() + 120
    while not condition():
        assert process.poll() is None, process.stdout.read()
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.01)


def test_a_second_start_into_a_folder_is_refused_and_after_a_kill_the_next_goes_on_at_once(flags, start, tmp_path):
    endless = {"train__steps": 50000, "eval__every": 0, "checkpoint__every": 2, "monitors__every": 0, "resume": "auto"}
    run_dir = tmp_path / "run"
    first = start("pretrain", *flags(**endless))
    wait_for(lambda: len(all_steps(run_dir)) > 1, first)
    second = start("pretrain", *flags(**endless))
    output, _ = second.communicate(timeout=120)
    (error,) = [line for line in output.splitlines() if line.startswith("error:")]
    assert second.returncode == 1 and f"process {first.pid} on" in error and "writes there since" in error
    assert "going on" not in output and "Traceback" not in output
    first.kill()
    first.wait()
    last = max(of(run_dir, "train/loss"))
    third = start("pretrain", *flags(**(endless | {"train__steps": last + 2})))
    output, _ = third.communicate(timeout=120)
    assert third.returncode == 0, output
    assert of(run_dir, "train/loss") == list(range(1, last + 3))
    assert not (run_dir / ".writer").exists()


def test_two_processes_stop_for_the_signal_of_one_and_agree_on_where_to_go_on(settings, flags, launch, tmp_path):
    common = BOTH | {"train__micro_batch": 2}
    program = Path(__file__).with_name("signalled.py")
    stopped = launch(2, 1, 3, *flags("run", **common), program=program)
    run_dir = tmp_path / "run"
    assert "stopped after step 3 as asked" in stopped.stdout, stopped.stderr
    assert of(run_dir, "train/loss") == [1, 2, 3] and of(run_dir, "eval/loss") == []
    assert all_steps(run_dir) == [3]

    # A session with another learning rate, whose last checkpoint is damaged: only the main process reads every byte.
    assert pretrain(settings("run", resume="latest", optim__lr=1e-5, **(common | {"train__steps": 6})))
    flip(path_of(run_dir, 6) / "model.safetensors")
    words = ["--run-dir", run_dir, "--resume", "latest", "--train.steps", 5]
    again = launch(2, *words)
    assert again.returncode == 0, again.stdout + again.stderr
    assert again.stdout.count("passing over a checkpoint") == again.stdout.count("going on from") == 1
    whole = settings("whole", **(common | {"train__steps": 5, "optim__warmup": 0.1}))
    assert pretrain(whole)
    rates = [
        [record["train/lr"] for record in metrics.read(folder) if record.get("step", 0) > 3 and "train/lr" in record]
        for folder in (run_dir, Path(whole.run_dir))
    ]
    assert rates[0] == rates[1] and len(rates[0]) == 2
