"""A record as tables that a person reads in a terminal."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from lab.diagnostics.record import Record
from lab.diagnostics.values import Figure
from lab.runfolder.text import count, table

BAR = 16
_EIGHTHS = " ▏▎▍▌▋▊▉█"
_SHADES = " ░▒▓█"

OVERVIEW = (
    ("removal/increase", "cost"),
    ("angular/step", "angle"),
    ("jacobian/distance", "|J-I|²"),
    ("gradients/layer", "gradient"),
    ("variance/stream_median", "variance"),
    ("rank/effective_rank", "rank"),
    ("lens/loss", "lens loss"),
    ("attention/first_token", "1st token"),
)
"""Figures by layer that the overview shows, and their heads; a figure by layer and head is averaged over heads."""


def show(record: Record, only: Sequence[str] | None = None) -> str:
    """The overview; or, of the named diagnostics, every figure."""
    parts = [_head(record)]
    if only is None:
        parts += [_summary(record), _overview(record)]
    else:
        for diagnostic in only:
            for name, figure in record.diagnostics.get(diagnostic, {}).items():
                parts.append(_figure(f"{diagnostic}/{name}", figure))
    parts += [f"not measured: {name}: {reason}" for name, reason in record.failures.items()]
    return "\n\n".join(part for part in parts if part)


def _head(record: Record) -> str:
    model, probe = record.model, record.probe.summary()
    step = f", step {model['step']:,}" if "step" in model else ""
    return (
        f"{model.get('name', model['source'])}{step}: {model['model_type']}, {model['layers']} layers, "
        f"{count(model['parameters'])} parameters, scheme {model['scheme']}\n"
        f"probe: {probe['source']}, {probe['blocks']} blocks x {probe['block_length']} tokens"
    )


def _summary(record: Record) -> str:
    if not record.summary:
        return ""
    width = max(map(len, record.summary))
    return "\n".join(
        f"{name:<{width}}  {_number(float(figure.values)):>9} {'' if figure.unit == '1' else figure.unit:<9} "
        f"{figure.reduction}"
        for name, figure in record.summary.items()
    )


def _overview(record: Record) -> str:
    """One line a layer."""
    depth = record.model["layers"]
    columns: dict[str, np.ndarray] = {}
    bars: dict[str, np.ndarray] = {}
    for name, head in OVERVIEW:
        diagnostic, _, key = name.partition("/")
        figure = record.diagnostics.get(diagnostic, {}).get(key)
        if figure is None:
            continue
        values = figure.values if figure.values.ndim == 1 else figure.values.mean(1)
        columns[head] = values[-depth:]  # of streams h_0 .. h_L: those after a layer
        if name == "removal/increase":
            columns["±"] = np.full(depth, np.nan) if figure.error is None else figure.error
            bars["share of probability lost without it"] = -np.expm1(-np.clip(values, 0, None))
        if name == "angular/step" and "share of probability lost without it" not in bars:
            bars["angle, largest = 1"] = values / values.max() if values.max() > 0 else values
    if not columns:
        return ""
    rows = []
    for layer in range(depth):
        row = {"layer": str(layer + 1).rjust(5)}
        row |= {head: _number(values[layer]) for head, values in columns.items()}
        row |= {head: bar(values[layer]).ljust(len(head)) for head, values in bars.items()}
        rows.append(row)
    return table(rows)


def _figure(name: str, figure: Figure) -> str:
    title = f"{name} [{figure.unit}]: {figure.reduction}"
    if figure.values.ndim == 0:
        return f"{title}\n  {_number(float(figure.values))}{_error(figure.error)}"
    if figure.values.ndim == 1:
        return f"{title}\n{_line(figure)}"
    if figure.values.ndim == 2:
        return f"{title}\n{_map(figure)}"
    maps = []
    # A map for each place of the shortest axis.
    axis = min(figure.axes, key=lambda name: len(figure.axes[name]))
    at = list(figure.axes).index(axis)
    rest = {key: value for key, value in figure.axes.items() if key != axis}
    for index, place in enumerate(figure.axes[axis]):
        inner = Figure(figure.values.take(index, axis=at), rest, figure.unit, figure.reduction)
        maps.append(f"{axis} {place}\n{_map(inner) if inner.values.ndim == 2 else _line(inner)}")
    return "\n".join([title, *maps])


def _line(figure: Figure) -> str:
    """One line a value, with a bar."""
    (axis, places), values = next(iter(figure.axes.items())), figure.values
    largest = np.nanmax(values) if np.isfinite(values).any() else math.nan
    rows = []
    for index, place in enumerate(places):
        share = values[index] / largest if largest > 0 else 0.0
        row = {axis: str(place).rjust(len(axis)), "value": _number(values[index])}
        if figure.error is not None:
            row["±"] = _number(figure.error[index])
        rows.append(row | {"": bar(share).ljust(BAR)})
    return table(rows)


def _map(figure: Figure) -> str:
    """A map in shades where it is wide, numbers where it is not."""
    (down, rows), (across, columns) = figure.axes.items()
    if len(columns) <= 10:
        head = f"{down}\\{across}"
        lines = [
            {head: str(row).rjust(len(head))}
            | {str(column): _number(figure.values[i, j]) for j, column in enumerate(columns)}
            for i, row in enumerate(rows)
        ]
        return table(lines)
    finite = figure.values[np.isfinite(figure.values)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    spread = high - low or 1.0
    width = max(len(str(row)) for row in rows)
    shaded = [f"{down} down, {across} across; {_number(low)} (blank) to {_number(high)} (full)"]
    for i, row in enumerate(rows):
        shades = "".join(
            _SHADES[round((value - low) / spread * (len(_SHADES) - 1))] * 2 if math.isfinite(value) else "  "
            for value in figure.values[i]
        )
        shaded.append(f"{str(row).rjust(width)} |{shades}|")
    return "\n".join(shaded)


def bar(share: float, width: int = BAR) -> str:
    """A bar of eighths of a character, `width` long for a share of 1; empty for nothing, less, or no number."""
    if not share > 0:
        return ""
    full, eighths = divmod(round(min(share, 1.0) * width * 8), 8)
    return "█" * full + (_EIGHTHS[eighths] if eighths else "")


def _number(value: float) -> str:
    if not math.isfinite(value):
        return "-"
    if value != 0 and (abs(value) >= 1e5 or abs(value) < 1e-4):
        return f"{value:.2e}"
    return f"{value:.4g}"


def _error(error: np.ndarray | None) -> str:
    return "" if error is None or not np.isfinite(error).all() else f" ± {_number(float(error))}"
