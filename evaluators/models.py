"""What is known of models before they are asked: context, prices, parameters (`models.yaml`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import yaml

_PRICES = ("input", "output", "cached_input", "reasoning")


@dataclass(frozen=True)
class Model:
    """An entry of the table."""

    source: str
    date: str
    context: int | None = None
    """Tokens of prompt and reply together."""
    limit: str = "max_tokens"
    """Name of the parameter that bounds a reply."""
    omits: tuple[str, ...] = ()
    """Parameters that it refuses."""
    price: Mapping[str, Any] | None = None
    """USD per million tokens; None: unpriced."""


@cache
def models() -> Mapping[str, Model]:
    """By exact name."""
    table = yaml.safe_load((files("evaluators") / "models.yaml").read_text(encoding="utf-8"))
    return {name: _model(entry) for name, entry in table.items() if name != "_sources"}


def _model(entry: Mapping[str, Any]) -> Model:
    price = {name: entry[name] for name in _PRICES if name in entry} or None
    others = {name: value for name, value in entry.items() if name not in (*_PRICES, "date", "omits")}
    return Model(**others, date=str(entry["date"]), omits=tuple(entry.get("omits", ())), price=price)
