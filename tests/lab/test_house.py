"""The rooms of `lab/` stand on floors, and each imports only from those below."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import lab
from tests.house import Arrows, arrows, circles, upward

LAB = Path(lab.__file__).parent
REPOSITORY = LAB.parent

FLOORS = [
    ["errors", "hashing", "light", "quiet"],
    ["modes"],
    ["data"],
    ["config"],
    ["runfolder", "parallel"],
    ["checkpoint"],
    ["model", "monitors"],
    ["diagnostics"],
    ["report"],
    ["training"],
    ["pretrain", "commands"],
    ["cli"],
]
"""Rooms from the ground up: each imports from lower floors alone."""

ROOMS = {path.name for path in LAB.iterdir() if (path / "__init__.py").is_file()}


@pytest.fixture
def drawn() -> Arrows:
    """The arrows of `lab`, without those of the two modules that start `python -m lab.cli` as a process of its own."""
    found = arrows(LAB)
    for starter in ("lab.commands.demo", "lab.diagnostics.runs"):
        found[starter].remove("lab.cli")
    return found


def test_no_module_of_lab_is_in_a_circle(drawn: Arrows) -> None:
    assert circles(drawn) == []


def test_every_arrow_between_rooms_runs_down(drawn: Arrows) -> None:
    assert upward(drawn, FLOORS) == []


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
