from __future__ import annotations

import json
import os
import random
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from lab.runfolder import metrics

REPOSITORY = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(REPOSITORY)}


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("launch")


@pytest.fixture(scope="session")
def flags(folder: Path) -> Callable[..., list[str]]:
    """Flags of a run that takes seconds: 3 layers of width 32, 4 steps of 8 x 16 tokens; keywords override."""
    sources = sorted(path for path in Path(json.__file__).parent.parent.glob("*.py") if path.stat().st_size < 9000)
    file = folder / "documents.jsonl"
    file.write_text("".join(json.dumps({"text": path.read_text(encoding="utf-8")}) + "\n" for path in sources[:80]))

    def make(run_dir: Path, **overrides: Any) -> list[str]:
        settings: dict[str, Any] = {
            "run-dir": run_dir,
            "model.preset": "tiny-3x32",
            "data.source": file,
            "data.tokenizer": "bpe:400",
            "data.block-length": 16,
            "data.heldout-fraction": 0.2,
            "data.cache-dir": folder / "cache",
            "train.steps": 4,
            "train.micro-batch": 2,
            "train.global-batch": 8,
            "eval.blocks": 21,
            "monitors.every": 0,
        }
        settings |= {key.replace("__", ".").replace("_", "-"): value for key, value in overrides.items()}
        return [word for key, value in settings.items() for word in (f"--{key}", str(value))]

    return make


def run(*words: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    """A command in a process of its own, with its outputs."""
    settings: dict[str, Any] = {"env": ENVIRONMENT, "capture_output": True, "text": True, "timeout": 550, **options}
    return subprocess.run([sys.executable, *map(str, words)], **settings)


@pytest.fixture
def start() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start a command in a process of its own, and end it with the test if it still runs."""
    started: list[subprocess.Popen[str]] = []

    def begin(*words: str | Path, **options: Any) -> subprocess.Popen[str]:
        settings: dict[str, Any] = {"env": ENVIRONMENT, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        process = subprocess.Popen([sys.executable, *map(str, words)], text=True, **{**settings, **options})
        started.append(process)
        return process

    yield begin
    for process in started:
        if process.poll() is None:
            process.kill()
        process.wait()


def free_port(among: Sequence[int] = (0,)) -> int:
    """A port that nobody listens at; 0 is one that the system chooses."""
    for port in random.sample(among, len(among)):
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return probe.getsockname()[1]
    raise OSError("every port is taken")


def losses(run_dir: Path) -> list[float]:
    """Training losses of a run, in the order of its steps."""
    return [record["train/loss"] for record in metrics.read(run_dir) if "train/loss" in record]


@pytest.fixture(scope="session")
def reference(folder: Path, flags: Callable[..., list[str]]) -> list[float]:
    """The losses of one process without any launcher."""
    done = run("-m", "lab.pretrain", *flags(folder / "one"))
    assert done.returncode == 0, done.stderr
    return losses(folder / "one")
