"""Samples that break where nothing should: a few are theirs, many in a row are the run's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from evaluators.errors import RunError
from evaluators.running.folder import VERDICTS

_MISHAPS = 5
"""Samples in a row that break by an error of ours, after which the run stops."""


class Mishaps:
    """Samples in a row that broke where nothing should."""

    def __init__(self) -> None:
        self._in_a_row = 0

    def check(self, record: Mapping[str, Any]) -> None:
        """Count a sample. Raises RunError where too many broke in a row."""
        failures = [*record["roles_failures"], *(item for layer in record["layers"] for item in layer)]
        broken_by = [item["reason"] for item in failures if item.get("kind") == "internal"]
        self._in_a_row = self._in_a_row + 1 if broken_by else 0
        if self._in_a_row >= _MISHAPS:
            raise RunError(
                f"{self._in_a_row} samples in a row broke by an internal error, the last: {broken_by[-1]}; where it "
                f"comes from stands in {VERDICTS} (trace); --retry-unscored judges them again once that is mended"
            )
