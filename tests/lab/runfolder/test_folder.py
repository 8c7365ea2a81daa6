from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

import lab
from lab.runfolder import folder


@pytest.mark.parametrize("where, changed", [("training/loop.py", True), ("runfolder/folder.py", True), (None, False)])
def test_the_revision_tells_of_a_change_in_any_room(
    where: str | None, changed: bool, tmp_path: Path, monkeypatch
) -> None:
    def git(*words: str) -> str:
        own = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false")
        return subprocess.run(["git", *own, *words], cwd=tmp_path, check=True, capture_output=True, text=True).stdout

    for path in Path(lab.__file__).parent.rglob("*.py"):
        copy = tmp_path / "lab" / path.relative_to(Path(lab.__file__).parent)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    git("init", "-q")
    git("add", ".")
    git("commit", "-q", "-m", "one")
    if where is not None:
        (tmp_path / "lab" / where).write_text("changed = 1\n")
    monkeypatch.setattr(folder, "__file__", str(tmp_path / "lab/runfolder/folder.py"))
    assert folder.environment(1)["git"] == git("rev-parse", "HEAD").strip() + ("+" if changed else "")
