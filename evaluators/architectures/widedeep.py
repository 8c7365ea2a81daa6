from __future__ import annotations

from evaluators.architectures import architecture
from evaluators.network import Network


@architecture("widedeep")
def widedeep(judges: int) -> Network:
    """The paper's: as many roles as the sample calls for, two layers, every neuron sees all (arXiv:2308.01862)."""
    return Network()
