"""README's new scheme, word for word: one file and its equation in the oracle, and everything knows it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

import normalization
from normalization import schemes
from tests.normalization import oracle, tiny

ROOT = Path(__file__).parents[2]

EQUATION = """
def powers(x: Tensor, F: Map, N: Map, M: Map, l: int, L: int, power: float = 0.25) -> Tensor:
    return x + F(N(x) / l**power)


SCHEMES["powers"] = powers
"""


def example() -> tuple[str, str]:
    """The file that README's example says, and its text."""
    found = re.search(r"```python\n(# (normalization/schemes/\w+\.py)\n.*?)```", (ROOT / "README.md").read_text(), re.S)
    assert found, "README shows a scheme of its own"
    return found[2], found[1]


def rule(x: Tensor, F: Any, N: Any, M: Any, l: int, L: int, power: float = 0.25) -> Tensor:  # noqa: E741
    return x + F(N(x) / l**power)


@pytest.fixture
def powers(monkeypatch: pytest.MonkeyPatch) -> str:
    """The scheme, registered for one test."""
    monkeypatch.setattr(schemes, "_SCHEMES", dict(schemes._SCHEMES))
    exec(compile(example()[1], example()[0], "exec"), {"__name__": "normalization.schemes.powers"})
    return "powers"


@tiny.each_family
def test_it_works_in_every_family(tmp_path: Path, powers: str, family: str) -> None:
    for options in ({}, {"power": 0.7}):
        with tiny.all_float64():
            model = tiny.patched(family, powers, options, attention="eager").double()
            expected = oracle.logits(family, dict(model.state_dict()), model.config, tiny.tokens(), rule, **options)
            assert (tiny.logits(model) - expected).abs().max() < 1e-9
    model = tiny.patched(family, powers)
    model.save_pretrained(tmp_path)
    again = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert normalization.spec(again) == normalization.spec(model) and normalization.spec(model).options["power"] == 0.25
    assert torch.equal(tiny.exact_logits(again), tiny.exact_logits(model))


def test_it_says_what_it_is(powers: str) -> None:
    found = schemes.get(powers)
    assert found.source == "an idea of ours" and found.summary == "x + F(N(x)/l^power)."
    assert found.options["power"].help == "exponent of the layer's number"
    assert "powers" in schemes.names()


@pytest.mark.slow
def test_nothing_fails_on_the_way(tmp_path: Path) -> None:
    """In a copy of the project: the file put in place, the equation added, and every test that walks the schemes."""
    for name in ("normalization", "lab", "launch", "tests", "docs"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("README.md", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    path, text = example()
    (tmp_path / path).write_text(text, encoding="utf-8")
    with (tmp_path / "tests/normalization/oracle.py").open("a", encoding="utf-8") as file:
        file.write(EQUATION)

    def run(*words: str) -> str:
        environment = {**os.environ, "PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}
        done = subprocess.run(
            [sys.executable, *words], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
        return done.stdout

    assert "--normalization.power" in run("-m", "lab.cli", "pretrain", "--help")
    chosen = "(powers or test_schemes or test_documentation or test_settings) and not extension and not slow"
    done = run("-m", "pytest", "tests/normalization", "tests/lab", "-q", "-p", "no:cacheprovider", "-k", chosen)
    passed = re.search(r"(\d+) passed", done)
    assert passed and int(passed[1]) > 500, done[-2000:]
