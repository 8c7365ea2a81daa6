"""Perspectives from a judge's reply: JSON, or one a line. Names stay as they were written, whatever signs they hold."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from evaluators.reading.objects import find_objects
from evaluators.storing import one_line
from evaluators.values import Role

MAX_NAME = 120
MAX_FOCUS = 400
MAX_ROLES = 200
"""Characters of a name and of what it looks at, and how many are read. They come from a model that has just read the
texts under judgement, and stand in the prompts of every neuron."""

_ITEM = re.compile(
    r"^[ \t]*(?:[-*•–+]|\(?\d{1,2}[.):、．]|#{1,4}(?=\s)|(?:role|perspective|angle|aspect)\s*\d*\s*[:：])"
    r"[ \t]*(?P<item>\S.*)$",
    re.IGNORECASE | re.MULTILINE,
)
_NAME_AND_FOCUS = re.compile(r"^(?P<name>.{1,200}?)(?:\s*[:：]\s+|[:：](?=\D)|\s+[-–—]\s+)(?P<focus>.+)$")


def parse_roles(text: str) -> tuple[Role, ...]:
    """The perspectives that a reply names, in its order, each once. Empty where it names none."""
    roles: dict[str, Role] = {}
    found = [*itertools.islice(_from_json(text), MAX_ROLES)] or itertools.islice(_from_lines(text), MAX_ROLES)
    for role in found:
        if role.name:
            roles.setdefault(role.name.casefold(), role)
    return tuple(roles.values())


def _from_json(text: str) -> Iterator[Role]:
    for node in find_objects(text):
        for item in _listed(node.plain()):
            if isinstance(item, str):
                yield _role(item, "")
            elif isinstance(item, Mapping) and isinstance(item.get("name"), str):
                focus: Any = item.get("focus", "")
                yield _role(item["name"], focus if isinstance(focus, str) else "")


def _listed(value: Any) -> Sequence[Any]:
    """The list of perspectives: the value itself, its `roles`, or those of an object within it."""
    if isinstance(value, list):
        return value
    if not isinstance(value, Mapping):
        return ()
    roles = next((item for key, item in value.items() if key.strip().lower() in ("roles", "perspectives")), None)
    return roles if isinstance(roles, list) else next(filter(None, map(_listed, value.values())), ())


def _from_lines(text: str) -> Iterator[Role]:
    for found in _ITEM.finditer(text):
        item = re.sub(r"\*\*|__|`", "", found["item"]).strip()
        split = _NAME_AND_FOCUS.match(item)
        yield _role(split["name"], split["focus"]) if split else _role(item.rstrip(":："), "")


def _role(name: str, focus: str) -> Role:
    return Role(one_line(name, MAX_NAME), one_line(focus, MAX_FOCUS))
