"""The figures of a report. A new one is one decorated function in `lab/report/figures/`; what a monitor or a diagnostic
declares of its own figures is drawn without one."""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from typing import Any

from lab.report.compare import Group


@dataclass(frozen=True)
class Frame:
    """A figure at one checkpoint."""

    traces: list[dict[str, Any]]
    """Of Plotly, with names as they are; who draws them escapes them."""
    alternative: str
    """The figure in words."""


@dataclass(frozen=True)
class Drawing:
    """A figure over all checkpoints, with axes that stay the same."""

    frames: list[Frame]
    """One, or one for each step of the context."""
    layout: dict[str, Any]
    columns: tuple[str, ...]
    """Names of x, y (and z of a map) in the table that can be downloaded."""


@dataclass(frozen=True)
class Context:
    """What there is to draw."""

    groups: list[Group]
    steps: list[int | None] = field(default_factory=list)
    """Checkpoints with records, over all runs; [None] for models without steps."""


Draw = Callable[[Context], Drawing | None]


@dataclass(frozen=True)
class Kind:
    """A figure that a report may have."""

    name: str
    section: str
    title: str
    shows: str
    """One line: what it shows and what to look for."""
    unit: str
    definition: str
    source: str
    draw: Draw
    """None where there is nothing to draw."""


Find = Callable[[Context], Iterable[Kind]]

_KINDS: dict[str, Kind] = {}
_DECLARED: list[Find] = []


def figure(
    name: str, *, section: str, title: str, shows: str, unit: str, definition: str, source: str
) -> Callable[[Draw], Draw]:
    """Register the decorated function, which draws a `Context`; reports show figures in the order of registration."""

    def register(draw: Draw) -> Draw:
        if name in _KINDS:
            raise ValueError(f"two figures are called {name!r}")
        _KINDS[name] = Kind(name, section, title, shows, unit, definition, source, draw)
        return draw

    return register


def declared(find: Find) -> Find:
    """Register the decorated function, which finds figures that stand elsewhere: in what was measured, or by whom."""
    _DECLARED.append(find)
    return find


@cache
def _import_all() -> None:
    package = import_module("lab.report.figures")
    for module in sorted(found.name for found in pkgutil.iter_modules(package.__path__)):
        import_module(f"{package.__name__}.{module}")


def kinds(context: Context) -> list[Kind]:
    """All figures that a report on this may have, training first; a figure of its own goes before one declared."""
    _import_all()
    found = {kind.name: kind for find in _DECLARED for kind in find(context)} | _KINDS
    return sorted(found.values(), key=lambda kind: (kind.section != "Training", kind.name not in _KINDS))
