"""One HTML file of a run: figures, disagreements, and each sample's network to open. Asks nothing of any server.

Texts of samples and models are untrusted. The page's fixed part is rendered by Jinja2 with autoescaping; samples stand
in the file as compressed JSON and are written by the script as text nodes alone. A content security policy names the
one script that may run.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from evaluators.running.judged import read_run
from evaluators.showing.figures import BASELINES, breakdowns, ceiling_text, number, samples_text
from evaluators.statistics.by_role import RoleCounts
from evaluators.statistics.figures import score

_BLOCK = 40
"""Samples that are compressed together, and unpacked together when one of them is opened."""
_KEPT = ("id", "query", "response1", "response2", "reference", "suspicious", "human", "family", "dataset", "verdict")


class Samples:
    """Records as the page needs them, packed as they come so that few are in memory at once."""

    def __init__(self) -> None:
        self.index: list[dict[str, Any]] = []
        self.blocks: list[str] = []
        self._open: list[dict[str, Any]] = []

    def add(self, record: Mapping[str, Any]) -> None:
        """Take one record of `verdicts.jsonl`."""
        if record["response2"] is None:
            return
        self.index.append(
            {
                "id": record["id"],
                "family": record["family"],
                "human": record["human"],
                "winner": record["verdict"]["winner"],
                "margin": record["verdict"]["margin"],
                "query": (record["query"] if record["query"].strip() else record["response1"].lstrip())[:120],
            }
        )
        kept = {name: record[name] for name in _KEPT}
        kept["roles"] = record["roles"]
        kept["roles_failures"] = [failure["reason"] for failure in record["roles_failures"]]
        kept["layers"] = [[_review(item) for item in layer] for layer in record["layers"]]
        self._open.append(kept)
        if len(self._open) == _BLOCK:
            self._pack()

    def finish(self) -> None:
        """Pack what is left."""
        if self._open:
            self._pack()

    def _pack(self) -> None:
        text = json.dumps(self._open, ensure_ascii=False, separators=(",", ":"))
        self.blocks.append(base64.b64encode(gzip.compress(text.encode(), 6, mtime=0)).decode())
        self._open = []


def _review(item: Mapping[str, Any]) -> dict[str, Any]:
    names = ("neuron", "order", "index", "role", "scores", "evidence", "confidence", "reason")
    kept = {name: item[name] for name in names if item.get(name) is not None}
    return {**kept, "judge": sorted({call["judge"] for call in item["calls"]})}


def report(folder: Path, *, draws: int, seed: int) -> tuple[str, dict[str, Any]]:
    """The page, and the figures in it.

    Raises:
        RunError: no such run, as `read_run`.
    """
    samples, roles = Samples(), RoleCounts()

    def watch(record: Mapping[str, Any]) -> None:
        samples.add(record)
        roles.add(record)

    run = read_run(folder, watch=watch)
    samples.finish()
    found = {**score(run, draws=draws, seed=seed), "roles": roles.table()}
    return render(run.path.resolve().name, found, samples, _settings(folder)), found


def _settings(folder: Path) -> str:
    return (folder / "config.yaml").read_text(encoding="utf-8")


def render(name: str, found: Mapping[str, Any], samples: Samples, settings: str) -> str:
    """HTML of one file."""
    here = files("evaluators.showing.report")
    script = (here / "report.js").read_text(encoding="utf-8")
    # In Jinja2, autoescape leaves what is not marked safe escaped; the script and the JSON below are ours.
    page = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    page.filters["number"] = number
    return page.from_string((here / "report.html.j2").read_text(encoding="utf-8")).render(
        name=name,
        found=found,
        samples=samples_text(found),
        baselines=BASELINES,
        ceiling=ceiling_text(found),
        breakdowns=breakdowns(found),
        settings=settings,
        script=Markup(script),
        digest=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        index=Markup(_data({"samples": samples.index, "block": _BLOCK})),
        blocks=samples.blocks,
        ways=(("scored samples", "scored"), ("all, unscored as wrong", "unscored_as_wrong")),
    )


def _data(value: Mapping[str, Any]) -> str:
    """JSON that cannot end the script element that it stands in."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")
