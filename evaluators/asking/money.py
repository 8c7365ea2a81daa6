"""What calls cost: a table of prices that users extend, exact sums, and a budget that is not passed."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

from evaluators.errors import ConfigError, RunError
from evaluators.models import models
from evaluators.values import Usage
from evaluators.written import read_yaml

_PER = Decimal(1_000_000)


@dataclass(frozen=True)
class Price:
    """USD for a million tokens."""

    input: Decimal
    output: Decimal
    cached_input: Decimal | None = None
    """Of prompt tokens that the server had already processed; None: the price of the others."""
    reasoning: Decimal | None = None
    """Of completion tokens that were thought and not said; None: the price of the others."""

    def of(self, usage: Usage) -> Decimal:
        """USD for a call: sum over the four kinds of tokens of their number x price / 10^6."""
        cached = self.input if self.cached_input is None else self.cached_input
        reasoning = self.output if self.reasoning is None else self.reasoning
        prompt = (usage.prompt - usage.cached_prompt) * self.input + usage.cached_prompt * cached
        completion = (usage.completion - usage.reasoning) * self.output + usage.reasoning * reasoning
        return (prompt + completion) / _PER


class Prices:
    """Model -> price. A dated snapshot has one only if it is listed itself: some cost more than their successors."""

    def __init__(self, user: Path | None = None) -> None:
        """Raises ConfigError where the user's table cannot be used; names the model."""
        self._prices = {name: price(known.price, name) for name, known in models().items() if known.price}
        if user is not None:
            self._prices |= _table(read_yaml(user, "--prices"), str(user))

    def get(self, model: str) -> Price | None:
        """None: unpriced."""
        return self._prices.get(model)


def _table(content: Any, where: str) -> dict[str, Price]:
    if not isinstance(content, Mapping):
        raise ConfigError(f"--prices {where}: must hold MODEL: {{input: USD, output: USD}} per million tokens")
    return {str(model): price(entry, f"--prices {where}: {model}") for model, entry in content.items()}


def price(entry: Any, where: str) -> Price:
    """From keys and numbers.

    Raises:
        ConfigError: another key, one that is missing, or no number; begins with `where`.
    """
    known = {"input", "output", "cached_input", "reasoning"}
    if not isinstance(entry, Mapping) or set(entry) - known or not {"input", "output"} <= set(entry):
        raise ConfigError(
            f"{where}: must hold input and output (and cached_input, reasoning), in USD per million tokens"
        )
    try:
        values = {name: Decimal(str(value)) for name, value in entry.items()}
    except InvalidOperation as error:
        raise ConfigError(f"{where}: prices must be numbers") from error
    if any(not value.is_finite() or value < 0 for value in values.values()):
        raise ConfigError(f"{where}: prices must be at least 0")
    return Price(**values)


class BudgetError(RunError):
    """The next call could pass the budget."""


class Budget:
    """Money that a folder has cost, and what the calls in flight may cost at most.

    A call starts only if all that was spent, in this start and those before, the worst case of every call in flight and
    its own worst case stay within the limit together.
    """

    def __init__(self, limit: Decimal | None, spent: Decimal = Decimal(0)) -> None:
        self.limit = limit
        self.spent = spent
        self._reserved = Decimal(0)
        self._changed = asyncio.Condition()

    async def reserve(self, worst: Decimal) -> None:
        """Wait until the call fits, for calls in flight to settle for less.

        Raises:
            BudgetError: none is in flight, and it does not fit.
        """
        if self.limit is None:
            return
        async with self._changed:
            while self.spent + self._reserved + worst > self.limit:
                if not self._reserved:
                    raise BudgetError(
                        f"--budget {self.limit}: the next call could pass it ({self.spent:.4f} USD spent)"
                    )
                await self._changed.wait()
            self._reserved += worst

    async def settle(self, worst: Decimal, cost: Decimal) -> None:
        """A call has ended and cost so much."""
        self.spent += cost
        if self.limit is not None:
            async with self._changed:
                self._reserved -= worst
                self._changed.notify_all()
