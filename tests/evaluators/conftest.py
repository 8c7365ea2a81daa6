from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

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


@pytest.fixture
def judge(environment: dict[str, str], tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """`depthlab judge ...` as a process of its own, in the test's folder."""

    def run(*words: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "lab.cli", "judge", *map(str, words)]
        return subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=500)

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
