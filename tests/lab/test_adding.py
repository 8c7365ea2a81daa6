"""A monitor, a diagnostic and a figure of the report are one file each: the examples of the pages, verbatim."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lab.diagnostics import Options, measure, names
from lab.diagnostics import registry as diagnostics
from lab.diagnostics.engine.block_sums import BlockSums
from lab.diagnostics.record import load
from lab.diagnostics.values import Drawn, Figure
from lab.monitors import moments
from lab.report import registry as figures
from lab.report.content import gather
from lab.report.page import page
from lab.report.read import read
from lab.report.trackers import heat_maps
from lab.training.run import pretrain
from tests.lab.diagnostics.models import build, probe
from tests.lab.diagnostics.slow_formulas import blocks, streams
from tests.lab.monitors.test_monitors import check

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(autouse=True)
def _registries(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is registered meanwhile is gone afterwards."""
    figures.kinds(figures.Context([]))
    assert names()
    found = dict(moments.REGISTRY)
    monkeypatch.setattr(moments, "REGISTRY", found)
    monkeypatch.setattr("lab.monitors.watch.REGISTRY", found)
    monkeypatch.setattr(diagnostics, "_DIAGNOSTICS", dict(diagnostics._DIAGNOSTICS))
    monkeypatch.setattr(figures, "_KINDS", dict(figures._KINDS))


def run_example(page_name: str, file: str) -> None:
    """Run the example that a page shows as the content of a file."""
    text = (DOCS / page_name).read_text(encoding="utf-8")
    found = re.findall(rf"```python\n# {re.escape(file)}\n(.*?)```", text, re.DOTALL)
    assert len(found) == 1, f"{page_name} should show {file} once"
    exec(found[0], {"__name__": "example"})


def panels(path: Path) -> dict[str, Any]:
    return {panel.kind.title: panel for panel in gather([read(path)]).panels}


def test_the_monitor_of_the_page_is_walked_recorded_and_reported(settings) -> None:
    run_example("monitors.md", "lab/monitors/weight_rms.py")
    check("weight_rms")
    run = settings()
    assert pretrain(run)
    kind = panels(Path(run.run_dir))["Size of the weights by layer"].kind
    assert "Root mean square" in kind.definition and "an idea of ours" in kind.source


def test_the_diagnostic_of_the_page_is_walked_recorded_and_reported(tmp_path: Path) -> None:
    run_example("diagnostics.md", "lab/diagnostics/measures/largest_norm.py")
    assert "largest_norm" in names(cheap=True)
    model = build("llama", "mix")
    measure(model, probe(), only="largest_norm,angular").save(tmp_path / "model.json")
    record = load(tmp_path / "model.json")
    for place in range(6):
        norms = [np.linalg.norm(streams(model, ids)[place], axis=1).max() for ids, _ in blocks(probe())]
        assert record.figure("largest_norm/norm").at(stream=place) == pytest.approx(np.mean(norms), rel=1e-5)
    panel = panels(tmp_path / "model.json")["Largest norm"]
    assert panel.kind.unit == "activation" and panel.kind.source == "an idea of ours"
    assert panel.kind.definition == "Largest L2 norm of h_l in a block; mean over blocks."
    (trace,) = panel.drawing.frames[0].traces
    assert trace["y"] == pytest.approx(record.figure("largest_norm/norm").values, rel=1e-5)
    assert "Largest norm" in page(gather([read(tmp_path / "model.json")]))


def test_sums_and_counts_of_a_diagnostic_may_come_from_any_device() -> None:
    """On a GPU the page's example adds counts from the CPU; here the sums are where nothing can be added from."""
    sums = BlockSums(2, (3,), torch.device("meta"))
    sums.count(slice(0, 2), torch.ones(2))
    sums.add(slice(0, 2), 1, torch.ones(2))
    assert sums.sums.device.type == "meta"


def test_the_figure_of_the_page_is_drawn(tmp_path: Path) -> None:
    run_example("report.md", "lab/report/figures/influence.py")
    measure(build("llama", None), probe(), only="angular").save(tmp_path / "model.json")
    assert panels(tmp_path / "model.json")["Block influence"].drawing.frames[0].traces


def cases() -> Iterator[tuple[str, Figure]]:
    """A figure of each shape that a report can draw."""
    for title, axes in {
        "number": {},
        "line": {"stream": range(3)},
        "of heads": {"layer": range(1, 3), "head": ["a", "b", "c"]},
    }.items():
        values = np.arange(np.prod([len(places) for places in axes.values()])).reshape(
            [len(places) for places in axes.values()]
        )
        yield title, Figure(values, axes, "furlongs", f"the {title}", np.ones(values.shape), Drawn(title, "Look."))


def test_any_figure_is_drawn_from_what_it_declares(tmp_path: Path) -> None:
    """A number over checkpoints, a line, a map; with the source of its diagnostic; on the page and for the trackers."""
    made = measure(build("llama", None), probe(), only="angular", options=Options())
    for step in (10, 20):
        given = {title.replace(" ", "_"): figure for title, figure in cases()}
        record = replace(made, diagnostics={"mine": given}, model=made.model | {"step": step})
        record.save(tmp_path / "diagnostics" / f"step-{step:06}.json")
    (tmp_path / "metrics.jsonl").write_text('{"step": 20, "tokens": 1}\n')
    found = panels(tmp_path)
    for title, figure in cases():
        kind = found[title].kind
        assert (kind.unit, kind.shows, kind.definition) == ("furlongs", "Look.", f"The {title}.")
        frames = found[title].drawing.frames
        assert len(frames) == (2 if figure.axes else 1)
        assert frames[0].traces[0]["type"] == ("heatmap" if len(figure.axes) == 2 else "scatter")
    assert found["number"].drawing.frames[0].traces[0]["x"] == [10, 20]
    run = read(tmp_path)
    assert "report/mine_of_heads" in heat_maps(replace(run, records={20: run.records[20]}))


def test_built_in_figures_say_their_unit_and_reduction_and_are_not_drawn_twice(tmp_path: Path) -> None:
    measure(build("llama", None), probe(), options=Options(sparsity_blocks=1)).save(tmp_path / "model.json")
    found = gather([read(tmp_path / "model.json")]).panels
    titles = [panel.kind.title for panel in found]
    assert len(set(titles)) == len(titles)
