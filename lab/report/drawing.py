"""Lines and maps over checkpoints as Plotly's traces: equal axes over all checkpoints and groups."""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from plotly.subplots import make_subplots

from lab.diagnostics.values import Figure
from lab.report.compare import Group, interval
from lab.report.numbers import short, spoken
from lab.report.registry import Context, Drawing, Frame

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""Okabe and Ito (2008), told apart with any colour vision; dashes and markers tell what they do not."""
DASHES = ("solid", "dash", "dot", "dashdot")
MARKERS = ("circle", "square", "diamond", "triangle-up", "x", "cross")
MAP_COLOURS = "Cividis"
LINE_HEIGHT, MAP_HEIGHT, WORDS_HEIGHT = 340, 330, 50


@dataclass(frozen=True)
class Pooled:
    """A figure of a group at a step: of one run as it is, of several their mean."""

    values: np.ndarray
    spread: np.ndarray | None
    """Standard error over blocks of one run's figure; half of the 95 % interval over seeds of a mean."""
    axes: dict[str, list[Any]]
    unit: str


def pooled(group: Group, name: str, step: int | None) -> Pooled | None:
    """A diagnostic's figure, such as `angular/distance`, over the runs of a group that have it at this step."""
    found = [figure for run in group.runs if (figure := run.figure(name, step)) is not None]
    found = [figure for figure in found if figure.values.shape == found[0].values.shape]
    if not found:
        return None
    first: Figure = found[0]
    axes = {axis: list(places) for axis, places in first.axes.items()}
    if len(found) == 1:
        return Pooled(first.values, first.error, axes, first.unit)
    stacked = np.stack([figure.values for figure in found])
    places = stacked.reshape(len(found), -1).T
    half = np.array([interval(values.tolist()).half_width for values in places], dtype=np.float64)
    return Pooled(stacked.mean(0), half.reshape(first.values.shape), axes, first.unit)


def style(number: int, part: int = 0) -> dict[str, Any]:
    """Colour and marker of a group, dash of a part of it."""
    dash = DASHES[(part + number // len(COLOURS)) % len(DASHES)]
    return {
        "line": {"color": COLOURS[number % len(COLOURS)], "width": 2, "dash": dash},
        "marker": {"symbol": MARKERS[number % len(MARKERS)], "size": 6, "color": COLOURS[number % len(COLOURS)]},
    }


def line(
    name: str, x: Sequence[Any], y: np.ndarray, spread: np.ndarray | None = None, number: int = 0, part: int = 0
) -> dict[str, Any]:
    """A trace; `spread` as error bars."""
    mode = "lines+markers" if len(x) <= 60 else "lines"
    trace = {"type": "scatter", "mode": mode, "name": name, "x": list(x), "y": short(y)} | style(number, part)
    if spread is not None and np.isfinite(spread).any():
        trace["error_y"] = {"type": "data", "array": short(np.nan_to_num(spread)), "thickness": 1, "width": 2}
    return trace


def lines_over_steps(
    context: Context, names: dict[str, str], *, axis: str, unit: str, logarithmic: bool = False
) -> Drawing | None:
    """A line for each group and figure against the figure's one axis.

    Args:
        context: what there is.
        names: figure, such as `variance/stream_median` -> its name in the legend.
        axis: title of the horizontal axis.
        unit: title of the vertical axis.
        logarithmic: the vertical axis.
    """

    def traces(step: int | None) -> list[dict[str, Any]]:
        found = []
        for number, group in enumerate(context.groups):
            for part, (name, legend) in enumerate(names.items()):
                if (figure := pooled(group, name, step)) is not None:
                    label = _label(context, group, legend, len(names))
                    places = next(iter(figure.axes.values()))
                    found.append(line(label, places, figure.values, figure.spread, number, part))
        return found

    return line_drawing(context, traces, axis=axis, unit=unit, logarithmic=logarithmic)


def lines_over_checkpoints(context: Context, name: str, *, unit: str, logarithmic: bool = False) -> Drawing | None:
    """A figure that is one number, over the checkpoints: a line for each group."""

    def traces(step: int | None) -> list[dict[str, Any]]:
        found = []
        for number, group in enumerate(context.groups):
            points = [(at, figure) for at in context.steps if (figure := pooled(group, name, at)) is not None]
            if points:
                x = ["the model" if at is None else at for at, _ in points]
                spreads = [math.nan if figure.spread is None else float(figure.spread) for _, figure in points]
                values = np.array([float(figure.values) for _, figure in points])
                found.append(line(group.label, x, values, np.array(spreads), number))
        return found

    return line_drawing(context, traces, axis="step", unit=unit, logarithmic=logarithmic, once=True)


def _label(context: Context, group: Group, legend: str, count: int) -> str:
    if len(context.groups) == 1:
        return legend if count > 1 else group.label
    return f"{group.label}, {legend}" if count > 1 else group.label


def line_drawing(
    context: Context,
    traces: Callable[[int | None], list[dict[str, Any]]],
    *,
    axis: str,
    unit: str,
    logarithmic: bool = False,
    once: bool = False,
) -> Drawing | None:
    """Frames of lines with one vertical range; None if no frame has a line."""
    frames = [traces(step) for step in ([None] if once else context.steps)]
    values = [y for frame in frames for trace in frame for y in trace["y"] if y is not None]
    if logarithmic:
        values = [value for value in values if value > 0]
    if not values:
        return None
    layout: dict[str, Any] = {
        "height": LINE_HEIGHT,
        "xaxis": {"title": {"text": axis}},
        "yaxis": {"title": {"text": unit}, "type": "log" if logarithmic else "linear"},
        "showlegend": any(len(frame) > 1 for frame in frames),
    }
    if not once:
        low, high = min(values), max(values)
        low, high = (math.log10(low), math.log10(high)) if logarithmic else (low, high)
        margin = (high - low) * 0.06 or abs(high) * 0.1 or 1.0
        layout["yaxis"]["range"] = [low - margin, high + margin]
    return Drawing([Frame(frame, _lines_in_words(frame, axis)) for frame in frames], layout, (axis, unit))


def _lines_in_words(traces: list[dict[str, Any]], axis: str) -> str:
    told = []
    for trace in traces:
        points = [(x, y) for x, y in zip(trace["x"], trace["y"], strict=True) if y is not None]
        if not points:
            continue
        low, high = min(points, key=lambda point: point[1]), max(points, key=lambda point: point[1])
        told.append(
            f"{trace['name']}: from {spoken(points[0][1])} at {axis} {points[0][0]} to {spoken(points[-1][1])} at "
            f"{points[-1][0]}; lowest {spoken(low[1])} at {low[0]}, highest {spoken(high[1])} at {high[0]}."
        )
    return " ".join(told) or "Not measured here."


Map = tuple[str, Sequence[Any], Sequence[Any], np.ndarray]
"""Name, places across, places down, values (down, across)."""


def maps_over_steps(
    context: Context,
    name: str,
    *,
    across: str,
    down: str,
    unit: str,
    triangle: bool = False,
    shown: Callable[[list[Any]], list[Any]] = list,
) -> Drawing | None:
    """A heat map for each group, side by side: the first axis of the figure down, the second across.

    Args:
        context: what there is.
        name: figure, such as `angular/distance`.
        across: title of the horizontal axis.
        down: title of the vertical axis.
        unit: of the colours.
        triangle: a symmetric map, of which one half is shown.
        shown: the places across, as they are written at the axis.
    """

    def maps(step: int | None) -> list[Map | None]:
        found: list[Map | None] = []
        for group in context.groups:
            figure = pooled(group, name, step)
            if figure is None or figure.values.ndim != 2:
                found.append(None)
                continue
            rows, columns = figure.axes.values()
            values = figure.values
            if triangle:
                values = np.where(np.triu(np.ones(values.shape, dtype=bool), 1), values, np.nan)
            found.append((group.label, shown(columns), rows, values))
        return found

    return map_drawing(context, maps, across=across, down=down, unit=unit)


def map_drawing(
    context: Context,
    maps: Callable[[int | None], list[Map | None]],
    *,
    across: str,
    down: str,
    unit: str,
    once: bool = False,
) -> Drawing | None:
    """Frames of heat maps, one for each group, with one range of colours; None if there is no number."""
    found = [maps(step) for step in ([None] if once else context.steps)]
    finite = [part[3][np.isfinite(part[3])] for frame in found for part in frame if part is not None]
    values = np.concatenate(finite) if finite else np.array([])
    if not values.size:
        return None
    count = len(context.groups)
    columns = min(count, 2)
    rows = -(-count // columns)
    titles = [html.escape(group.label) for group in context.groups] if count > 1 else None
    # Words at the axis stand upright and need room below each row.
    words = any(isinstance(place, str) for frame in found for part in frame if part is not None for place in part[1])
    grid = make_subplots(
        rows,
        columns,
        subplot_titles=titles,
        x_title=None,
        horizontal_spacing=0.12,
        vertical_spacing=(0.45 if words else 0.3) / rows,
    ).to_plotly_json()
    layout: dict[str, Any] = {key: value for key, value in grid["layout"].items() if key != "template"}
    for number in range(count):
        tail = "" if number == 0 else str(number + 1)
        layout[f"xaxis{tail}"] |= {"tickangle": -90} if words else {"title": {"text": across}}
        if number % columns == 0:
            layout[f"yaxis{tail}"] |= {"title": {"text": down}}
        if all(isinstance(place, int) for frame in found for part in frame if part is not None for place in part[2]):
            layout[f"yaxis{tail}"] |= {"dtick": _tick(found)}
    layout |= {
        "height": MAP_HEIGHT * rows + (WORDS_HEIGHT * rows if words else 0),
        "coloraxis": {
            "colorscale": MAP_COLOURS,
            "cmin": float(values.min()),
            "cmax": float(values.max()),
            "colorbar": {"title": {"text": unit, "side": "right"}, "thickness": 12},
        },
    }
    frames = [Frame(_map_traces(frame), _maps_in_words(frame, across, down)) for frame in found]
    return Drawing(frames, layout, (across, down, unit))


def _tick(frames: list[list[Map | None]]) -> int:
    """Layers between ticks: whole ones, and few enough to read."""
    longest = max(len(part[2]) for frame in frames for part in frame if part is not None)
    return max(1, -(-longest // 8))


def _map_traces(maps: list[Map | None]) -> list[dict[str, Any]]:
    return [
        {
            "type": "heatmap",
            "name": part[0],
            "x": list(part[1]),
            "y": list(part[2]),
            "z": short(part[3]),
            "coloraxis": "coloraxis",
            "hoverongaps": False,
            "xaxis": f"x{'' if number == 0 else number + 1}",
            "yaxis": f"y{'' if number == 0 else number + 1}",
        }
        for number, part in enumerate(maps)
        if part is not None
    ]


def _maps_in_words(maps: list[Map | None], across: str, down: str) -> str:
    told = []
    for part in maps:
        if part is None or not np.isfinite(part[3]).any():
            continue
        name, columns, rows, values = part
        low = divmod(int(np.nanargmin(values)), values.shape[1])
        high = divmod(int(np.nanargmax(values)), values.shape[1])
        told.append(
            f"{name}: mean {spoken(float(np.nanmean(values)))}; lowest {spoken(float(values[low]))} at {down} "
            f"{rows[low[0]]}, {across} {columns[low[1]]}; highest {spoken(float(values[high]))} at {down} "
            f"{rows[high[0]]}, {across} {columns[high[1]]}."
        )
    return " ".join(told) or "Not measured here."
