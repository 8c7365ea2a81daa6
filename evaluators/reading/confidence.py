"""How sure a judge says that it is, from 1 to 10."""

from __future__ import annotations

import re

from evaluators.reading.numbers import read_value
from evaluators.reading.words import any_of, words

_SCALE = (1, 10)
_LINE = re.compile(rf"^[^\w\n]{{0,12}}(?:[^\W\d_]{{1,12}} )?{any_of(words('sure'))}[^\n\d:=]{{0,24}}[:=]", re.MULTILINE)
_PERCENT = re.compile(r"[^\w\n+-]{0,8}(\d{1,3}(?:\.\d{1,4})?) ?%[^\w\n]{0,8}$", re.MULTILINE)


def stated_confidence(plain: str) -> float | None:
    """Of the last line that states one, as "Confidence: 8", "8/10" or "80 %"; None where it is no such number."""
    stated = list(_LINE.finditer(plain))
    if not stated:
        return None
    last = stated[-1]
    if (percent := _PERCENT.match(plain, last.end())) is not None:
        return in_scale(float(percent[1]) / 10)
    end = plain.find("\n", last.end())
    return read_value(plain, last.end(), len(plain) if end < 0 else end, _SCALE).number


def in_scale(value: object) -> float | None:
    """The number if it is one from 1 to 10; `true` is none."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value) if _SCALE[0] <= value <= _SCALE[1] else None
