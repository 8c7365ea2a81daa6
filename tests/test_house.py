"""The tool that draws a package's imports, on small packages made for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.house import arrows, circles, outside, rooms, upward


def package(tmp_path: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = tmp_path / "pack" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        (path.parent / "__init__.py").touch()
    return tmp_path / "pack"


@pytest.mark.parametrize(
    "statement, target",
    [
        ("import pack.low.b", "pack.low.b"),
        ("import pack.low.b as it, os", "pack.low.b"),
        ("from pack.low import b", "pack.low.b"),
        ("from pack.low.b import thing", "pack.low.b"),
        ("from pack.low.b import *", "pack.low.b"),
        ("from pack.low import thing", "pack.low"),
        ("from pack import low", "pack.low"),
        ("from . import other", "pack.high.other"),
        ("from .other import thing", "pack.high.other"),
        ("from ..low import b", "pack.low.b"),
        ("from ..low.b import thing", "pack.low.b"),
        ("from .. import low", "pack.low"),
        ("def f():\n    from pack.low import b", "pack.low.b"),
        ("class C:\n    async def f(self):\n        import pack.low.b", "pack.low.b"),
        ("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from pack.low import b", "pack.low.b"),
        ("try:\n    import pack.low.b\nexcept ImportError:\n    pass", "pack.low.b"),
        ("import importlib\nimportlib.import_module('pack.low.b')", "pack.low.b"),
        ("TABLE = {'b': ('pack.low.b', 'text')}", "pack.low.b"),
    ],
)
def test_every_way_to_import_is_an_arrow(tmp_path, statement, target):
    files = {"high/a.py": statement, "high/other.py": "", "low/b.py": "thing = 1"}
    assert arrows(package(tmp_path, files))["pack.high.a"] == {target}


@pytest.mark.parametrize(
    "statement", ["import os", "import package.low", "'pack'", "'pack.low.nothing'", "'''About pack.low.b.'''", "b = 1"]
)
def test_what_is_no_import_of_the_package_is_no_arrow(tmp_path, statement):
    assert arrows(package(tmp_path, {"high/a.py": statement, "low/b.py": ""}))["pack.high.a"] == set()


def test_a_face_imports_by_its_own_name_and_relatively(tmp_path):
    house = package(tmp_path, {"low/b.py": "", "low/c.py": "import pack.low.c"})
    (house / "low" / "__init__.py").write_text("from .b import thing\nfrom pack.low import c")
    found = arrows(house)
    assert found["pack.low"] == {"pack.low.b", "pack.low.c"} and found["pack.low.c"] == set()


def test_circles_are_found_whole_and_once():
    drawn = {"a": {"b"}, "b": {"c"}, "c": {"a", "d"}, "d": {"e"}, "e": {"d"}, "f": {"a"}, "g": set()}
    assert circles(drawn) == [["a", "b", "c"], ["d", "e"]]
    assert circles({**drawn, "c": {"d"}, "e": set()}) == []


def test_a_circle_through_late_and_typing_imports_is_one(tmp_path):
    late = "def f():\n    from pack.b import thing"
    typing = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import pack.a"
    assert circles(arrows(package(tmp_path, {"a.py": late, "b.py": typing}))) == [["pack.a", "pack.b"]]


def test_arrows_must_run_down_the_floors():
    drawn = {"p": set(), "p.top.x": {"p.low", "p.top.y"}, "p.top.y": set(), "p.low": {"p.side"}, "p.side": {"p.top.y"}}
    assert rooms(drawn) == {"": set(), "top": {"low"}, "low": {"side"}, "side": {"top"}}
    assert upward(drawn, [["side"], ["low"], ["top"]]) == [("p.side", "p.top.y")]
    # Rooms on one floor do not know each other.
    assert upward(drawn, [["side", "low"], ["top"]]) == [("p.low", "p.side"), ("p.side", "p.top.y")]
    assert upward({"p": {"p.low"}, "p.low": set()}, [["low"]]) == []
    assert upward({"p": set(), "p.low": {"p"}}, [["low"]]) == [("p.low", "p")]


@pytest.mark.parametrize("floors", [[["low"]], [["low"], ["top", "attic"]], [["low"], ["low", "top"]]])
def test_every_room_stands_on_one_floor(floors):
    with pytest.raises(ValueError, match="floor"):
        upward({"p.top": set(), "p.low": set()}, floors)


def test_imports_from_outside_and_when_they_happen(tmp_path):
    files = {
        "early.py": "import torch.nn\nclass C:\n    from lab import x",
        "late.py": "def f():\n    import torch\n    import other",
        "types_only.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from torch import Tensor",
        "none.py": "import torchdata, pack.lab",
    }
    assert outside(package(tmp_path, files), ("torch", "lab")) == {
        "pack.early": {"torch": True, "lab": True},
        "pack.late": {"torch": False},
        "pack.types_only": {"torch": False},
    }
