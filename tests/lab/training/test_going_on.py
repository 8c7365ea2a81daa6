"""Where a run goes on from, with whose settings, and what is told and kept of the way."""

from __future__ import annotations

import dataclasses
import errno
import json
import shutil
import signal
import threading
from functools import partial
from pathlib import Path

import pytest

from lab.checkpoint import manifest
from lab.checkpoint.folder import all_steps, path_of
from lab.config.read import load
from lab.errors import ConfigError, RunError
from lab.report.read import read as read_report
from lab.runfolder import metrics
from lab.training.run import pretrain
from lab.training.signals import SIGNALS, StopRequest
from lab.training.start import Start, parse, refuse_others

QUICK = {"train__steps": 9, "checkpoint__every": 3, "eval__every": 0, "monitors__every": 0}


def losses(run_dir: Path) -> dict[int, float]:
    return {record["step"]: record["train/loss"] for record in metrics.read(run_dir) if "train/loss" in record}


def flip(file: Path) -> None:
    """Overwrite 8 bytes in the middle."""
    content = bytearray(file.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 8] = bytes(255 - byte for byte in content[middle : middle + 8])
    file.write_bytes(content)


def contents(folder: Path) -> dict[str, int]:
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in sorted(folder.rglob("*"))}


@pytest.fixture
def trained(settings) -> Path:
    """A run of 9 steps with checkpoints at 3, 6 and 9 whose settings are far from the defaults."""
    run = settings("first", normalization__scheme="mix", optim__lr=3e-3, **QUICK)
    assert pretrain(run)
    return Path(run.run_dir)


def copy_aside(run_dir: Path) -> Path:
    aside = run_dir / "checkpoints" / "superseded" / "step-000006-2"
    shutil.copytree(path_of(run_dir, 6), aside)
    return aside


@pytest.mark.parametrize("what", ["run", "checkpoint", "set aside", "taken elsewhere", "latest", "auto"])
def test_whatever_is_named_gives_its_own_settings_and_flags_override_them(trained, tmp_path, what):
    named = {
        "run": trained,
        "checkpoint": path_of(trained, 6),
        "set aside": copy_aside(trained),
        "taken elsewhere": shutil.copytree(path_of(trained, 6), tmp_path / "taken"),
        "latest": "latest",
        "auto": "auto",
    }[what]
    where = trained if what in ("latest", "auto") else tmp_path / "branch"
    words = ["--run-dir", where, "--resume", named, "--optim.lr", "1e-3", "--train.global-batch", "8"]
    found = parse(list(map(str, words)), prog="test")
    stored = load(trained / "config.yaml")
    assert found.normalization == stored.normalization and found.data == stored.data and found.model == stored.model
    assert found.optim == dataclasses.replace(stored.optim, lr=1e-3)
    assert found.train == dataclasses.replace(stored.train, global_batch=8)
    start = Start.of(found, print)
    assert start.position.step == (6 if what in ("checkpoint", "set aside", "taken elsewhere") else 9)
    assert start.changed == ("optim.lr: 0.003 -> 0.001", "train.global_batch: 4 -> 8")
    assert (start.branch is None) == (where == trained)


def test_without_a_run_dir_a_run_goes_on_in_its_own_folder_wherever_that_was_moved(trained, tmp_path):
    moved = trained.rename(tmp_path / "moved")
    for named in (moved, path_of(moved, 9)):
        assert parse(["--resume", str(named)], prog="test").run_dir == str(moved)


def test_a_folder_of_checkpoints_that_is_a_link_and_a_link_to_a_checkpoint_are_the_runs_own(
    trained, settings, tmp_path
):
    (trained / "best").symlink_to("checkpoints/step-000006")
    (tmp_path / "also").symlink_to(trained)

    def step(run_dir: Path, named: str | Path) -> int:
        start = Start.of(parse(["--run-dir", str(run_dir), "--resume", str(named)], prog="test"), print)
        assert start.branch is None and start.run.optim.lr == 3e-3
        return start.position.step

    assert step(trained, trained / "best") == 6
    (trained / "checkpoints").rename(tmp_path / "scratch")
    (trained / "checkpoints").symlink_to(tmp_path / "scratch")
    assert step(trained, "latest") == step(tmp_path / "also", "auto") == 9


def test_a_run_without_checkpoints_is_no_damaged_checkpoint(trained, tmp_path):
    shutil.rmtree(trained / "checkpoints")
    with pytest.raises(RunError, match="no whole checkpoint in .*first/checkpoints"):
        parse(["--run-dir", str(tmp_path / "new"), "--resume", str(trained)], prog="test")


def test_what_one_process_of_several_cannot_find_is_told_when_all_have_met(trained, monkeypatch):
    words = ["--run-dir", str(trained.parent / "not mounted"), "--resume", "latest"]
    with pytest.raises(RunError, match="no whole checkpoint"):
        parse(words, prog="test")
    monkeypatch.setenv("RANK", "1")
    alone = parse(words, prog="test")
    with pytest.raises(
        ConfigError, match="--train.micro-batch: this process began with 16, and the run goes on with 4"
    ):
        refuse_others(alone, dataclasses.replace(load(trained / "config.yaml"), run_dir=alone.run_dir))


def test_a_checkpoint_has_the_settings_it_was_trained_with_not_those_of_later_sessions(trained, settings):
    assert pretrain(settings("first", resume="latest", **(QUICK | {"train__steps": 12}), optim__lr=1e-4))
    assert load(trained / "config.yaml").optim.lr == 1e-4
    before, after = (
        parse(["--run-dir", "new", "--resume", str(path_of(trained, step))], prog="test").optim.lr for step in (9, 12)
    )
    assert (before, after) == (3e-3, 1e-4)


def test_the_settings_are_those_of_the_checkpoint_that_is_whole_not_of_a_damaged_one_after_it(
    trained, settings, flags, capsys
):
    """Before the processes meet, names and sizes are looked at; the damage is found later, and the settings with it."""
    assert pretrain(settings("first", resume="latest", **(QUICK | {"train__steps": 12}), optim__lr=1e-4))
    flip(path_of(trained, 12) / "model.safetensors")
    again = partial(parse, ["--run-dir", str(trained), "--resume", "latest"], prog="test")
    assert again().optim.lr == 1e-4
    capsys.readouterr()
    assert pretrain(again(), again)
    out = capsys.readouterr().out
    assert "passing over a checkpoint" in out and "model.safetensors has changed" in out
    assert "optim.lr: 0.003 -> 0.0001; give the flag" in out
    assert load(trained / "config.yaml").optim.lr == 3e-3
    lr = {record["step"]: record["train/lr"] for record in metrics.read(trained) if "train/lr" in record}
    assert max(lr) == 9


def test_a_file_gives_what_it_says_and_the_run_the_rest(trained, tmp_path):
    file = tmp_path / "more.yaml"
    file.write_text("optim: {clip: 0.5}\ntrain: {tokens: 640}\n")
    found = parse(["--run-dir", str(trained), "--resume", "auto", "--config", str(file)], prog="test")
    assert (found.optim.clip, found.optim.lr) == (0.5, 3e-3)
    assert (found.train.tokens, found.train.steps, found.train.micro_batch) == (640, None, 4)


def test_an_older_checkpoint_has_its_runs_settings_and_one_without_any_is_refused_by_name(trained, tmp_path, settings):
    older = path_of(trained, 6)
    (older / "config.yaml").unlink()
    stored = json.loads((older / "manifest.json").read_text())
    del stored["files"]["config.yaml"]
    (older / "manifest.json").write_text(json.dumps(stored))
    words = ["--run-dir", str(tmp_path / "new"), "--resume"]
    assert parse([*words, str(older)], prog="test").normalization.scheme == "mix"
    alone = shutil.copytree(older, tmp_path / "alone" / "step-000006")
    with pytest.raises(RunError, match=r"--resume .*alone/step-000006: there is no config.yaml"):
        parse([*words, str(alone)], prog="test")
    with pytest.raises(RunError, match=r"alone/step-000006: there is no config.yaml"):
        pretrain(settings("new", resume=path_of(trained, 9)), lambda **look: settings("new", resume=alone))


@pytest.mark.parametrize("named", ["run", "checkpoint", "latest"])
def test_another_scheme_is_refused_however_the_checkpoint_is_named(trained, flags, settings, named):
    what = {"run": trained, "checkpoint": path_of(trained, 9), "latest": "latest"}[named]
    where = "first" if named == "latest" else "new"
    with pytest.raises(ConfigError, match=r"--normalization.scheme: cannot change .*mix -> lns"):
        pretrain(settings(where, resume=what, normalization__scheme="lns", **QUICK))
    assert not (trained.parent / "new").exists()


def test_a_model_that_does_not_have_the_scheme_of_its_settings_is_refused(trained, settings):
    """The settings and the model of a checkpoint disagree: someone has put them together."""
    for place in (trained, *(path_of(trained, step) for step in all_steps(trained))):
        text = (place / "config.yaml").read_text().replace("scheme: mix", "scheme: lns")
        (place / "config.yaml").write_text(text)
        if place != trained:
            described = manifest.read(place)
            (place / "manifest.json").unlink()
            manifest.write(place, described)
    with pytest.raises(ConfigError, match=r"--normalization.scheme lns: the model in .* has .*mix"):
        pretrain(settings("first", resume="latest", normalization__scheme="lns", optim__lr=3e-3, **QUICK))


def test_a_branch_says_so_in_config_environment_and_report(trained, tmp_path):
    branch = tmp_path / "branch"
    words = ["--run-dir", str(branch), "--resume", str(path_of(trained, 6)), "--optim.lr", "1e-4"]
    assert pretrain(parse(words, prog="test"))
    first = json.loads((branch / "environment.json").read_text())["resumed"][0]
    assert first["step"] == 6 and first["changed"] == ["optim.lr: 0.003 -> 0.0001"]
    assert first["branch"] == f"{trained} at step 6"
    text = (branch / "config.yaml").read_text()
    assert f"# after step 6: branch of {trained} at step 6\n# after step 6: optim.lr: 0.003 -> 0.0001\n" in text
    notices = read_report(branch).notices
    assert (
        f"After step 6: branch of {trained} at step 6" in notices
        and "After step 6: optim.lr: 0.003 -> 0.0001" in notices
    )

    # Read back, the file is the same branch; a branch that goes on stays one.
    again = parse(["--config", str(branch / "config.yaml"), "--run-dir", str(tmp_path / "again")], prog="test")
    assert again.optim.lr == 1e-4
    assert pretrain(again)
    assert losses(tmp_path / "again") == losses(branch) and list(losses(branch)) == [7, 8, 9]
    assert pretrain(parse(["--run-dir", str(branch), "--resume", "latest", "--train.steps", "12"], prog="test"))
    assert load(branch / "config.yaml").resume == str(path_of(trained, 6))
    assert "After step 9: train.steps: 9 -> 12" in read_report(branch).notices


def test_a_changed_setting_is_told_with_its_step_until_that_course_is_left(trained, settings):
    longer = QUICK | {"train__steps": 12}
    assert pretrain(settings("first", normalization__scheme="mix", resume="latest", optim__lr=1e-4, **longer))
    told = read_report(trained)
    assert told.config["after step 9"] == "optim.lr: 0.003 -> 0.0001; train.steps: 9 -> 12"
    assert "After step 9: optim.lr: 0.003 -> 0.0001" in told.notices
    back = settings("first", normalization__scheme="mix", resume=path_of(trained, 6), optim__lr=3e-3, **QUICK)
    assert pretrain(back)
    assert not any(notice.startswith("After step") for notice in read_report(trained).notices)
    assert not any(key.startswith("after step") for key in read_report(trained).config)


def test_a_checkpoint_set_aside_is_gone_on_with_as_a_branch_only(trained, settings):
    aside = copy_aside(trained)
    before = contents(trained)
    with pytest.raises(RunError, match="was set aside .* in another --run-dir"):
        pretrain(settings("first", resume=aside, normalization__scheme="mix", optim__lr=3e-3, **QUICK))
    assert contents(trained) == before


def older_format(checkpoint: Path) -> None:
    file = checkpoint / "manifest.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"format": 1}))


UNREADABLE = {
    "another format": (older_format, "written by an older depthlab"),
    "damage": (lambda checkpoint: flip(checkpoint / "model.safetensors"), "model.safetensors has changed"),
    "damaged state": (lambda checkpoint: flip(next(checkpoint.glob("state/*.pt"))), ".pt has changed"),
    "no manifest": (lambda checkpoint: (checkpoint / "manifest.json").unlink(), "is incomplete"),
}


@pytest.mark.parametrize("kind", UNREADABLE)
def test_auto_stops_where_there_are_checkpoints_that_it_cannot_read_and_moves_nothing(trained, settings, kind):
    spoil, told = UNREADABLE[kind]
    for step in all_steps(trained):
        spoil(path_of(trained, step))
    before = contents(trained)
    for word in ("auto", "latest"):
        with pytest.raises(RunError, match=f"--resume {word}: .*{told}.*Nothing was changed"):
            pretrain(dataclasses.replace(load(trained / "config.yaml"), resume=word))
    assert contents(trained) == before


def test_auto_stops_at_a_disk_that_cannot_be_read(trained, settings, monkeypatch):
    def broken(path):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(manifest, "file_hash", broken)
    before = contents(trained)
    with pytest.raises(RunError, match=r"--resume auto: none of the 3 .*Input/output error"):
        pretrain(dataclasses.replace(load(trained / "config.yaml"), resume="auto"))
    assert contents(trained) == before


def test_auto_stops_at_a_folder_of_checkpoints_that_is_not_mounted(trained):
    shutil.rmtree(trained / "checkpoints")
    (trained / "checkpoints").symlink_to(trained / "not mounted")
    with pytest.raises(RunError, match="is a link to .*not mounted"):
        pretrain(dataclasses.replace(load(trained / "config.yaml"), resume="auto"))


def test_auto_starts_anew_where_nothing_was_saved_yet(settings, capsys):
    run = settings(resume="auto", **QUICK)
    (Path(run.run_dir) / "checkpoints" / ".step-000003.partial").mkdir(parents=True)
    (Path(run.run_dir) / "config.yaml").write_text("train: {steps: 9}\n")
    (Path(run.run_dir) / "metrics.jsonl").write_text('{"step": 1, "train/loss": 9.0}\n')
    assert pretrain(run)
    assert "no checkpoint in" in capsys.readouterr().out
    assert list(losses(Path(run.run_dir))) == list(range(1, 10))


def test_what_is_set_aside_takes_its_diagnostics_with_it(settings, capsys):
    common = QUICK | {"checkpoint__diagnose": "cheap", "normalization__scheme": "mix"}
    run = settings(**common)
    assert pretrain(run)
    run_dir = Path(run.run_dir)
    assert read_report(run_dir).steps == [3, 6, 9]
    left = {
        name: (run_dir / "diagnostics" / name).read_bytes() for name in ("step-000006.json", "step-000009.safetensors")
    }
    other = settings(resume=path_of(run_dir, 3), optim__lr=1e-4, **(common | {"checkpoint__every": 100}))
    assert pretrain(other)
    report = read_report(run_dir)
    assert report.steps == [3, 9] and not any("left out" in notice for notice in report.notices)
    for name, content in left.items():
        assert (run_dir / "diagnostics" / "superseded" / name).read_bytes() == content
    # What an older depthlab left lying there is not shown, and told.
    for path in (run_dir / "diagnostics" / "superseded").iterdir():
        shutil.copy(path, run_dir / "diagnostics" / path.name)
    report = read_report(run_dir)
    assert report.steps == [3]
    for step in (6, 9):
        assert any(f"record of step {step} is left out" in notice for notice in report.notices)

    capsys.readouterr()
    assert pretrain(settings(resume=path_of(run_dir, 3), optim__lr=1e-5, **(common | {"checkpoint__every": 100})))
    assert "superseded holds" in capsys.readouterr().out
    assert (run_dir / "diagnostics" / "superseded-2" / "step-000009.json").is_file()


def test_signals_are_given_back_to_whoever_had_them(settings):
    mine = {number: (lambda *_: None) for number in SIGNALS}
    before = {number: signal.signal(number, handler) for number, handler in mine.items()}
    try:
        assert pretrain(settings(train__steps=2, eval__every=0))
        with pytest.raises(RunError, match="never overwritten"):
            pretrain(settings(train__steps=2))
        assert {number: signal.getsignal(number) for number in SIGNALS} == mine
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_a_run_in_a_thread_trains_and_the_stop_file_stops_it(settings, monkeypatch):
    run = settings(**(QUICK | {"train__steps": 5000, "checkpoint__every": 0}))
    ask, done = StopRequest.__bool__, []

    def asked(self) -> bool:
        if len(losses(Path(run.run_dir))) == 2:
            (Path(run.run_dir) / "stop").touch()
        return ask(self)

    monkeypatch.setattr(StopRequest, "__bool__", asked)
    thread = threading.Thread(target=lambda: done.append(pretrain(run)))
    thread.start()
    thread.join(120)
    assert done == [False]
    assert all_steps(Path(run.run_dir)) == [max(losses(Path(run.run_dir)))]
