"""What the monitors measured, from `metrics.jsonl`, drawn as they declare it."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np

from lab.monitors import quantities
from lab.monitors.quantity import Quantity
from lab.report.compare import Group
from lab.report.drawing import Map, map_drawing
from lab.report.figures.training import curves
from lab.report.registry import Context, Drawing, Kind, declared

COLUMNS = 200
"""A longer heat map is drawn with every k-th measurement."""


@declared
def of_monitors(context: Context) -> Iterator[Kind]:
    """A heat map of layers over steps for each quantity, or a curve for one of the whole model."""
    for quantity in quantities():
        by_layer = quantity.over != "model"
        yield Kind(
            quantity.panel or quantity.name,
            section="Training",
            title=quantity.title,
            shows=quantity.shows,
            unit=f"log10 {_spoken(quantity)}" if by_layer and quantity.logarithmic else quantity.unit,
            definition=("log10 of: " if by_layer and quantity.logarithmic else "") + quantity.definition,
            source=f"metrics.jsonl, {quantity.name}{'/layer_*' if by_layer else ''}; {quantity.source}",
            draw=partial(_map if by_layer else _curve, quantity=quantity),
        )


def _spoken(quantity: Quantity) -> str:
    return "of a ratio" if quantity.relative_to is not None and quantity.unit == "1" else quantity.unit


def _curve(context: Context, quantity: Quantity) -> Drawing | None:
    return curves(context, quantity.name, quantity.unit, logarithmic=quantity.logarithmic)


def _map(context: Context, quantity: Quantity) -> Drawing | None:
    def maps(step: int | None) -> list[Map | None]:
        return [_over_steps(group, f"{quantity.name}/layer_", quantity.logarithmic) for group in context.groups]

    unit = f"log10 {_spoken(quantity)}" if quantity.logarithmic else quantity.unit
    return map_drawing(context, maps, across="step", down="layer", unit=unit, once=True)


def _over_steps(group: Group, prefix: str, logarithmic: bool) -> Map | None:
    """A metric by layer over steps, or its log10; the mean over the runs of a group."""
    names = sorted({name for run in group.runs for entry in run.metrics for name in entry if name.startswith(prefix)})
    runs = [[dict(zip(*run.series(name), strict=True)) for name in names] for run in group.runs]
    runs = [layers for layers in runs if all(layers)]
    if not names or not runs:
        return None
    steps = sorted(set.intersection(*(set(layer) for layers in runs for layer in layers)))
    steps = steps[:: -(-len(steps) // COLUMNS)] if steps else steps
    values = np.array([[[layer[step] for step in steps] for layer in layers] for layers in runs])
    with np.errstate(divide="ignore", invalid="ignore"):
        values = (np.log10(values) if logarithmic else values).mean(0)
    values = np.where(np.isfinite(values), values, np.nan)
    return group.label, steps, [int(name.removeprefix(prefix)) for name in names], values
