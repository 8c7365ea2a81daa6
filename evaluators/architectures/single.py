from __future__ import annotations

from evaluators.architectures import architecture
from evaluators.network import Network


@architecture("single")
def single(judges: int) -> Network:
    """One judge, one review in the order given, at temperature 0."""
    return Network(depth=1, roles=(), both_orders=False, temperatures=(0.0,))
