"""What the monitors measured, from `metrics.jsonl`, drawn as they declare it."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from lab.monitors import quantities
from lab.monitors.quantity import Quantity
from lab.report.figures.training import by_layer, curves
from lab.report.registry import Context, Drawing, Kind, declared


@declared
def of_monitors(context: Context) -> Iterator[Kind]:
    """A heat map of layers over steps for each quantity, or a curve for one of the whole model."""
    for quantity in quantities():
        of_layers = quantity.over != "model"
        yield Kind(
            quantity.panel or quantity.name,
            section="Training",
            title=quantity.title,
            shows=quantity.shows,
            unit=f"log10 {_spoken(quantity)}" if of_layers and quantity.logarithmic else quantity.unit,
            definition=("log10 of: " if of_layers and quantity.logarithmic else "") + quantity.definition,
            source=f"metrics.jsonl, {quantity.name}{'/layer_*' if of_layers else ''}; {quantity.source}",
            draw=partial(_map if of_layers else _curve, quantity=quantity),
        )


def _spoken(quantity: Quantity) -> str:
    return "of a ratio" if quantity.relative_to is not None and quantity.unit == "1" else quantity.unit


def _curve(context: Context, quantity: Quantity) -> Drawing | None:
    return curves(context, quantity.name, quantity.unit, logarithmic=quantity.logarithmic)


def _map(context: Context, quantity: Quantity) -> Drawing | None:
    unit = f"log10 {_spoken(quantity)}" if quantity.logarithmic else quantity.unit
    return by_layer(context, quantity.name, unit, logarithmic=quantity.logarithmic)
