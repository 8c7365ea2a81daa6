from __future__ import annotations

from evaluators.architectures import architecture
from evaluators.network import Network


@architecture("faireval")
def faireval(judges: int) -> Network:
    """One judge, three evidence-first reviews in each order, averaged (FairEval, arXiv:2305.17926)."""
    return Network(depth=1, roles=(), reviews=3)
