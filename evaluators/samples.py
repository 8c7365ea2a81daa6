"""What is judged: a query and two responses (or one), as people wrote them down, checked line by line."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from evaluators.errors import RunError
from evaluators.storing import clean

FIELDS = (
    "id",
    "query",
    "response1",
    "response2",
    "human",
    "dataset",
    "family",
    "reference",
    "language",
    "system1",
    "system2",
)
"""Fields of a line; only query and response1 must be there (and response2 where pairs are judged)."""

LABELS: Mapping[Any, int] = {
    **dict.fromkeys((1, "1", "model1", "model_1", "model_a", "response1", "response_1", "a", "win", "first"), 1),
    **dict.fromkeys((2, "2", "model2", "model_2", "model_b", "response2", "response_2", "b", "lose", "loss"), 2),
    "second": 2,
    **dict.fromkeys((0, "0", -1, "-1", "tie", "draw", "equal", "same"), 0),
    **dict.fromkeys(("tie (bothbad)", "both_bad", "tie (inconsistent)"), 0),
}
"""How data sets spell what people preferred -> 1, 2 or 0 (tie). Texts are compared in lower case.

Chatbot Arena (arXiv:2403.04132) asks for A, B, tie, and tie where both are bad, which is a tie of how good they are;
MT-bench's tie (inconsistent) is a judge's whose verdict turned with the order.
"""

MISSING = frozenset(("", "none", "null", "nan", "na", "n/a", "<na>", "nat"))
"""How files spell that there is no value, in lower case."""

AMBIGUOUS = frozenset(("both", "neither"))
"""A tie to some, and to others that the person would or could not say."""

MAX_ID = 200


@dataclass(frozen=True)
class Pair:
    """A query and the responses to compare; one response only where `response2` is None."""

    id: str
    query: str
    """Blank where the family has no material: each response is then a whole dialogue."""
    response1: str
    response2: str | None
    human: float | None = None
    """What people said: 1, 2 or 0 (tie). Of a single response: their grade, in any unit."""
    dataset: str = ""
    family: str = "QA"
    reference: str | None = None
    language: str = ""
    """Where the data say or show it, to break figures down; never shown to a judge."""
    system1: str | None = None
    """What wrote response 1, where that is known: for rankings, never shown to a judge."""
    system2: str | None = None

    @property
    def digest(self) -> str:
        """Of everything that a judge may see or be compared with, but not the id."""
        parts = (
            self.query,
            self.response1,
            self.response2,
            self.reference,
            self.family,
            self.dataset,
            self.human,
        )
        return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]

    @property
    def is_single(self) -> bool:
        """One response, to be graded by itself."""
        return self.response2 is None


def label(value: Any, field: str = "human") -> int:
    """1, 2 or 0 (tie) from any spelling in `LABELS`.

    Raises:
        RunError: another value.
    """
    key = _key(value)
    if isinstance(key, str) and key in AMBIGUOUS:
        raise RunError(f"{field} is {value!r}, a tie or no judgement; write tie, or nothing where nobody judged")
    if isinstance(key, (str, int, float)) and not isinstance(key, bool) and key in LABELS:
        return LABELS[key]
    spellings = ", ".join(f"{name}: {_spellings(number)}" for number, name in ((1, "1"), (2, "2"), (0, "tie")))
    raise RunError(f"{field} is {value!r}, which is no known label ({spellings})")


def is_missing(value: Any) -> bool:
    """Whether a field holds no value: None, NaN, or a text that pandas and others write for it."""
    return (
        value is None
        or (isinstance(value, float) and math.isnan(value))
        or (isinstance(value, str) and _key(value) in MISSING)
    )


def _key(value: Any) -> Any:
    # A column of whole numbers in which some are missing is written as 1.0, 2.0.
    return re.sub(r"^(-?\d)\.0+$", r"\1", value.strip().lower()) if isinstance(value, str) else value


def _spellings(number: int) -> str:
    return "/".join(sorted({str(spelling) for spelling, meaning in LABELS.items() if meaning == number}))


def make_pair(fields: Mapping[str, Any], *, fallback_id: str, without_query: frozenset[str] = frozenset()) -> Pair:
    """A checked pair from the fields of a line.

    Args:
        without_query: families in which a query may be missing or blank.

    Raises:
        RunError: a field is missing, of the wrong type or empty; says which and what is expected.
    """
    response2 = _text(fields, "response2", required=False)
    said = fields.get("human")
    read = label if response2 is not None else _grade
    human = None if is_missing(said) else read(said)
    systems = [_text(fields, name, required=False) or None for name in ("system1", "system2")]
    if response2 is not None and (systems[0] is None) != (systems[1] is None):
        raise RunError(f"{'system1' if systems[0] is None else 'system2'} is missing; name both systems or neither")
    family = _text(fields, "family", required=False) or "QA"
    return Pair(
        id=_identifier(fields.get("id"), fallback_id),
        query=_text(fields, "query", required=family not in without_query) or "",
        response1=_text(fields, "response1", may_be_empty=True) or "",
        response2=response2,
        human=human,
        dataset=_text(fields, "dataset", required=False) or "",
        family=family,
        reference=_text(fields, "reference", required=False),
        language=_text(fields, "language", required=False) or "",
        system1=systems[0],
        system2=systems[1],
    )


def _identifier(value: Any, fallback: str) -> str:
    if value is None:
        return fallback
    if isinstance(value, bool) or not isinstance(value, (str, int)) or not str(value).strip():
        raise RunError(f"id is {value!r}; expected a text or a whole number")
    if len(str(value)) > MAX_ID:
        raise RunError(f"id is {len(str(value))} characters long; at most {MAX_ID}")
    return clean(str(value))


def _grade(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise RunError(f"human is {value!r}; for a single response, a number is expected")
    return float(value)


def _text(fields: Mapping[str, Any], name: str, *, required: bool = True, may_be_empty: bool = False) -> str | None:
    value = fields.get(name)
    if value is None and not required:
        return None
    if not isinstance(value, str):
        raise RunError(f"{name} is missing" if value is None else f"{name} is {_kind(value)}, not a text")
    # A response may be blank: that is something to judge. A query may not.
    if required and not may_be_empty and not value.strip():
        raise RunError(f"{name} is empty")
    # A lone surrogate (\ud800 in JSON) can be neither sent nor stored.
    return value.encode("utf-8", "replace").decode("utf-8")


def _kind(value: Any) -> str:
    if isinstance(value, float) and math.isnan(value):
        return "NaN"
    is_chat = isinstance(value, list) and value and all(isinstance(item, Mapping) for item in value)
    return "a list of messages (join their contents)" if is_chat else type(value).__name__
