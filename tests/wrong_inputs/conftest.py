"""A folder with a run, a judge's run and files of every wrong kind, made once; and what a command answers there."""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import huggingface_hub.constants
import pytest
import torch
from accelerate.state import AcceleratorState

from lab import cli
from tests.wrong_inputs.world import FLAGS, build

SUCCESS = re.compile(r"^(wrote|next:|results|report) ", re.MULTILINE)


class Answer(NamedTuple):
    code: int
    errors: list[str]
    """Lines of standard error but warnings."""
    output: str


def answer(words: list[str]) -> Answer:
    """What `depthlab` answers in this process."""
    out, errors = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors):
        try:
            code = cli.main(words)
        except SystemExit as end:
            code = int(end.code or 0)
    lines = [line for line in errors.getvalue().splitlines() if not line.startswith("warning:")]
    return Answer(code, lines, out.getvalue())


@pytest.fixture(scope="package")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder; it is only read, which every row checks."""
    torch.set_num_threads(1)
    variables = {"XDG_CACHE_HOME": str(tmp_path_factory.mktemp("cache")), "COLUMNS": "100"}
    folder = tmp_path_factory.mktemp("wrong") / "world"
    with (
        mock.patch.dict(os.environ, variables),
        mock.patch.object(huggingface_hub.constants, "HF_HUB_OFFLINE", True),
    ):
        build(folder)
        yield folder


def listing(folder: Path) -> dict[str, tuple[int, int]]:
    found = [(path, path.lstat()) for path in folder.rglob("*")]
    return {str(path): (0, 0) if path.is_dir() else (stat.st_size, stat.st_mtime_ns) for path, stat in found}


@pytest.fixture
def refused(world: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Check that words are refused there: exit code, one line with every text that it must hold, nothing left."""

    def check(words: str, code: int, told: str, **variables: str) -> None:
        monkeypatch.chdir(world)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        before = listing(world)
        found = answer([word.replace("\\n", "\n") for word in shlex.split(words.replace("$RUN", FLAGS))])
        AcceleratorState._reset_state(reset_partial_state=True)
        assert len(found.errors) == 1 and found.errors[0].startswith("error: "), found.errors
        for text in told.split(" | "):
            assert text in found.errors[0]
        assert found.code == code
        assert not SUCCESS.search(found.output)
        assert listing(world) == before

    return check
