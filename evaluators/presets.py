"""Shapes of networks under a name. A new one is a function here that returns a `Network`.

It may return a subclass that judges in another way; the command line, the results and the tests take it as it is.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable

from evaluators.network import Network
from evaluators.registry import Registry

Architecture = Callable[[int], Network]
"""From the number of judges to the network's shape; flags of the command line replace single settings of it."""

architectures: Registry[Architecture] = Registry("preset", "depthlab.architectures")
architecture = architectures.register


def summary(name: str) -> str:
    """The first line of an architecture's docstring; of an installed plug-in, which is not imported, its package."""
    if origin := architectures.origin(name):
        return f"of {origin}."
    return (inspect.getdoc(architectures.get(name, flag="--preset")) or "").partition("\n")[0]


@architecture("widedeep")
def widedeep(judges: int) -> Network:
    """The paper's: as many roles as the sample calls for, two layers, every neuron sees all (arXiv:2308.01862)."""
    return Network()


@architecture("widedeep-reference")
def widedeep_reference(judges: int) -> Network:
    """What the authors' code does: neurons see their neighbours only, and take on their roles in layer 2."""
    return Network(connection="window:2", perspective="seen")


@architecture("faireval")
def faireval(judges: int) -> Network:
    """One judge, three evidence-first reviews in each order, averaged (FairEval, arXiv:2305.17926)."""
    return Network(depth=1, roles=(), reviews=3)


@architecture("panel")
def panel(judges: int) -> Network:
    """Several models, each reviewing in both orders without a role; their votes count (PoLL, arXiv:2404.18796)."""
    return Network(depth=1, width=judges, roles=(), aggregation="vote-all", temperatures=(0.0,))


@architecture("single")
def single(judges: int) -> Network:
    """One judge, one review in the order given, at temperature 0."""
    return Network(depth=1, roles=(), both_orders=False, temperatures=(0.0,))
