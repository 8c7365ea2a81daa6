"""A damaged checkpoint is refused by every command, with the same words; what cannot be deleted costs a warning."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from evaluators import command as judge
from lab import pretrain as pretrain_command
from lab.checkpoint import load_model, manifest, retention
from lab.checkpoint.folder import all_steps, clean, partial_of, path_of
from lab.checkpoint.retention import keeps_no_best
from lab.commands import convert, describe, export, prune
from lab.config.sections import CheckpointConfig
from lab.diagnostics import command as diagnose
from lab.parallel.heartbeat import Heartbeat
from lab.runfolder import metrics
from lab.training.run import pretrain
from tests.lab.training.test_going_on import flip

QUICK = {"eval__every": 0, "monitors__every": 0}
DIAGNOSE = ["--only", "spectra", "--blocks", "1", "--device", "cpu"]
COMMANDS = {
    "describe": (describe.main, []),
    "export": (export.main, ["--out", "OUT"]),
    "convert": (convert.main, ["--out", "OUT"]),
    "prune": (prune.main, ["--layers", "1", "--out", "OUT"]),
    "diagnose": (diagnose.main, [*DIAGNOSE, "--out", "OUT"]),
    "diagnose --latest": (diagnose.main, ["--latest", *DIAGNOSE, "--out", "OUT"]),
}


def call(name: str, path: Path, out: Path) -> int:
    main, words = COMMANDS[name]
    return main([str(path), *(str(out) if word == "OUT" else word for word in words)], prog=name)


@pytest.mark.parametrize("damage", ["model.safetensors", "tokenizer.json", "config.json", "state/*.safetensors", "cut"])
def test_every_command_refuses_a_damaged_checkpoint_with_the_same_words(settings, flags, tmp_path, capsys, damage):
    run = settings(train__steps=6, checkpoint__every=3, **QUICK)
    assert pretrain(run)
    run_dir, out = Path(run.run_dir), tmp_path / "out"
    bad = path_of(run_dir, 6)
    if damage == "cut":
        (bad / "model.safetensors").write_bytes((bad / "model.safetensors").read_bytes()[:-8])
        why = f"{bad} is damaged: model.safetensors has "
    else:
        (file,) = bad.glob(damage)
        flip(file)
        why = f"{bad} is damaged: the content of {file.relative_to(bad)} has changed"
    capsys.readouterr()
    for name in COMMANDS:
        if name != "diagnose --latest":
            assert call(name, bad, out) == 1, name
            (line,) = capsys.readouterr().err.splitlines()
            assert line.startswith(f"error: {why}"), (name, line)
    (tmp_path / "prompts.jsonl").write_text('{"query": "q"}\n')
    words = ["pairs", "--a", str(bad), "--b", str(bad), "--prompts", str(tmp_path / "prompts.jsonl")]
    assert judge.main([*words, "--judge", "simulated:gap=1", "--out", str(out)], prog="judge") == 1
    assert f"error: --a {why}" in capsys.readouterr().err
    for flag in ("--resume", "--model.checkpoint"):
        words = [*flags("new", **QUICK), flag, str(bad)]
        assert pretrain_command.main(words) == 1
        (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
        assert why in line
    with pytest.raises(ValueError, match=why.replace("(", r"\(")):
        load_model(bad)
    # A copy under another name is the same checkpoint.
    copied = shutil.copytree(bad, tmp_path / "copied")
    assert call("describe", copied, out) == 1
    assert "is damaged" in capsys.readouterr().err
    assert not out.exists()


def test_of_a_run_the_newest_whole_checkpoint_is_taken_saying_what_was_passed_over(settings, tmp_path, capfd):
    run = settings(train__steps=6, checkpoint__every=3, **QUICK)
    assert pretrain(run)
    run_dir = Path(run.run_dir)
    flip(path_of(run_dir, 6) / "model.safetensors")
    for name in COMMANDS:
        capfd.readouterr()
        out = tmp_path / name
        assert call(name, run_dir, out) == 0, name
        captured = capfd.readouterr()
        if name != "describe":  # the same process says the same once
            assert out.exists()
        if name in ("describe", "diagnose"):
            assert "passing over a checkpoint" in captured.out + captured.err
        if name.startswith("diagnose"):
            assert [path.name for path in out.glob("*.json")] == ["step-000003.json"]


def test_what_was_found_whole_is_read_again_only_after_a_change(settings, monkeypatch):
    run = settings(train__steps=3, **QUICK)
    assert pretrain(run)
    checkpoint, read = path_of(Path(run.run_dir), 3), []
    hashed = manifest.file_hash
    monkeypatch.setattr(manifest, "file_hash", lambda path: read.append(path.name) or hashed(path))
    manifest.verify(checkpoint)
    found = len(read)
    manifest.verify(checkpoint)
    assert len(read) == found > 3
    flip(checkpoint / "model.safetensors")
    with pytest.raises(manifest.DamagedError):
        manifest.verify(checkpoint)


def refusing(monkeypatch: pytest.MonkeyPatch, names: tuple[str, ...]) -> None:
    """Folders of these names can be renamed, but something holds a file in them."""
    delete = shutil.rmtree

    def rmtree(path, ignore_errors=False, **options):
        if any(name in Path(path).name for name in names):
            if ignore_errors:
                return
            raise OSError(16, "Device or resource busy")
        delete(path, ignore_errors=ignore_errors, **options)

    monkeypatch.setattr(shutil, "rmtree", rmtree)


def test_an_old_checkpoint_that_cannot_be_deleted_costs_a_warning(settings, monkeypatch, capsys):
    refusing(monkeypatch, ("step-000002",))
    run = settings(train__steps=6, checkpoint__every=2, checkpoint__keep_last=1, checkpoint__keep_best=False, **QUICK)
    assert pretrain(run)
    out = capsys.readouterr().out
    assert "warning: the old checkpoint of step 2 cannot be deleted" in out and "resource busy" in out
    assert all_steps(Path(run.run_dir)) == [6]
    assert [record["step"] for record in metrics.read(Path(run.run_dir)) if "train/loss" in record] == list(range(1, 7))
    said: list[str] = []
    clean(Path(run.run_dir), said.append)
    assert len(said) == 1 and "cannot be deleted" in said[0]
    monkeypatch.undo()
    clean(Path(run.run_dir), said.append)
    assert len(said) == 1 and all_steps(Path(run.run_dir)) == [6]
    assert not list((Path(run.run_dir) / "checkpoints").glob(".*"))


def test_a_partial_checkpoint_that_cannot_be_deleted_costs_a_warning_and_only_itself(settings, monkeypatch, capsys):
    run = settings(train__steps=3, checkpoint__every=3, **QUICK)
    assert pretrain(run)
    run_dir = Path(run.run_dir)
    left = partial_of(path_of(run_dir, 6))
    left.mkdir()
    (left / "model.safetensors").write_text("held")
    refusing(monkeypatch, ("step-000006",))
    capsys.readouterr()
    assert pretrain(settings(resume="latest", train__steps=9, checkpoint__every=3, **QUICK))
    out = capsys.readouterr().out
    assert f"warning: {left} cannot be deleted" in out
    assert "warning: step 6: the checkpoint could not be written" in out
    assert all_steps(run_dir) == [3, 9]


def test_no_limit_of_time_is_on_writing_and_reading_a_checkpoint(settings, monkeypatch):
    """Ended for a slow file system, the run would be started again, and come to the same place."""
    from lab.checkpoint import optimizer_state

    limited, at = {}, Heartbeat.at

    def noted(self, doing, *, step=None, limited=True):
        self.now = (doing, limited)
        at(self, doing, step=step, limited=limited)

    def spy(module, name):
        real = getattr(module, name)

        def called(*args, **options):
            limited[name] = hearts[-1].now
            return real(*args, **options)

        monkeypatch.setattr(module, name, called)

    hearts, init = [], Heartbeat.__init__
    monkeypatch.setattr(Heartbeat, "__init__", lambda self, limit_s: hearts.append(self) or init(self, limit_s))
    monkeypatch.setattr(Heartbeat, "at", noted)
    spy(manifest, "write"), spy(optimizer_state, "write"), spy(optimizer_state, "read_optimizer")
    spy(manifest, "verify")
    run = settings(train__steps=3, **QUICK)
    assert pretrain(run)
    assert pretrain(settings(resume="latest", train__steps=4, **QUICK))
    assert limited.keys() == {"write", "read_optimizer", "verify"}
    assert not any(is_limited for _, is_limited in limited.values()), limited


@pytest.mark.parametrize(
    ("every", "eval_every", "told"),
    [
        (100, 100, None),
        (200, 100, None),
        (100, 250, "every 500 steps and the last alone"),
        (100, 150, "every 300 steps and the last alone"),
        (100, 0, "of the last checkpoint alone"),
        (100, 5000, "of the last checkpoint alone"),
        (0, 250, None),
        (2000, 250, None),
    ],
)
def test_keeping_the_best_of_checkpoints_that_are_not_evaluated_is_warned_about(every, eval_every, told):
    found = keeps_no_best(eval_every, CheckpointConfig(every=every), 1000)
    assert found is None if told is None else told in found
    assert keeps_no_best(eval_every, CheckpointConfig(every=every, keep_last=None), 1000) is None
    assert keeps_no_best(eval_every, CheckpointConfig(every=every, keep_best=False), 1000) is None
    assert retention.expired([(1, None), (2, None)], CheckpointConfig(keep_last=1)) == [1]
