"""Progress bars on standard error, or none."""

from __future__ import annotations

import sys
from typing import Any

from tqdm import tqdm


def bar(description: str, *, progress: bool, unit: str, total: int | None = None) -> Any:
    """A tqdm bar named `description`, counting `unit`s up to `total` if known; silent unless `progress`."""
    return tqdm(
        desc=description,
        total=total,
        unit=unit,
        unit_scale=True,
        disable=not progress,
        file=sys.stderr,
        dynamic_ncols=True,
        leave=False,
    )
