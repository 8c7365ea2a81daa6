"""Shapes of networks under a name. A new one is one new file in this folder: a function that returns a `Network`.

It may return a subclass that judges in another way; the command line, the results and the tests take it as it is.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable

from evaluators.network import Network
from evaluators.registry import Registry

Architecture = Callable[[int], Network]
"""From the number of judges to the network's shape; flags of the command line replace single settings of it."""

architectures: Registry[Architecture] = Registry("preset", __name__, __path__)
architecture = architectures.register


def summary(name: str) -> str:
    """The first line of an architecture's docstring."""
    return (inspect.getdoc(architectures.get(name, flag="--preset")) or "").splitlines()[0]
