"""What a run would take, before the first call: `--dry-run`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal

from evaluators.asking.money import Price
from evaluators.judges import Judge
from evaluators.network import Network
from evaluators.prompts import Prompts, Texts
from evaluators.samples import Pair
from evaluators.values import Usage

REPLY_TOKENS = 250
"""Tokens of a reply, taken for all of them: an explanation of some 150 words and the scores."""


@dataclass
class Estimate:
    """For all samples together."""

    samples: int = 0
    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: Decimal | None = None
    """None: unpriced, in part at least."""


def roles_range(network: Network, judges: int) -> list[int]:
    """Numbers of roles to estimate for: the fewest, the middle and the most that a sample may have."""
    if network.roles is not None:
        return [min(len(network.roles) or network.width or 1, network.width or len(network.roles) or 1)]
    if network.width is not None:
        return [network.width]
    return sorted({network.min_roles, (network.min_roles + network.max_roles) // 2, network.max_roles})


def estimate(
    pairs: Iterable[Pair],
    network: Network,
    prompts: Prompts,
    judges: Sequence[Judge],
    prices: Sequence[Price | None],
    roles: int,
) -> Estimate:
    """Calls, tokens and cost with `roles` roles a sample; judges share the calls evenly.

    The prompts of layer 1 are made and counted; in later layers, the reviews that a neuron sees are added.
    """
    total = Estimate(cost=Decimal(0))
    for pair in pairs:
        single = pair.is_single
        texts = Texts(pair.query, (pair.response1, *([] if single else [pair.response2 or ""])), pair.reference)
        reviews = prompts.review(pair.family, texts, "role", (), (1, 10), structured=False, confidence=False)
        base = sum(judges[0].count_tokens(message.content) for message in reviews)
        per_neuron = network.reviews * (1 if single else len(network.orders))
        prompt = base if network.roles is None else 0
        for layer in range(1, network.depth + 1):
            for neuron in range(1, roles + 1):
                seen = sum(network.sees(neuron, other) for other in range(1, roles + 1)) * per_neuron
                prompt += per_neuron * (base + (seen * (REPLY_TOKENS + 30) if layer > 1 else 0))
        calls = network.calls(roles, single=single)
        total.samples += 1
        total.calls += calls
        total.prompt_tokens += prompt
        total.completion_tokens += calls * REPLY_TOKENS
    for price in prices:
        if price is None or total.cost is None:
            total.cost = None
        else:
            total.cost += price.of(Usage(total.prompt_tokens, total.completion_tokens)) / len(prices)
    return total
