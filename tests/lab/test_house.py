"""The rooms of `lab/` stand on floors, and each imports only from those below."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import lab

LAB = Path(lab.__file__).parent
REPOSITORY = LAB.parent

FLOORS = (
    ("lab.errors", "lab.hashing", "lab.quiet"),
    ("lab.data",),
    ("lab.config",),
    ("lab.runfolder", "lab.parallel"),
    ("lab.checkpoint",),
    ("lab.model", "lab.monitors"),
    ("lab.diagnostics",),
    ("lab.report",),
    ("lab.training",),
    ("lab.commands",),
    ("lab.pretrain", "lab.cli"),
)
"""Ground first. Rooms of one floor do not import each other."""

ROOMS = {path.name for path in LAB.iterdir() if (path / "__init__.py").is_file()}


def arrows(package: Path) -> dict[str, set[str]]:
    """Module -> modules of the same package that it imports: anywhere in the file, late and for typing too."""
    files = {}
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package.parent).with_suffix("").parts
        files[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return {name: _imported(name, path, files) - {name} for name, path in files.items()}


def _imported(name: str, path: Path, files: Mapping[str, Path]) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            source = node.module or ""
            if node.level:
                above = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
                source = ".".join([*above[: len(above) - node.level + 1], *filter(None, [source])])
            inner = {alias.name: f"{source}.{alias.name}" for alias in node.names}
            found |= {whole if whole in files else source for whole in inner.values()}
    return found & files.keys()


def circles(arrows: Mapping[str, Iterable[str]]) -> list[str]:
    """A circle of modules that import each other, first and last the same; empty if there is none."""
    try:
        TopologicalSorter(arrows).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def upward(arrows: Mapping[str, Iterable[str]], floors: Sequence[Sequence[str]]) -> list[str]:
    """Arrows that neither run down to a lower floor nor stay in their room; and modules that stand on no floor.

    The package's own face, which hands names on, stands above all floors.
    """
    where = {room: number for number, floor in enumerate(floors) for room in floor}

    def room(module: str) -> str | None:
        return next((name for name in where if module == name or module.startswith(f"{name}.")), None)

    wrong = []
    for module, targets in arrows.items():
        if "." not in module:
            continue
        if (start := room(module)) is None:
            wrong.append(f"{module} stands on no floor")
            continue
        for target in targets:
            end = room(target)
            if end is not None and end != start and where[end] >= where[start]:
                wrong.append(f"{module} -> {target}")
    return sorted(wrong)


def test_no_module_of_lab_is_in_a_circle() -> None:
    assert circles(arrows(LAB)) == []


def test_every_arrow_between_rooms_runs_down() -> None:
    assert upward(arrows(LAB), FLOORS) == []


@pytest.mark.parametrize(
    "late",
    [
        "from house.top import thing",
        "from house import top",
        "from .. import top",
        "def f():\n    import house.top",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from house.top import thing",
    ],
)
def test_an_arrow_that_runs_up_is_seen_however_it_is_written(late: str, tmp_path: Path) -> None:
    (tmp_path / "house" / "ground").mkdir(parents=True)
    files = {"__init__.py": "", "ground/__init__.py": "", "ground/stone.py": "", "top.py": "import house.ground.stone"}
    for name, text in files.items():
        (tmp_path / "house" / name).write_text(text)
    floors = (("house.ground",), ("house.top",))
    before = arrows(tmp_path / "house")
    assert circles(before) == [] and upward(before, floors) == []
    (tmp_path / "house/ground/stone.py").write_text(late)
    after = arrows(tmp_path / "house")
    assert set(circles(after)) == {"house.ground.stone", "house.top"}
    assert upward(after, floors) == ["house.ground.stone -> house.top"]


def test_the_tests_mirror_the_rooms() -> None:
    folders = {path.parent.name for path in Path(__file__).parent.glob("*/test_*.py")}
    assert folders <= ROOMS


def test_the_map_of_the_readme_has_a_line_for_each_room() -> None:
    text = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    section = re.search(r"^lab/ .*?(?=^\w)", text[text.index("## Map") :], re.MULTILINE | re.DOTALL)
    assert section is not None
    assert set(re.findall(r"^  (\w+)/ ", section[0], re.MULTILINE)) == ROOMS
    beside = {path.name for path in LAB.glob("*.py")} - {"__init__.py"}
    assert set(re.findall(r"\w+\.py", section[0].splitlines()[0])) == beside


SPY = """
import atexit, os, sys

class Spy:
    seen = []
    def find_spec(self, name, path=None, target=None):
        if path is None and any(os.path.realpath(entry) == {lab!r} for entry in sys.path):
            self.seen.append(name)

def tell():
    sys.meta_path.remove(spy)
    print("imported with lab/ on the path:", sorted(set(spy.seen) - {{"__future__"}}))
    print("found instead of the packages:", [name for name in {rooms!r} if __import__(name).__doc__ != "beside"])

spy = Spy()
sys.meta_path.insert(0, spy)
atexit.register(tell)
"""


@pytest.mark.parametrize("kind", ["help", "run", "run from lab/"])
def test_no_room_hides_a_package_of_its_name_from_the_script(kind: str, flags, tmp_path: Path) -> None:
    """`accelerate launch lab/pretrain.py` puts lab/ first on the path; spies in the process tell what it found."""
    beside = tmp_path / "beside"
    names = sorted(ROOMS | {path.stem for path in LAB.glob("*.py")} - {"__init__"})
    for name in names:
        (beside / name).mkdir(parents=True)
        (beside / name / "__init__.py").write_text('"beside"\n')
    (beside / "sitecustomize.py").write_text(SPY.format(lab=str(LAB.resolve()), rooms=names))
    words = ["--help"] if kind == "help" else flags(train__steps=1, data__workers=1)
    done = subprocess.run(
        [sys.executable, str(LAB / "pretrain.py"), *words],
        cwd=LAB if kind == "run from lab/" else tmp_path,
        env={**os.environ, "PYTHONPATH": str(beside), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "imported with lab/ on the path: []\n" in done.stdout
    assert "found instead of the packages: []\n" in done.stdout
    assert kind == "help" or (tmp_path / "run/checkpoints/step-000001/manifest.json").is_file()
