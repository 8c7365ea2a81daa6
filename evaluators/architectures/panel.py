from __future__ import annotations

from evaluators.architectures import architecture
from evaluators.network import Network


@architecture("panel")
def panel(judges: int) -> Network:
    """Several models, each reviewing in both orders without a role; their votes count (PoLL, arXiv:2404.18796)."""
    return Network(depth=1, width=judges, roles=(), aggregation="vote-all", temperatures=(0.0,))
