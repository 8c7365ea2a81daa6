"""All that a report says, as plain data: what the page, Markdown and the live server show."""

from __future__ import annotations

import html
import math
from dataclasses import dataclass
from typing import Any

from lab.report import compare
from lab.report.compare import Group
from lab.report.numbers import spoken, with_interval
from lab.report.read import Run
from lab.report.registry import Context, Drawing, Kind, kinds
from lab.runfolder.text import count


@dataclass(frozen=True)
class Panel:
    """One figure and what is said about it."""

    kind: Kind
    drawing: Drawing


@dataclass(frozen=True)
class Content:
    """A report."""

    title: str
    runs: list[Run]
    groups: list[Group]
    context: Context
    panels: list[Panel]
    notices: list[str]

    @property
    def labels(self) -> list[str]:
        """One for each checkpoint."""
        return ["" if step is None else f"step {step:,}" for step in self.context.steps]


def gather(runs: list[Run]) -> Content:
    """Pool, and draw what there is to draw."""
    groups = compare.grouped(runs)
    steps: list[int | None] = [*sorted({step for run in runs for step in run.steps})]
    if not steps and any(run.records for run in runs):
        steps = [None]
    context = Context(groups, steps)
    panels = [Panel(kind, drawing) for kind in kinds(context) if (drawing := kind.draw(context)) is not None]
    told = [f"{run.name}: {notice}" if len(runs) > 1 else notice for run in runs for notice in run.notices]
    title = runs[0].name if len(runs) == 1 else f"{len(runs)} runs compared"
    return Content(title, runs, groups, context, panels, compare.notices(groups) + told)


def header(run: Run) -> dict[str, str]:
    """Scheme, size, data, tokens, hardware and state of a run, as far as they are known."""
    record = list(run.records.values())[-1] if run.records else None
    model = record.model if record else {}
    derived, data = _section(run, "derived"), _section(run, "data")
    parameters = derived.get("parameters") or model.get("parameters")
    steps, planned = (run.metrics[-1].get("step") if run.metrics else None), derived.get("steps")
    tokens = next((entry["tokens"] for entry in reversed(run.metrics) if "tokens" in entry), model.get("tokens"))
    model_name = run.config.get("model.checkpoint") or run.config.get("model.config") or run.config.get("model.preset")
    facts = {
        "scheme": run.config.get("normalization.scheme") or model.get("scheme"),
        "model": model_name or model.get("source"),
        "layers": model.get("layers"),
        "parameters": count(parameters) if isinstance(parameters, int) else None,
        "data": data.get("source") or run.config.get("data.source"),
        "seed": run.seed,
        "step": f"{steps:,}" + (f" of {planned:,}" if isinstance(planned, int) else "") if steps is not None else None,
        "tokens": count(tokens) if isinstance(tokens, int) else None,
        "state": _state(run, planned),
        "device": run.environment.get("device") or (record.environment.get("device") if record else None),
        "processes": run.environment.get("processes"),
        "probe": _probe(record) if record else None,
    }
    return {name: str(value) for name, value in facts.items() if value is not None}


def details(run: Run) -> dict[str, dict[str, str]]:
    """What is folded away: settings, versions and command."""
    record = list(run.records.values())[-1] if run.records else None
    environment = run.environment or (record.environment if record else {})
    versions = environment.get("versions")
    machine = {name: environment.get(name) for name in ("git", "host", "platform", "cpu_count", "command")}
    command = machine["command"]
    if isinstance(command, list):
        machine["command"] = " ".join(map(str, command))
    found = {
        "Settings": run.config,
        "Versions": versions if isinstance(versions, dict) else {},
        "Machine and command": {name: value for name, value in machine.items() if value is not None},
    }
    return {title: {str(k): str(v) for k, v in part.items()} for title, part in found.items() if part}


def _section(run: Run, name: str) -> dict[str, Any]:
    found = run.environment.get(name)
    return found if isinstance(found, dict) else {}


def _probe(record: Any) -> str:
    probe = record.probe.summary()
    return f"{probe['source']}, {probe['blocks']} x {probe['block_length']} tokens"


def _state(run: Run, planned: Any) -> str | None:
    if not run.metrics:
        return None
    last = run.metrics[-1]
    if "event" in last:
        return str(last["event"])
    return "going on, or ended early" if isinstance(planned, int) and last.get("step", 0) < planned else "finished"


@dataclass(frozen=True)
class SummaryRow:
    """A figure of the curse-of-depth summary: a cell for each group, for each checkpoint."""

    name: str
    definition: str
    unit: str
    cells: list[list[str]]
    """By checkpoint, by group: value, and an arrow against the checkpoint before."""


def summary(content: Content) -> list[SummaryRow]:
    """The curse of depth in a few figures, checkpoint by checkpoint."""
    known: dict[str, tuple[str, str]] = {}
    for run in content.runs:
        for each in run.records.values():
            known |= {name: (figure.reduction, figure.unit) for name, figure in each.summary.items()}
    rows = []
    for name, (definition, unit) in known.items():
        before: list[float | None] = [None] * len(content.groups)
        cells = []
        for step in content.context.steps:
            row = []
            for number, group in enumerate(content.groups):
                records = [record for run in group.runs if (record := run.record(step)) is not None]
                values = [float(record.summary[name].values) for record in records if name in record.summary]
                values = [value for value in values if math.isfinite(value)]
                if not values:
                    row.append("–")
                    continue
                found = compare.interval(values)
                row.append(f"{with_interval(found)}{arrow(found.mean, before[number])}")
                before[number] = found.mean
            cells.append(row)
        rows.append(SummaryRow(name.replace("_", " "), definition, "" if unit == "1" else unit, cells))
    return rows


def arrow(value: float, before: float | None) -> str:
    """How a value stands to the one before it: up, down or equal to four digits, and by how much."""
    if before is None:
        return ""
    if spoken(value) == spoken(before):
        return " → unchanged"
    return f" {'↑' if value > before else '↓'} {spoken(abs(value - before))}"


def escaped(trace: dict[str, Any]) -> dict[str, Any]:
    """A trace whose texts Plotly shows as they are, where it would take them for markup."""

    def text(value: Any) -> Any:
        return html.escape(value, quote=False) if isinstance(value, str) else value

    texts = {key: [text(value) for value in trace[key]] for key in ("x", "y")}
    return trace | texts | {"name": text(trace["name"])}
