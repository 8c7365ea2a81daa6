"""How `evaluators` is built: rooms on floors, imports that run down only, no circle, and what stays outside."""

from __future__ import annotations

import tomllib
from pathlib import Path

from tests.house import arrows, circles, outside, upward

HOUSE = Path(__file__).parents[2] / "evaluators"

FLOORS = [
    ["errors", "storing", "values", "models", "yaml_words"],
    ["written"],
    ["samples", "saying", "registry", "aggregation"],
    ["reading", "command_line"],
    ["messages", "network", "benchmarks"],
    ["presets", "prompts"],
    ["judges"],
    ["asking", "statistics"],
    ["questions", "metrics"],
    ["reviewers"],
    ["running"],
    ["showing"],
    ["commands"],
    ["command"],
]
"""Rooms from the ground up: each imports from lower floors alone."""


def test_imports_run_down():
    assert upward(arrows(HOUSE), FLOORS) == []


def test_no_module_imports_itself_through_others():
    assert circles(arrows(HOUSE)) == []


def test_judging_knows_nothing_of_training_and_models_are_loaded_late():
    """Frameworks are imported where they are used, so that `--help` and hosted judges wait for none."""
    packages = ("lab", "launch", "normalization", "torch", "transformers", "openai", "sklearn", "scipy")
    found = outside(HOUSE, packages)
    early = {(module, name) for module, uses in found.items() for name, at_once in uses.items() if at_once}
    assert early == set()
    ours = {module: set(uses) & set(packages[:5]) for module, uses in found.items()}
    assert {module: names for module, names in ours.items() if names} == {
        "evaluators.judges.hf": {"torch", "transformers"},
        "evaluators.commands.checkpoints": {"lab", "torch", "transformers"},
    }


def test_every_file_beside_the_code_is_packed():
    project = tomllib.loads((HOUSE.parent / "pyproject.toml").read_text())
    patterns = project["tool"]["setuptools"]["package-data"]["evaluators"]
    packed = {pattern: set(HOUSE.glob(pattern)) for pattern in patterns}
    assert [pattern for pattern, files in packed.items() if not files] == []
    beside = {path for path in HOUSE.rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc")}
    assert beside == set().union(*packed.values())
