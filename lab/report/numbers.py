"""Numbers as people and JSON read them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from lab.report.compare import Interval


def short(values: Any) -> Any:
    """Nested lists of six significant digits for the page; None for what is not finite."""
    array = np.asarray(values, dtype=np.float64)
    if array.ndim:
        return [short(value) for value in array]
    return float(f"{float(array):.6g}") if math.isfinite(array) else None


def spoken(value: float | None) -> str:
    """Four significant digits."""
    if value is None or not math.isfinite(value):
        return "–"
    if value != 0 and (abs(value) >= 1e6 or abs(value) < 1e-4):
        return f"{value:.2e}"
    return f"{value:,.0f}" if abs(value) >= 1e4 else f"{value:.4g}"


def with_interval(found: Interval | None, *, sign: bool = False) -> str:
    """Such as `3.214 ± 0.021`."""
    if found is None:
        return "–"
    text = ("+" if sign and found.mean >= 0 else "") + spoken(found.mean)
    return text if found.half_width is None else f"{text} ± {found.half_width:.2g}"
