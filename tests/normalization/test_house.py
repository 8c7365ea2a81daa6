"""The modules of `normalization` import one another in one direction only."""

from __future__ import annotations

import ast
from pathlib import Path

import normalization
from tests.house import arrows, circles, upward

PACKAGE = Path(normalization.__file__).parent
ARROWS = arrows(PACKAGE)

FLOORS = (
    ("plan", "weights", "guard"),
    ("families", "schemes"),
    ("layers", "specification"),
    ("auto",),
    ("api",),
    ("folding", "initialization", "remote"),
)


def asks_the_package(text: str) -> bool:
    """Whether a module takes a name from `normalization` itself, whose own file imports nearly all of them."""
    return any(
        (isinstance(node, ast.ImportFrom) and node.module == "normalization")
        or (isinstance(node, ast.ImportFrom) and node.level > 0 and node.module is None)
        or (isinstance(node, ast.Import) and any(alias.name == "normalization" for alias in node.names))
        for node in ast.walk(ast.parse(text))
    )


def test_no_circle() -> None:
    assert len(ARROWS) > 15 and ARROWS["normalization.api"] > {"normalization.auto", "normalization.schemes"}
    assert circles(ARROWS) == []
    for path in PACKAGE.rglob("*.py"):
        assert not asks_the_package(path.read_text(encoding="utf-8")), path.name
    assert asks_the_package("def late():\n    from normalization import schemes")
    assert asks_the_package("import normalization") and not asks_the_package("from normalization.plan import LayerPlan")


def test_nothing_runs_up() -> None:
    assert upward(ARROWS, FLOORS) == []
