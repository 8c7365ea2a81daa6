"""Refused lines: they stop every command that reads data, or are passed over, counted and named."""

from __future__ import annotations

import json

import pytest

from tests.evaluators.conftest import records

GOOD = {"query": "q", "response1": "x", "response2": "y", "human": 1, "system1": "m", "system2": "n"}
LINES = [
    json.dumps(GOOD | {"id": "a"}),
    "{not json",
    json.dumps(GOOD | {"id": "b", "query": ""}),
    json.dumps(GOOD | {"id": "a", "query": "the id of line 1 again"}),
    json.dumps(GOOD | {"id": "c", "human": 2}),
    json.dumps(GOOD | {"id": "d", "human": "model3"}),
    json.dumps(GOOD | {"id": "e", "human": 2}),
]
REFUSED = {"2": "not JSON", "3": "query is empty", "4": "id 'a' stands in line 1", "6": "human is 'model3'"}


@pytest.fixture
def data(tmp_path):
    path = tmp_path / "mixed.jsonl"
    path.write_text("\n".join(LINES))
    return path


COMMANDS = {
    "run": ("--judge", "simulated:gap=1", "--preset", "single", "--out", "out"),
    "sweep": ("--judge", "simulated:gap=1", "--widths", "1", "--depths", "1", "--draws", "100", "--out", "out"),
    "leaderboard": ("--draws", "100"),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_that_reads_data_stops_or_goes_on_without_them(command, judge, data, tmp_path):
    words = (command, "--data", data, *COMMANDS[command])
    stopped = judge(*words)
    assert stopped.returncode == 1 and not (tmp_path / "out").exists()
    assert "4 of 7 lines refused" in stopped.stderr and "--skip-refused" in stopped.stderr
    done = judge(*words, "--skip-refused")
    assert done.returncode == 0, done.stderr
    assert "refused     4 lines of the data, passed over" in done.stdout
    for line, reason in REFUSED.items():
        for told in (done.stdout, stopped.stderr):
            assert f"line {line}: {reason}" in told


def test_they_stand_in_the_summary_the_metrics_and_the_report(judge, data, tmp_path):
    words = ("run", "--data", data, *COMMANDS["run"], "--skip-refused")
    assert judge(*words).returncode == 0
    assert [record["id"] for record in records(tmp_path / "out")] == ["a", "c", "e"]
    kept = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert list(kept["data"]["refused"]) == list(REFUSED) and kept["samples"] == 3
    said = judge("metrics", "out", "--draws", 100)
    assert "refused     4 lines of the data" in said.stdout and "line 3: query is empty" in said.stdout
    assert judge("report", "out", "--draws", 100).returncode == 0
    assert "4 lines of the data were refused" in (tmp_path / "out" / "report.html").read_text()
    kept = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert kept["statistics"]["refused"] == kept["data"]["refused"]
    # The same command again has nothing to do, and a mended file goes on with the lines that were refused.
    assert judge(*words).returncode == 0 and len(records(tmp_path / "out")) == 3
    data.write_text("\n".join([*LINES[:2], json.dumps(GOOD | {"id": "b"}), *LINES[3:]]))
    assert judge(*words).returncode == 0
    assert [record["id"] for record in records(tmp_path / "out")] == ["a", "c", "e", "b"]


@pytest.mark.parametrize("limit", [1, 2, 3, 9])
def test_limit_counts_the_samples_that_are_judged(limit, judge, data, tmp_path):
    done = judge("run", "--data", data, *COMMANDS["run"], "--skip-refused", "--limit", limit)
    assert done.returncode == 0, done.stderr
    assert [record["id"] for record in records(tmp_path / "out")] == ["a", "c", "e"][:limit]


def test_a_file_of_refused_lines_alone_holds_nothing_to_judge(judge, data):
    data.write_text("\n".join(LINES[1:3]))
    done = judge("run", "--data", data, *COMMANDS["run"], "--skip-refused")
    assert done.returncode == 1 and "2 of 2 lines refused" in done.stderr and "line 2: query is empty" in done.stderr
