"""The moments that a monitor can take part in, and the registry."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from lab.parallel.places import Groups


class Monitor:
    """Measures around one optimizer step. The loop calls the moments in this order, on the steps to be measured."""

    def __init__(self, groups: Groups) -> None:
        self.groups = groups

    def before_update(self, gradient_norms: Tensor) -> None:
        """Gradients are complete and not yet clipped; `gradient_norms` is their L2 norm by place `(places,)`."""

    def after_update(self) -> dict[str, float]:
        """Weights have been updated. Returns the figures of this step by name."""
        return {}


_MONITORS: list[Callable[[Groups], Monitor]] = []


def monitor(cls: type[Monitor]) -> type[Monitor]:
    """Register a monitor."""
    _MONITORS.append(cls)
    return cls


def build(groups: Groups) -> list[Monitor]:
    """One of each registered monitor."""
    return [make(groups) for make in _MONITORS]
