"""Settings by the names that flags, reports and trackers give them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def flat(nested: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """Nested settings by their dotted names, such as `train.steps`."""
    names: dict[str, Any] = {}
    for key, value in nested.items():
        names |= flat(value, f"{above}{key}.") if isinstance(value, Mapping) else {f"{above}{key}": value}
    return names
