"""A sweep asks what its points do not share, once."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.evaluators.conftest import Done, write_pairs
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
