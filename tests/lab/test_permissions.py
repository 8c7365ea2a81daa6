"""What this user may not read or write is told as that, by every command, in one line and before any work is done."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lab.training.run import pretrain
from tests.lab.conftest import environment

PROGRAM = Path(__file__).parent / "unprivileged.py"
DIAGNOSE = ["diagnose", "--only", "spectra", "--blocks", "1", "--device", "cpu"]
JUDGE = ["judge", "run", "--judge", "simulated:gap=1", "--preset", "single", "--no-cache"]


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """A folder whose contents can be closed, and are opened again for pytest to remove."""
    yield tmp_path
    for path in [tmp_path, *tmp_path.rglob("*")]:
        if path.is_dir():
            path.chmod(0o755)
    for path in tmp_path.rglob("*"):
        if path.is_dir():
            path.chmod(0o755)


def run_all(commands: list[list[Any]]) -> list[tuple[int, str, str]]:
    words = json.dumps([[str(word) for word in words] for words in commands])
    path = os.pathsep.join([str(PROGRAM.parents[2]), *sys.path[1:]])
    done = subprocess.run(
        [sys.executable, str(PROGRAM)], input=words, env=environment(PYTHONPATH=path), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return [(code, out, err) for code, out, err in json.loads(done.stdout)]


def refused(commands: list[list[Any]], *parts: str) -> None:
    for words, (code, _, said) in zip(commands, run_all(commands), strict=True):
        assert code in (1, 2), (words, said)
        (line,) = said.splitlines()
        assert line.startswith("error: ") and all(part in line for part in parts), (words, line)


def as_stock(checkpoint: Path, to: Path) -> Path:
    """A copy in which nothing says that it was made here."""
    names = shutil.ignore_patterns("manifest.json", "state", "trainer.json")
    return Path(shutil.copytree(checkpoint, to, ignore=names))


def loading(source: Path, out: Path, flags: Callable[..., list[str]]) -> list[list[Any]]:
    """Every command that reads weights."""
    return [
        ["describe", source],
        [*DIAGNOSE, source, "--out", out],
        ["export", source, "--out", out],
        ["convert", source, "--out", out],
        ["prune", source, "--layers", "1", "--out", out],
        ["pretrain", *flags("new"), "--model.checkpoint", source],
    ]


@pytest.fixture
def trained(settings: Callable[..., Any]) -> Path:
    run = settings(train__steps=2, checkpoint__every=1, eval__every=0, monitors__every=0)
    assert pretrain(run)
    return Path(run.run_dir)


def test_weights_that_may_not_be_read(trained: Path, place: Path, flags: Callable[..., list[str]]) -> None:
    newest = trained / "checkpoints" / "step-000002"
    stock = as_stock(newest, place / "stock")
    (stock / "model.safetensors").chmod(0)
    (newest / "model.safetensors").chmod(0)
    out = place / "out"
    resumed = [["pretrain", *flags("new"), "--resume", path] for path in (trained, newest)]
    resumed += [["pretrain", "--run-dir", trained, "--resume", word] for word in ("latest", "auto")]
    of_run = [words for words in loading(trained, out, flags) if words[0] != "diagnose"]
    named = [*loading(newest, out, flags), *of_run, [*DIAGNOSE, "--latest", trained], *resumed]
    # One that was passed over would take the run back by a step.
    refused(named, "step-000002 cannot be read: model.safetensors: Permission denied; ask for the permission")
    (trained / "checkpoints" / "step-000001" / "model.safetensors").chmod(0)
    refused([[*DIAGNOSE, trained, "--out", out]], "cannot be read: model.safetensors: Permission denied")
    refused(loading(stock, out, flags), "stock/model.safetensors: no permission to read it")
    assert not out.exists() and not (place / "new").exists()


def test_folders_that_may_not_be_read(trained: Path, place: Path, flags: Callable[..., list[str]]) -> None:
    newest = trained / "checkpoints" / "step-000002"
    for closed, named in ((newest, newest), (newest.parent, trained), (trained, trained)):
        closed.chmod(0)
        refused(loading(named, place / "out", flags), f"{closed}", "Permission denied")


def test_files_that_libraries_would_take_for_absent(
    trained: Path, place: Path, flags: Callable[..., list[str]]
) -> None:
    commands: list[list[Any]] = []
    for name in ("config.json", "tokenizer.json"):
        stock = as_stock(trained / "checkpoints" / "step-000002", place / Path(name).stem)
        (stock / name).chmod(0)
        commands += [*loading(stock, place / "out", flags), ["pretrain", *flags("new", data__tokenizer=stock)]]
    refused(commands, ".json: no permission to read it")


def test_places_that_may_not_be_written(trained: Path, place: Path, flags: Callable[..., list[str]]) -> None:
    closed, file = place / "closed", place / "file"
    (place / "pairs.jsonl").write_text('{"query": "q", "response1": "a", "response2": "b"}\n')
    closed.mkdir(mode=0o555)
    file.touch()
    prompts, weights = place / "prompts.jsonl", trained / "checkpoints" / "step-000002"
    prompts.write_text('{"query": "q"}\n')
    for out, why in ((closed / "x", "ermission"), (file / "x", "file")):
        commands = [
            *loading(trained, out, flags)[1:5],
            ["report", trained, "--out", out],
            ["pretrain", *flags(), "--run-dir", out],
            ["demo", "--out", out],
        ]
        refused(commands, f"{out}: ", why, "name another place")
        judged = [
            [*JUDGE, "--data", place / "pairs.jsonl", "--out", out],
            ["judge", "pairs", *JUDGE[2:4], "--a", weights, "--b", weights, "--prompts", prompts, "--out", out],
        ]
        refused(judged, f"--out {out}")
    assert list(closed.iterdir()) == [] and not (place / "report.html").exists()


def test_data_that_may_not_be_read(place: Path, flags: Callable[..., list[str]], corpus_file: Path) -> None:
    for name in ("open", "shut"):
        (place / name).mkdir()
        shutil.copy(corpus_file, place / name / "d.jsonl")
    (place / "shut").chmod(0)
    yaml, file = place / "run.yaml", place / "f.jsonl"
    for path in (yaml, file):
        path.touch(mode=0)
    sources = [place / "shut", place / "shut" / "d.jsonl", place / "shut" / "*.jsonl", place / "s*" / "d.jsonl", file]
    refused(
        [["pretrain", *flags(data__source=source, data__tokenizer="bpe:300")] for source in sources],
        "cannot be read: Permission denied; give this user the right to read it",
    )
    refused([["pretrain", "--config", yaml], [*JUDGE, "--data", file, "--out", place / "j"]], "Permission denied")
    # A pattern that finds files elsewhere says what it could not look into.
    ((code, out, said),) = run_all([["pretrain", *flags(data__source=place / "**" / "*.jsonl", train__steps=1)]])
    assert code == 1 and "f.jsonl: cannot be read" in said
    file.unlink()
    ((code, out, said),) = run_all([["pretrain", *flags(data__source=place / "**" / "d.jsonl", train__steps=1)]])
    assert code == 0, said
    assert "documents skipped: 1 folder without permission to read it (first in shut)" in out


def test_a_cache_that_another_user_keeps_to_himself(place: Path, flags: Callable[..., list[str]]) -> None:
    cache = place / "cache"
    words = ["pretrain", *flags("a", data__cache_dir=cache, train__steps=1)]
    ((code, _, said),) = run_all([words])
    assert code == 0, said
    again = ["pretrain", *flags("b", data__cache_dir=cache, train__steps=1)]
    for path in cache.rglob("meta.json"):
        path.chmod(0)
    refused([again], f"cannot read the data cache {cache}", "Choose another place with --data.cache-dir")
    for path in cache.iterdir():
        path.chmod(0)
    refused([again], f"cannot read the data cache {cache}", "Choose another place with --data.cache-dir")
    assert not (place / "b").exists()
