from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARK = Path(__file__).parents[3] / "benchmarks" / "report.py"


@pytest.fixture(scope="session")
def made_up() -> ModuleType:
    """Runs and records of made-up values, as the benchmark writes them."""
    specification = importlib.util.spec_from_file_location("report_benchmark", BENCHMARK)
    assert specification is not None and specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.fixture
def make_run(made_up: ModuleType, tmp_path: Path) -> Callable[..., Path]:
    return lambda name, **how: made_up.run(tmp_path / name, **how)
