"""The modules of `normalization` import one another in one direction only."""

from __future__ import annotations

from pathlib import Path

import normalization
from tests.house import arrows, circles, upward

ARROWS = arrows(Path(normalization.__file__).parent)

FLOORS = (
    ("normalization.plan", "normalization.weights", "normalization.guard"),
    ("normalization.families", "normalization.schemes"),
    ("normalization.layers", "normalization.specification"),
    ("normalization.auto",),
    ("normalization.api",),
    ("normalization.folding", "normalization.initialization", "normalization.remote"),
    ("normalization",),
)


def test_no_circle() -> None:
    assert len(ARROWS) > 15 and ARROWS["normalization.api"] > {"normalization.auto", "normalization.schemes"}
    assert circles(ARROWS) == []


def test_nothing_runs_up() -> None:
    assert upward(ARROWS, FLOORS) == []


def test_a_circle_would_be_seen(tmp_path: Path) -> None:
    """Late imports, imports for typing, relative ones, and those that ask the package itself for one of its modules."""
    house = tmp_path / "house"
    (house / "attic").mkdir(parents=True)
    for name, text in {
        "__init__": "from house.api import call\n",
        "api": "def call():\n    from house import spec\n",
        "spec": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from .attic.box import Box\n",
        "attic/__init__": "",
        "attic/box": "from ..ground import floor\nfrom .. import api\n",
        "ground": "import json\n",
    }.items():
        (house / f"{name}.py").write_text(text)
    drawn = arrows(house)
    assert drawn["house.ground"] == set()
    assert drawn["house.attic.box"] == {"house", "house.ground", "house.api"}
    assert circles(drawn) == [["house", "house.api", "house.attic.box", "house.spec"]]
    floors = (("house.ground",), ("house.attic",), ("house.spec",), ("house.api",), ("house",))
    assert upward(drawn, floors) == [
        ("house.api", "house"),
        ("house.attic.box", "house"),
        ("house.attic.box", "house.api"),
    ]
