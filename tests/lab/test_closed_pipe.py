"""Who reads the output, such as `head`, may go before it ends: no command says a word about it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lab.cli import EXIT_PIPE

ROOT = Path(__file__).parents[2]


def _read_one_line(*words: str, folder: Path) -> tuple[str, int, str]:
    command = [sys.executable, "-m", "lab.cli", *words]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(folder)}
    with subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        line = process.stdout.readline()
        process.stdout.close()
        return line, process.wait(), process.stderr.read()


@pytest.mark.parametrize("words", [("--help",), ("judge", "--help"), ("judge", "show", "--out", "r")])
def test_a_closed_pipe_ends_quietly(tmp_path: Path, words: tuple[str, ...]) -> None:
    if words[-1] == "r":
        lines = [{"query": str(n), "response1": "a", "response2": "b"} for n in range(1_500)]
        (tmp_path / "p.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        run = ("judge", "run", "--data", "p.jsonl", "--judge", "simulated:gap=1", "--preset", "single", "--no-cache")
        command = [sys.executable, "-m", "lab.cli", *run, "--out", "r"]
        subprocess.run(command, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}, check=True)
    line, code, said = _read_one_line(*words, folder=tmp_path)
    assert line and said == ""
    # What is short may be written before the reader goes.
    assert code == EXIT_PIPE if words[-1] == "r" else code in (0, EXIT_PIPE)


def test_a_terminal_that_knows_ascii_alone_gets_codes(tmp_path: Path) -> None:
    (tmp_path / "é.jsonl").write_text('{"query": "q", "response1": "a", "response2": "b"}\n')
    command = [sys.executable, "-m", "lab.cli", "judge", "run", "--data", "é.jsonl", "--judge", "simulated:gap=1"]
    ascii_only = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "ascii", "XDG_CACHE_HOME": str(tmp_path)}
    done = subprocess.run([*command, "--out", "r"], cwd=tmp_path, env=ascii_only, capture_output=True, text=True)
    assert done.returncode == 0 and "\\xe9.jsonl" in done.stdout, done.stderr
