"""A sweep asks what its points do not share, once."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from evaluators.network import Network, Reviewers
from evaluators.presets import architectures
from evaluators.samples import Pair
from evaluators.values import Judgement
from tests.evaluators.conftest import Done, records, write_pairs
from tests.evaluators.server import Server

SAMPLES = 3


def _sweep(judge: Callable[..., Done], server: Server, pairs: Path, out: str, *axes: object) -> dict[str, Any]:
    common = ("--data", pairs, "--judge", "openai:m", "--base-url", server.url, "--draws", 100)
    done = judge("sweep", *common, "--out", out, *axes)
    assert done.returncode == 0, done.stderr
    return json.loads((pairs.parent / out / "sweep.json").read_text())


def test_calls_are_those_of_the_largest_point_and_those_that_cannot_be_shared(
    judge: Callable[..., Done], server: Server, tmp_path: Path
) -> None:
    """Layer 1 is shared among widths, depth 1 and all aggregations; layer 2 of `full` shows all, so it is not."""
    pairs = write_pairs(tmp_path / "p.jsonl", SAMPLES, human=1)
    axes = ("--widths", 2, 4, "--depths", 1, 2, "--aggregations", "mean-all", "vote-last")
    found = _sweep(judge, server, pairs, "out", *axes)
    largest, apart = 1 + 2 * 4 * 2, 2 * 2
    assert len(server.requests) == found["calls_made"] == SAMPLES * (largest + apart)
    calls = {(point["width"], point["depth"]): point["calls"] for point in found["points"]}
    assert calls == {(n, d): SAMPLES * (1 + 2 * n * d) for n in (2, 4) for d in (1, 2)}
    assert len(found["points"]) == 8
    # The server always prefers what is shown first, which both orders make a tie.
    assert all(point["ties"] == SAMPLES and point["scored"]["accuracy"]["value"] == 0.0 for point in found["points"])
    # Where neurons see themselves alone, a wider run contains the narrower one; and nothing is paid twice.
    before = len(server.requests)
    _sweep(judge, server, pairs, "own", "--widths", 1, 2, 4, "--depths", 2, "--connections", "window:1")
    assert len(server.requests) == before + SAMPLES * 2 * 4
    again = _sweep(judge, server, pairs, "out", *axes)
    assert len(server.requests) == before + SAMPLES * 2 * 4
    assert again["points"] == found["points"]


@dataclass(frozen=True)
class Cascade(Network):
    """A first look by one neuron; the whole network only where that is not clear."""

    clear: float = 1.0

    async def judge(self, pair: Pair, reviewers: Reviewers) -> Judgement:
        first = await Network(depth=1, roles=(), both_orders=True).judge(pair, reviewers)
        if first.verdict.margin is not None and abs(first.verdict.margin) > self.clear:
            return first
        return await super().judge(pair, reviewers)


def test_a_preset_that_judges_in_a_way_of_its_own_is_swept_as_it_is(
    judge: Callable[..., Done], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every point has the verdicts and the calls of a run of that very network."""
    monkeypatch.setitem(architectures._things, "cascade", lambda judges: Cascade())
    pairs = write_pairs(tmp_path / "p.jsonl", 40, human=1)
    common = ("--data", pairs, "--judge", "simulated:gap=1,roles=2", "--preset", "cascade")
    axes = ("--widths", 2, "--depths", 1, 2, "--aggregations", "mean-all", "vote-last")
    done = judge("sweep", *common, "--out", "out", *axes, "--draws", 100)
    assert done.returncode == 0, done.stderr
    points = json.loads((tmp_path / "out" / "sweep.json").read_text())["points"]
    assert {(point["depth"], point["aggregation"]) for point in points} == {
        (depth, name) for depth in (1, 2) for name in ("mean-all", "vote-last")
    }
    for point in points:
        name = f"alone-{point['depth']}-{point['aggregation']}"
        flags = ("--width", 2, "--depth", point["depth"], "--aggregation", point["aggregation"], "--min-roles", 1)
        assert judge("run", *common, *flags, "--out", name).returncode == 0
        alone = records(tmp_path / name)
        assert point["calls"] == sum(record["spent"]["calls"] for record in alone)
        right = sum(record["verdict"]["winner"] == 1 for record in alone)
        assert point["scored"]["accuracy"]["value"] == pytest.approx(right / 40)
        assert all(record["run"]["network"]["class"].endswith("Cascade") for record in alone)
        # Some samples were clear at first sight, others not.
        assert 0 < sum(record["roles_calls"] == [] for record in alone) < 40


def test_roles_that_cannot_be_had_are_billed_once(judge: Callable[..., Done], tmp_path: Path) -> None:
    """A reply without a role, then an error: two calls, which stand in the record once."""
    script = [
        {"id": "s0", "task": "roles", "attempt": 0, "reply": ""},
        {"id": "s0", "task": "roles", "attempt": 1, "error": "down"},
        {"task": "roles", "reply": "- Accuracy: are the facts right\n- Tone: is it polite"},
        {"reply": "Score of Assistant 1: 8\nScore of Assistant 2: 4"},
    ]
    (tmp_path / "s.jsonl").write_text("\n".join(map(json.dumps, script)))
    (tmp_path / "prices.yaml").write_text("scripted:s.jsonl: {input: 10, output: 100}\n")
    pairs = write_pairs(tmp_path / "p.jsonl", 2, human=1)
    axes = ("--widths", 2, "--depths", 1, "--draws", 100)
    words = ("--data", pairs, "--judge", "scripted:s.jsonl", "--prices", "prices.yaml", "--retries", 0, "--out", "o")
    done = judge("sweep", *words, *axes)
    assert done.returncode == 0, done.stderr
    [folder] = (tmp_path / "o" / "points").iterdir()
    failed = next(record for record in records(folder) if record["id"] == "s0")
    assert len(failed["roles_calls"]) == 2 and failed["roles_failures"][0]["calls"] == []
    calls = [call for record in records(folder) for call in record["roles_calls"]]
    calls += [
        call for record in records(folder) for layer in record["layers"] for item in layer for call in item["calls"]
    ]
    used = [call["usage"] for call in calls if call["usage"] is not None]
    cost = sum(10 * usage["prompt"] + 100 * usage["completion"] for usage in used) / 1e6
    [point] = json.loads((tmp_path / "o" / "sweep.json").read_text())["points"]
    assert point["calls"] == len(calls) == 2 + 1 + 4
    assert float(point["cost"]) == pytest.approx(cost)


def test_depth_is_said_to_do_what_it_does_to_position_bias(judge: Callable[..., Done], tmp_path: Path) -> None:
    pairs = write_pairs(tmp_path / "p.jsonl", 60, human=1)
    words = ("--data", pairs, "--judge", "simulated:gap=1,position=2", "--out", "o", "--draws", 100)
    done = judge("sweep", *words, "--widths", 2, "--depths", 1, 2, 3)
    assert done.returncode == 0, done.stderr
    points = json.loads((tmp_path / "o" / "sweep.json").read_text())["points"]
    own = [point["position"] for point in points]
    assert own[0]["consistency"] == own[1]["consistency"] == own[2]["consistency"]
    assert own[0]["consistency"]["value"] < 0.5 and own[0]["network"]["consistency"] == own[0]["consistency"]
    assert all(found["network"]["consistency"]["value"] is None for found in own[1:])
    assert done.stdout.count("the judge (layer 1): same verdict in both orders 0.") == 1
    assert all(f"    depth {depth} " in done.stdout for depth in (1, 2, 3))
    assert "from layer 2 on, reviews have read those of both orders" in done.stdout


def test_impossible_sweeps_are_refused(judge: Callable[..., Done], tmp_path: Path) -> None:
    pairs = write_pairs(tmp_path / "p.jsonl", 1)
    for words, told in (
        (("--no-cache",), "reuses calls through the cache"),
        (("--widths", 0), "--widths 0: must be at least 1"),
        (("--widths", 2, 2), "none twice"),
        (("--aggregations", "mode"), "--aggregation mode: choose from"),
        (("--roles", "Tone", "--widths", 2), "there are 1 --roles"),
    ):
        done = judge("sweep", "--data", pairs, "--judge", "simulated:gap=1", "--out", "o", *words)
        assert done.returncode == 2 and told in done.stderr and "Traceback" not in done.stderr
