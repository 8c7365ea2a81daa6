from __future__ import annotations

import contextlib
import io
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import pytest

from lab import cli
from tests.evaluators.server import Server

ROOT = Path(__file__).parents[2]
KEY = "sk-very-secret-key-0123456789"


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        yield running


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Of child processes: this tree, a key, a cache of the test's own."""
    return os.environ | {
        "PYTHONPATH": str(ROOT),
        "OPENAI_API_KEY": KEY,
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "COLUMNS": "120",
    }


@dataclass(frozen=True)
class Done:
    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def judge(environment: dict[str, str], tmp_path: Path) -> Callable[..., Done]:
    """`depthlab judge ...` in the test's folder; in this process, because imports take most of a short run."""

    def run(*words: object) -> Done:
        out, errors = io.StringIO(), io.StringIO()
        with (
            mock.patch.dict(os.environ, environment, clear=True),
            contextlib.chdir(tmp_path),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(errors),
        ):
            try:
                code = cli.main(["judge", *map(str, words)])
            except SystemExit as end:
                code = int(end.code or 0)
        return Done(code, out.getvalue(), errors.getvalue())

    return run


def write_pairs(path: Path, count: int, **fields: object) -> Path:
    """A file of samples whose texts differ."""
    lines = []
    for number in range(count):
        line = {
            "id": f"s{number}",
            "query": f"question {number}?",
            "response1": f"first answer to {number}",
            "response2": f"second answer to {number}",
            **fields,
        }
        lines.append(json.dumps(line) + "\n")
    path.write_text("".join(lines))
    return path


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    return write_pairs(tmp_path / "pairs.jsonl", 4)


def records(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / "verdicts.jsonl").read_text().splitlines()]
