"""Standard output that takes nothing, a pipe that was closed or a full disk: every command ends in order."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from evaluators import command
from lab import cli
from lab.cli import EXIT_PIPE
from lab.training.run import pretrain
from tests.lab.conftest import environment
from tests.lab.test_permissions import DIAGNOSE, JUDGE, PROGRAM, run_all

HELPS = [["--help"], ["--version"], *[[name, "--help"] for name in cli.COMMANDS]]
HELPS += [["judge", name, "--help"] for name in command.COMMANDS]


@pytest.mark.parametrize(
    ("output", "ends", "said"),
    [("closed", EXIT_PIPE, ""), ("/dev/full", 1, "error: output: No space left on device; make room on its disk\n")],
)
def test_no_command_ends_in_a_traceback(
    settings: Callable[..., Any], tmp_path: Path, output: str, ends: int, said: str
) -> None:
    run = settings(train__steps=2, checkpoint__every=2, eval__every=0, monitors__every=0)
    assert pretrain(run)
    data = tmp_path / "pairs.jsonl"
    sample = {"query": "q", "response1": "a", "response2": "b", "label": "1", "system1": "x", "system2": "y"}
    data.write_text("".join(json.dumps(sample | {"id": str(number)}) + "\n" for number in range(20)))
    judged, weights = tmp_path / "judged", Path(run.run_dir) / "checkpoints" / "step-000002"
    ((code, _, error),) = run_all([[*JUDGE, "--data", data, "--out", judged]])
    assert code == 0, error
    places = iter(tmp_path / f"out{number}" for number in range(20))
    commands: list[list[Any]] = [
        *HELPS,
        ["describe", weights],
        [*DIAGNOSE, run.run_dir, "--out", next(places)],
        [*DIAGNOSE, "--latest", run.run_dir, "--show", "--out", next(places)],
        *[[name, weights, "--out", next(places)] for name in ("export", "convert")],
        ["prune", weights, "--layers", "1", "--out", next(places)],
        ["report", run.run_dir, "--out", next(places)],
        ["compare", run.run_dir, shutil.copytree(run.run_dir, next(places))],
        ["launch", "--dry-run", "--preset", "single", "--", "--run-dir", next(places)],
        [*JUDGE, "--data", data, "--out", next(places)],
        [*JUDGE, "--data", data, "--out", next(places), "--dry-run"],
        *[["judge", name, judged] for name in ("metrics", "leaderboard")],
        ["judge", "show", "--out", judged],
        ["judge", "report", judged, "--out", next(places)],
        ["judge", "annotate", judged, "--summary"],
    ]
    done = subprocess.run(
        [sys.executable, str(PROGRAM), output],
        input=json.dumps([[str(word) for word in words] for words in commands]),
        env=environment(PYTHONPATH=os.pathsep.join([str(PROGRAM.parents[2]), *sys.path[1:]])),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    for words, (code, _, errors) in zip(commands, json.loads(done.stdout), strict=True):
        # A dry run tells its estimate on standard error before.
        told = [line for line in errors.splitlines() if words[1:2] != ["--dry-run"] or line.startswith("error: ")]
        assert (code, told) == (ends, said.splitlines()), (words, errors)
        assert "Traceback" not in errors
