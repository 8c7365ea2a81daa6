from __future__ import annotations

from evaluators.architectures import architecture
from evaluators.network import Network


@architecture("widedeep-reference")
def widedeep_reference(judges: int) -> Network:
    """What the authors' code does: neurons see their neighbours only, and take on their roles in layer 2."""
    return Network(connection="window:2", perspective="seen")
