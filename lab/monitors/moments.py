"""The moments of a step that a monitor can take part in, and the registry."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from lab.monitors.quantity import Quantity
from lab.parallel.places import Groups


@dataclass(frozen=True)
class NoOptions:
    """A monitor's options, unless it has a dataclass of its own."""


class Monitor:
    """Measures around one optimizer step. On the steps to be measured the moments come in this order; on others none.

    `before_forward`, `on_layer`, `after_forward` come for each micro-batch, and gradients may not flow through what
    they compute. Each rank sees its own micro-batches: what is counted there is added up with
    `lab.parallel.collectives`, so that the figures are those of one process.

    Args:
        groups: parameters by place: their norms, and numbers of elements, however the processes share them.
        options: an `Options`, with what the run says.
    """

    name: ClassVar[str]
    quantities: ClassVar[tuple[Quantity, ...]]
    Options: ClassVar[type] = NoOptions
    """A frozen dataclass; `--monitors.options NAME.FIELD=VALUE` sets its fields."""

    def __init__(self, groups: Groups, options: Any) -> None:
        self.groups, self.options = groups, options

    def before_forward(self, batch: dict[str, Tensor]) -> None:
        """A micro-batch of this rank, each entry (B, T), is about to be computed."""

    def on_layer(self, layer: int, stream: Tensor) -> None:
        """Layer 1..L has put out the residual stream (B, T, D), before the final norm. Called by a hook, which is
        there only on measured steps, and only if a monitor defines this method."""

    def after_forward(self, logits: Tensor, batch: dict[str, Tensor]) -> None:
        """The micro-batch's logits (B, T, V) are there."""

    def after_backward(self) -> None:
        """The gradients of the step are complete, and not yet known to be finite."""

    def before_update(self, gradient_norms: Tensor) -> None:
        """Gradients are finite and not yet clipped; `gradient_norms` is their L2 norm by place `(places,)`."""

    def after_update(self) -> dict[str, Tensor]:
        """Weights have been updated.

        Returns:
            For each quantity that the monitor declares, its values: `(places,)`, `(L,)` or `()`, as it says; the same
            on every rank.
        """
        raise NotImplementedError

    def state_dict(self) -> dict[str, Any]:
        """What must survive a resume, for JSON; the same on every rank. It is kept in checkpoints."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` gave, maybe on another number of processes."""


REGISTRY: dict[str, type[Monitor]] = {}


def monitor(name: str, *quantities: Quantity) -> Callable[[type[Monitor]], type[Monitor]]:
    """Register the decorated class.

    Args:
        name: what people switch it off by.
        quantities: the figures that it gives.
    """

    def register(cls: type[Monitor]) -> type[Monitor]:
        if name in REGISTRY:
            raise ValueError(f"two monitors are called {name!r}")
        taken = {quantity.name for other in REGISTRY.values() for quantity in other.quantities}
        if twice := taken & {quantity.name for quantity in quantities}:
            raise ValueError(f"two monitors give {min(twice)!r}")
        cls.name, cls.quantities = name, quantities
        REGISTRY[name] = cls
        return cls

    return register


def names() -> tuple[str, ...]:
    """The registered monitors, sorted."""
    return tuple(sorted(REGISTRY))


def quantities() -> list[Quantity]:
    """What the registered monitors declare, in the order of registration."""
    return [quantity for cls in REGISTRY.values() for quantity in cls.quantities]
