"""What a diagnostic gives: numbers along named axes, with unit, reduction and standard error."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Coordinates = Sequence[Any]


@dataclass(frozen=True)
class Drawn:
    """How a report shows a figure that it has no drawing of its own for: a line over one axis, a heat map over two."""

    title: str
    shows: str = ""
    """One line: what it shows and what to look for."""
    logarithmic: bool = False
    """The axis of the values of a line."""
    source: str = ""
    """The diagnostic's; filled in when it is measured."""


@dataclass(frozen=True, eq=False)
class Figure:
    """One quantity: a number, a line over the layers, or a map."""

    values: np.ndarray
    """float64, one dimension an axis."""
    axes: Mapping[str, Coordinates]
    """Name of each axis -> its coordinates, such as `layer` -> 1 .. L."""
    unit: str
    """Such as `nats/token`; `1` for a share or a ratio."""
    reduction: str
    """What the number is over tokens, blocks or samples."""
    error: np.ndarray | None = None
    """Standard error of each value, where the value is a mean; NaN where there are too few blocks to tell."""
    drawn: Drawn | None = None
    """How a report draws it; None where it does not, or has a drawing of its own."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "values", np.asarray(self.values, dtype=np.float64))
        object.__setattr__(self, "axes", {name: list(places) for name, places in self.axes.items()})
        if self.error is not None:
            object.__setattr__(self, "error", np.asarray(self.error, dtype=np.float64))
            assert self.error is not None and self.error.shape == self.values.shape
        assert self.values.shape == tuple(len(places) for places in self.axes.values()), (self.values.shape, self.axes)

        assert self.drawn is None or len(self.axes) <= 2, f"{self.drawn.title}: a report draws two axes at most"

    def at(self, **where: Any) -> float:
        """The value at coordinates, one for each axis: `figure.at(layer=3)`.

        Raises:
            KeyError: there is no such axis or coordinate.
        """
        if set(where) != set(self.axes):
            raise KeyError(f"give one coordinate for each of {', '.join(self.axes) or 'no axis'}")
        index = []
        for name, places in self.axes.items():
            if where[name] not in places:
                raise KeyError(f"{name} {where[name]!r}: not in {list(places)}")
            index.append(list(places).index(where[name]))
        return float(self.values[tuple(index)])

    def to_pandas(self) -> Any:
        """A table with one row a value: its coordinates, `value`, `standard_error` (NaN where there is none)."""
        import pandas

        grids = np.meshgrid(*(np.arange(len(places)) for places in self.axes.values()), indexing="ij")
        table = {
            name: [places[int(index)] for index in grid.ravel()]
            for (name, places), grid in zip(self.axes.items(), grids, strict=True)
        }
        error = np.full(self.values.shape, np.nan) if self.error is None else self.error
        return pandas.DataFrame(table | {"value": self.values.ravel(), "standard_error": error.ravel()})


def layer_axis(depth: int) -> dict[str, range]:
    """Layers 1 .. L."""
    return {"layer": range(1, depth + 1)}


def stream_axis(depth: int) -> dict[str, range]:
    """Residual streams h_0 (embeddings) .. h_L."""
    return {"stream": range(depth + 1)}
