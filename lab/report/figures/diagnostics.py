"""What diagnostics measured and say how to draw (`Figure.drawn`), and no figure of the report draws otherwise."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from lab.diagnostics.values import Figure
from lab.report.drawing import lines_over_checkpoints, lines_over_steps, maps_over_steps
from lab.report.registry import Context, Drawing, Kind, declared


@declared
def of_diagnostics(context: Context) -> Iterator[Kind]:
    """A line over its one axis, a heat map over two, a curve over checkpoints for a number."""
    for name, figure in _drawn(context).items():
        assert figure.drawn is not None
        yield Kind(
            name.replace("/", "_"),
            section="Layers",
            title=figure.drawn.title,
            shows=figure.drawn.shows,
            unit=figure.unit,
            definition=f"{figure.reduction[:1].upper()}{figure.reduction[1:]}.",
            source=figure.drawn.source,
            draw=partial(_draw, name=name, figure=figure),
        )


def _drawn(context: Context) -> dict[str, Figure]:
    """Figures that say how they are drawn, over all records; the newest record's word counts."""
    return {
        f"{diagnostic}/{name}": figure
        for group in context.groups
        for run in group.runs
        for record in run.records.values()
        for diagnostic, figures in record.diagnostics.items()
        for name, figure in figures.items()
        if figure.drawn is not None
    }


def _draw(context: Context, name: str, figure: Figure) -> Drawing | None:
    assert figure.drawn is not None
    axes = ["residual stream h_l, after layer l" if axis == "stream" else axis for axis in figure.axes]
    if not axes:
        return lines_over_checkpoints(context, name, unit=figure.unit, logarithmic=figure.drawn.logarithmic)
    if len(axes) == 1:
        logarithmic = figure.drawn.logarithmic
        return lines_over_steps(context, {name: name}, axis=axes[0], unit=figure.unit, logarithmic=logarithmic)
    if len(axes) == 2:
        return maps_over_steps(context, name, down=axes[0], across=axes[1], unit=figure.unit)
    return None
