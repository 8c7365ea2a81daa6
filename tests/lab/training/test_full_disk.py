"""Standard output, metrics.jsonl and folders that take nothing: no checkpoint is lost, and one line tells it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lab import modes
from lab.errors import RunError


def run_into(output: object, words: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "lab.cli", "pretrain", *words], stdout=output, stderr=subprocess.PIPE, text=True
    )


def test_a_full_console_costs_no_step(flags, tmp_path):
    with Path("/dev/full").open("w") as full:
        done = run_into(full, flags(train__steps=2))
    assert done.returncode == 0, done.stderr
    assert "standard output takes no more (No space left on device)" in done.stderr and "Traceback" not in done.stderr
    assert (tmp_path / "run" / "checkpoints" / "step-000002").is_dir()


def test_a_closed_pipe_costs_no_step_and_files_have_the_modes_of_the_umask(flags, tmp_path):
    reading, writing = os.pipe()
    os.close(reading)
    done = run_into(writing, flags(train__steps=2))
    os.close(writing)
    assert done.returncode == 0, done.stderr
    assert "standard output takes no more" in done.stderr and "Traceback" not in done.stderr
    records = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert records[-1]["step"] == 2
    files = [path for path in (tmp_path / "run").rglob("*") if path.is_file()]
    umask = os.umask(0)
    os.umask(umask)
    assert {oct(path.stat().st_mode & 0o777) for path in files if path.suffix == ".safetensors"} == {
        oct(0o666 & ~umask)
    }


def test_a_place_below_a_file_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="is a file, no folder"):
        modes.check_place("--out", tmp_path / "file" / "x")


def test_a_place_without_permission_is_refused(tmp_path, monkeypatch):
    folder = tmp_path / "closed"
    folder.mkdir(mode=0o555)
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write anywhere
    with pytest.raises(RunError, match="no permission to write in"):
        modes.check_place("--out", folder / "x")
