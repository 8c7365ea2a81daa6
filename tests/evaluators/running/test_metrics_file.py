"""metrics.json is of the verdicts beside it: nothing is lost, nothing stale survives."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from evaluators.running.folder import Folder
from evaluators.running.settings import load
from tests.evaluators.conftest import Done


def written(path: Path) -> Any:
    return json.loads((path / "r" / "metrics.json").read_text())


def test_statistics_survive_a_run_that_adds_nothing_and_no_other(judge: Callable[..., Done], tmp_path: Path) -> None:
    lines = [{"query": f"q{n}", "response1": f"a{n}", "response2": f"b{n}", "human": 1 + n % 2} for n in range(12)]
    (tmp_path / "p.jsonl").write_text("\n".join(map(json.dumps, lines)))
    run = ("run", "--data", "p.jsonl", "--judge", "simulated:gap=1", "--depth", 1, "--out", "r")
    assert judge(*run, "--limit", 8).returncode == 0
    assert judge("metrics", "r", "--draws", 200).returncode == 0
    before = written(tmp_path)
    assert before["samples"] == before["statistics"]["samples"] == 8
    assert judge(*run, "--limit", 8).returncode == 0
    assert written(tmp_path) == before
    assert judge(*run).returncode == 0
    after = written(tmp_path)
    assert after["samples"] == 12 and "statistics" not in after
    assert judge("report", "r", "--draws", 200).returncode == 0
    assert written(tmp_path) == after | {"statistics": written(tmp_path)["statistics"]}
    assert written(tmp_path)["statistics"]["samples"] == 12
    assert judge(*run, "--retry-unscored").returncode == 0
    assert "statistics" in written(tmp_path)  # nothing was unscored, so nothing changed


def test_the_file_is_gone_before_a_new_verdict_is_there(judge: Callable[..., Done], tmp_path: Path) -> None:
    """Where a process is killed between two verdicts, the figures of fewer samples do not stay behind."""
    (tmp_path / "p.jsonl").write_text(json.dumps({"query": "q", "response1": "a", "response2": "b"}))
    assert judge("run", "--data", "p.jsonl", "--judge", "simulated:gap=1", "--depth", 1, "--out", "r").returncode == 0
    folder = Folder(tmp_path / "r")
    try:
        made_by = json.loads((tmp_path / "r" / "verdicts.jsonl").read_text())["run"]
        (record,) = folder.open(load(tmp_path / "r" / "config.yaml"), made_by)
        assert (tmp_path / "r" / "metrics.json").exists()
        folder.add(record | {"id": "other"})
        assert not (tmp_path / "r" / "metrics.json").exists()
    finally:
        folder.close()


def test_unscored_samples_that_are_judged_again_take_the_figures_with_them(
    judge: Callable[..., Done], tmp_path: Path
) -> None:
    lines = [{"query": f"q{n}", "response1": "a", "response2": "b", "human": 1} for n in range(3)]
    (tmp_path / "p.jsonl").write_text("\n".join(map(json.dumps, lines)))
    run = ("run", "--data", "p.jsonl", "--judge", "simulated:gap=1", "--depth", 1, "--out", "r")
    assert judge(*run).returncode == 0
    verdicts = tmp_path / "r" / "verdicts.jsonl"
    first, *others = [json.loads(line) for line in verdicts.read_text().splitlines()]
    first["verdict"] |= {"winner": None, "margin": None, "scores": None, "reason": "lost"}
    verdicts.write_text("".join(json.dumps(record) + "\n" for record in (first, *others)))
    assert judge("metrics", "r", "--draws", 200).returncode == 0
    assert written(tmp_path)["statistics"]["unscored"]["samples"] == 1
    assert judge(*run, "--retry-unscored").returncode == 0
    assert "statistics" not in written(tmp_path) and written(tmp_path)["unscored"] == {}
