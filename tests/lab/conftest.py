from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from accelerate.state import AcceleratorState

from lab.config.sections import RunConfig
from lab.training.start import parse

REPOSITORY = Path(__file__).parents[2]
OUTPUT = "output.txt"


@pytest.fixture(autouse=True)
def _fresh_process_state() -> None:
    # Two test processes on two cores: OpenMP threads that wait for each other would spin.
    torch.set_num_threads(1)
    # Accelerate remembers the first precision of a process; each test is a run of its own.
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture(scope="session")
def corpus_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """80 documents of English and code as JSON Lines."""
    sources = sorted(path for path in Path(json.__file__).parent.parent.glob("*.py") if path.stat().st_size < 9000)
    file = tmp_path_factory.mktemp("text") / "documents.jsonl"
    texts = [path.read_text(encoding="utf-8") for path in sources[:80]]
    file.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts if text), encoding="utf-8")
    return file


@pytest.fixture(scope="session")
def cache_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def flags(corpus_file: Path, cache_dir: Path, tmp_path: Path) -> Callable[..., list[str]]:
    """Flags of a run that takes seconds: 3 layers of width 32, 4 x 16 tokens a step; keywords override."""

    def make(name: str = "run", **overrides: Any) -> list[str]:
        settings: dict[str, Any] = {
            "run-dir": tmp_path / name,
            "model.preset": "tiny-3x32",
            "data.source": corpus_file,
            "data.tokenizer": "bpe:400",
            "data.block-length": 16,
            "data.heldout-fraction": 0.2,
            "data.cache-dir": cache_dir,
            "train.steps": 6,
            "train.micro-batch": 4,
            "train.global-batch": 4,
            "eval.every": 3,
            "eval.blocks": 37,
            "monitors.every": 1,
            "checkpoint.every": 3,
        }
        settings |= {key.replace("__", ".").replace("_", "-"): value for key, value in overrides.items()}
        words: list[str] = []
        for key, value in settings.items():
            if isinstance(value, bool):
                section, _, field = key.rpartition(".")
                words.append(f"--{key}" if value else f"--{section}.no-{field}")
            else:
                words += [f"--{key}", str(value)]
        return words

    return make


@pytest.fixture
def settings(flags: Callable[..., list[str]]) -> Callable[..., RunConfig]:
    """The same as a checked `RunConfig`."""
    return lambda name="run", **overrides: parse(flags(name, **overrides), prog="test")


def environment(**variables: str) -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", **variables}


@pytest.fixture
def depthlab() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run the command line in a process of its own."""

    def run(*words: str, **options: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "lab.cli", *map(str, words)],
            env=environment(),
            capture_output=True,
            text=True,
            timeout=300,
            **options,
        )

    return run


@pytest.fixture
def start() -> Any:
    """Start the command line in a process of its own, and end it with the test if it still runs."""
    started: list[subprocess.Popen[str]] = []

    def run(*words: str, program: tuple[str, ...] = ("-m", "lab.cli")) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, *program, *map(str, words)],
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        started.append(process)
        return process

    yield run
    for process in started:
        if process.poll() is None:
            process.kill()
        process.wait()


PRESETS = REPOSITORY / "launch" / "presets"


def launch_command(
    processes: int, words: Sequence[Any], *, preset: str = "ddp", program: Path | None = None
) -> list[str]:
    """`accelerate launch lab/pretrain.py` with one of the presets."""
    launcher = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(PRESETS / f"{preset}.yaml")]
    launcher += ["--num_processes", str(processes), str(program or REPOSITORY / "lab" / "pretrain.py")]
    return [*launcher, *map(str, words)]


@pytest.fixture
def launch() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run with several CPU processes over gloo: DDP, or another preset."""

    def run(processes: int, *words: Any, **options: Any) -> subprocess.CompletedProcess[str]:
        command = launch_command(processes, words, **options)
        return subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=550)

    return run


@pytest.fixture
def launched(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start several processes in a session of their own, with the output in `OUTPUT`; it ends with the test."""
    started: list[subprocess.Popen[str]] = []

    def run(processes: int, *words: Any, **options: Any) -> subprocess.Popen[str]:
        command = launch_command(processes, words, **options)
        with (tmp_path / OUTPUT).open("w") as file:
            process = subprocess.Popen(
                command, env=environment(), stdout=file, stderr=subprocess.STDOUT, text=True, start_new_session=True
            )
        started.append(process)
        return process

    yield run
    for process in started:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def ranks_of(launcher: subprocess.Popen[str]) -> dict[int, psutil.Process]:
    """The processes that train, by rank."""
    ranks = {}
    for child in psutil.Process(launcher.pid).children():
        if (rank := child.environ().get("RANK")) is not None:
            ranks[int(rank)] = child
    return ranks
