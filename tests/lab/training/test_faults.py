"""What happens to a run: kills, signals, damage, full disks, numbers that are not finite, wrong settings."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from lab.checkpoint import load_model
from lab.checkpoint.folder import all_steps, path_of
from lab.checkpoint.progress import read_progress
from lab.config.read import load
from lab.errors import ConfigError, RunError
from lab.runfolder import metrics
from lab.training.run import pretrain
from lab.training.signals import EXIT_STOPPED
from lab.training.start import parse


def losses(run_dir: Path) -> dict[int, float]:
    return {record["step"]: record["train/loss"] for record in metrics.read(run_dir) if "train/loss" in record}


def evaluations(run_dir: Path) -> dict[int, float]:
    return {record["step"]: record["eval/loss"] for record in metrics.read(run_dir) if "eval/loss" in record}


def wait_for(condition, process, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.stdout.read()
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.01)


def metric_lines(run_dir: Path) -> int:
    file = run_dir / "metrics.jsonl"
    return file.read_bytes().count(b"\n") if file.exists() else 0


# GPT-2 has dropout: the random state must go on exactly too.
GPT2 = {"model_type": "gpt2", "n_embd": 32, "n_layer": 3, "n_head": 2, "n_positions": 16, "vocab_size": 400}


@pytest.fixture
def gpt2(tmp_path) -> Path:
    folder = tmp_path / "gpt2"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(GPT2))
    return folder


@pytest.mark.parametrize("dropout", [False, True], ids=["llama", "gpt2 with dropout"])
def test_a_run_that_was_killed_goes_on_with_the_losses_of_one_that_was_not(
    flags, settings, start, tmp_path, gpt2, dropout
):
    model = {"model__config": gpt2} if dropout else {"normalization__scheme": "mix"}
    common = {"train__steps": 40, "eval__every": 10, "checkpoint__every": 5, **model}
    whole = settings("whole", **common)
    assert pretrain(whole)
    process = start("pretrain", *flags("killed", **common))
    run_dir = tmp_path / "killed"
    wait_for(lambda: metric_lines(run_dir) > 12, process)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert max(losses(run_dir), default=0) < 40, "it was killed too late to show anything"
    assert pretrain(settings("killed", resume="latest", **common))
    expected = losses(Path(whole.run_dir))
    assert losses(run_dir) == pytest.approx(expected, rel=1e-6)
    assert list(losses(run_dir)) == list(range(1, 41))
    assert evaluations(run_dir) == pytest.approx(evaluations(Path(whole.run_dir)), rel=1e-6)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_ends_the_run_with_a_checkpoint_and_its_own_exit_code(flags, settings, start, tmp_path, number):
    common = {"train__steps": 5000, "eval__every": 0, "checkpoint__every": 0, "monitors__every": 0}
    process = start("pretrain", *flags(**common))
    run_dir = tmp_path / "run"
    wait_for(lambda: metric_lines(run_dir) > 3, process)
    process.send_signal(number)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == EXIT_STOPPED, output
    assert "--resume latest" in output
    assert metrics.read(run_dir)[-1]["event"] == "stopped"
    last = max(losses(run_dir))
    assert all_steps(run_dir) == [last]
    assert read_progress(path_of(run_dir, last), settings()).step == last


def test_a_kill_while_a_checkpoint_is_written_leaves_the_one_before(flags, settings, start, tmp_path):
    """The kill comes from inside the write, between the weights and the manifest."""
    code = (
        "import os, signal, sys\n"
        "from lab.checkpoint import manifest\n"
        "whole = manifest.write\n"
        "def write(folder, description):\n"
        "    if description.step == 6:\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    whole(folder, description)\n"
        "manifest.write = write\n"
        "from lab.pretrain import main\n"
        "sys.exit(main())\n"
    )
    common = {"train__steps": 9, "checkpoint__every": 3, "eval__every": 0}
    process = start(*flags(**common), program=("-c", code))
    process.communicate(timeout=120)
    assert process.returncode == -signal.SIGKILL
    run_dir = tmp_path / "run"
    assert all_steps(run_dir) == [3]
    assert list((run_dir / "checkpoints").glob(".step-*.partial"))
    assert pretrain(settings(resume="latest", **common))
    assert all_steps(run_dir) == [3, 6, 9]
    assert not list((run_dir / "checkpoints").glob(".step-*"))


def test_a_damaged_checkpoint_is_passed_over_saying_so_and_later_records_are_set_aside(settings, capsys, tmp_path):
    run = settings(train__steps=9, checkpoint__every=3)
    assert pretrain(run)
    run_dir = Path(run.run_dir)
    expected = losses(run_dir)
    weights = run_dir / "checkpoints" / "step-000009" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with (run_dir / "metrics.jsonl").open("a") as file:
        file.write('{"step": 10, "tok')  # a line that a crash cut short
    capsys.readouterr()
    assert pretrain(settings(resume="latest", train__steps=9, checkpoint__every=3))
    out = capsys.readouterr().out
    assert "model.safetensors" in out and "step-000006" in out
    assert losses(run_dir) == pytest.approx(expected, rel=1e-6)
    superseded = (run_dir / "metrics.superseded.jsonl").read_text().splitlines()
    assert {json.loads(line)["step"] for line in superseded} == {7, 8, 9}


def test_a_full_disk_costs_the_checkpoint_but_not_the_older_one(flags, settings, tmp_path):
    """A limit on file size is what a full disk is to the writers: weights and optimizer no longer fit."""
    common = {"train__steps": 9, "checkpoint__every": 3, "eval__every": 0, "monitors__every": 0}
    code = (
        "import resource, signal, sys\n"
        "from lab.checkpoint import manifest\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "whole = manifest.write\n"
        "def write(folder, description):\n"
        "    whole(folder, description)\n"
        "    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))\n"
        "manifest.write = write\n"
        "from lab.pretrain import main\n"
        "sys.exit(main())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *flags(**common)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert "warning: step 6: the checkpoint could not be written" in done.stdout
    assert "error: step 9: the checkpoint could not be written" in done.stderr and "Traceback" not in done.stderr
    assert "step-000003" in done.stderr and "--resume latest" in done.stderr
    run_dir = tmp_path / "run"
    assert all_steps(run_dir) == [3]
    assert not list((run_dir / "checkpoints").glob(".step-*"))
    assert pretrain(settings(resume="latest", **common))
    assert all_steps(run_dir) == [3, 6, 9]


def poison(kind: str, step: int):
    """Make one number of `layer_02` infinite in a step, in the forward or in the backward pass."""
    from lab.training.loop import Trainer

    make = Trainer.__init__

    def init(self, *args, **kwargs):
        make(self, *args, **kwargs)
        layer = self.learner.bare.model.layers[1]

        def forward(module, inputs, output):
            return output * float("nan") if self.progress.step + 1 == step else output

        def backward(module, grad_input, grad_output):
            return (grad_input[0] * float("inf"),) if self.progress.step + 1 == step else grad_input

        if kind == "output":
            layer.register_forward_hook(forward)
        else:
            layer.register_full_backward_hook(backward)

    return init


@pytest.mark.parametrize(
    ("kind", "place"), [("output", "the output of layer_02"), ("gradient", "the gradient of layer_01")]
)
def test_a_number_that_is_not_finite_stops_before_the_update_and_names_step_and_layer(
    settings, monkeypatch, kind, place
):
    from lab.training.loop import Trainer

    monkeypatch.setattr(Trainer, "__init__", poison(kind, step=5))
    run = settings(train__steps=9, checkpoint__every=3)
    with pytest.raises(RunError) as caught:
        pretrain(run)
    assert f"step 5: the {'loss is nan' if kind == 'output' else 'gradient norm is'}" in str(caught.value)
    assert place in str(caught.value) and "step-000003" in str(caught.value)
    run_dir = Path(run.run_dir)
    assert max(losses(run_dir)) == 4
    assert metrics.read(run_dir)[-1]["event"] == "not finite"
    weights = load_model(run_dir).state_dict()
    assert all(bool(torch.isfinite(tensor).all()) for tensor in weights.values())


def test_a_run_folder_that_exists_is_never_overwritten(settings):
    run = settings()
    folder = Path(run.run_dir)
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(RunError, match="never overwritten; choose another folder$"):
        pretrain(run)
    assert [path.name for path in folder.iterdir()] == ["notes.txt"]
    (folder / "config.yaml").write_text("")
    with pytest.raises(RunError, match="never overwritten.*--resume latest"):
        pretrain(run)
    assert sorted(path.name for path in folder.iterdir()) == ["config.yaml", "notes.txt"]


def test_resume_of_nothing_and_of_another_run_are_refused(settings):
    with pytest.raises(RunError, match="leave --resume out"):
        pretrain(settings(resume="latest"))
    assert pretrain(settings(train__steps=3))
    with pytest.raises(ConfigError, match="--normalization.scheme: cannot change"):
        pretrain(settings(resume="latest", train__steps=3, normalization__scheme="lns"))


@pytest.mark.parametrize(
    ("overrides", "parts"),
    [
        ({"model__vocab_size": 100}, ["vocab", "100"]),
        ({"train__precision": "fp16"}, ["--train.precision fp16", "GPU"]),
        ({"model__attention": "flash_attention_2"}, ["--model.attention flash_attention_2", "GPU"]),
        ({"log__trackers": "wandb"}, ["--log.trackers wandb", "pip install wandb"]),
        ({"model__config": "no/such/model"}, ["--model.config no/such/model"]),
        ({"normalization__scheme": "mix", "normalization__post_layers": 9}, ["post_layers", "9", "3"]),
    ],
)
def test_impossible_runs_stop_before_they_start(settings, overrides, parts):
    run = settings(**overrides)
    with pytest.raises(ValueError) as caught:
        pretrain(run)
    for part in parts:
        assert part in str(caught.value)
    assert not (Path(run.run_dir) / "metrics.jsonl").exists()


def test_positions_that_the_model_lacks_are_refused(settings, gpt2):
    with pytest.raises(ConfigError, match="--data.block-length 17.*16"):
        pretrain(settings(model__config=gpt2, data__block_length=17))


def test_a_family_without_an_entry_is_refused_with_the_list(settings, tmp_path):
    (tmp_path / "config.json").write_text(
        json.dumps({"model_type": "opt", "hidden_size": 32, "ffn_dim": 32, "num_hidden_layers": 2, "vocab_size": 400})
    )
    with pytest.raises(ConfigError, match="opt.*llama"):
        pretrain(settings(model__config=tmp_path))


def test_a_new_run_can_go_on_from_another_runs_checkpoint_with_its_settings(settings, flags):
    first = settings(normalization__scheme="lns")
    assert pretrain(first)
    start = path_of(Path(first.run_dir), 3)
    branch = parse(["--run-dir", f"{first.run_dir}-branch", "--resume", str(start)], prog="test")
    assert branch.normalization.scheme == "lns" and branch.data == first.data
    assert pretrain(branch)
    expected = losses(Path(first.run_dir))
    assert losses(Path(branch.run_dir)) == pytest.approx({step: expected[step] for step in (4, 5, 6)}, rel=1e-6)
    with pytest.raises(RunError, match="never overwritten"):
        pretrain(branch)


def test_going_back_in_a_run_leaves_no_checkpoint_of_the_course_it_left(settings, capsys):
    run = settings(train__steps=9, checkpoint__every=3)
    assert pretrain(run)
    run_dir = Path(run.run_dir)
    start = path_of(run_dir, 3)
    capsys.readouterr()
    assert pretrain(settings(resume=start, train__steps=9, checkpoint__every=100, optim__lr=1e-4))
    out = capsys.readouterr().out
    assert "later checkpoints of steps [6, 9]" in out and "optim.lr: 0.001 -> 0.0001" in out
    assert all_steps(run_dir) == [3, 9]
    assert sorted(path.name for path in (run_dir / "checkpoints" / "superseded").iterdir()) == [
        "step-000006",
        "step-000009",
    ]
    # What is stored starts the same run anew, and remembers both sessions.
    assert load(run_dir / "config.yaml").resume is None
    environment = json.loads((run_dir / "environment.json").read_text())
    assert [session["from"] for session in environment["resumed"]] == [str(start)]


def test_a_run_that_is_complete_says_so(settings, capsys):
    assert pretrain(settings(train__steps=3))
    capsys.readouterr()
    assert pretrain(settings(train__steps=3, resume="latest"))
    assert "complete already: step 3 of 3" in capsys.readouterr().out


def test_a_run_folder_stands_for_its_newest_checkpoint(settings):
    first = settings(train__steps=3)
    assert pretrain(first)
    assert pretrain(settings("second", model__checkpoint=first.run_dir, train__steps=1))


def test_a_checkpoint_with_another_scheme_than_the_settings_is_refused(settings):
    first = settings(normalization__scheme="lns", train__steps=3)
    assert pretrain(first)
    start = path_of(Path(first.run_dir), 3)
    with pytest.raises(ConfigError, match="--normalization.scheme pre: .* say --normalization.scheme lns"):
        pretrain(settings("second", model__checkpoint=start))
    assert pretrain(settings("third", model__checkpoint=start, normalization__scheme="lns", train__steps=1))
