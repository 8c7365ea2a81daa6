"""JSON as models write it: anywhere in a text, with raw line ends, backslashes of LaTeX, trailing commas."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

_STRING = re.compile(r"\"[^\"\\]*(?:\\.[^\"\\]*)*\"|'[^'\\]*(?:\\.[^'\\]*)*'", re.DOTALL)
_ATOM = re.compile(r"-?\d[\d.eE+-]{0,400}|true|false|null|NaN|-?Infinity|True|False|None")
_BLANK = re.compile(r"[\s\u00a0\ufeff]*(?://[^\n]{0,200}\n\s*)?")
_OPENING = re.compile(r"\{(?=[\s\u00a0]*[\"'}/])|\[(?=[\s\u00a0]*[\"'{\[\]\d/-])")
_ESCAPE = re.compile(r"\\(u[0-9a-fA-F]{4}|[bf](?![A-Za-z])|[\"\\/nrt])|\\(.)|[\x00-\x1f]", re.DOTALL)
_SURROGATES = re.compile("[\ud800-\udfff]")
_WORDS = {"true": True, "True": True, "false": False, "False": False, "null": None, "None": None}
_DEEPEST = 60
_MOST_STEPS = 15_000
"""Strings, numbers and signs that are looked at, in all."""


@dataclass
class Node:
    """A value with its place in the text; `value` holds nodes where it is a dict or a list."""

    value: Any
    start: int
    end: int
    repeated: bool = False
    """An object that has one key twice."""

    def plain(self) -> Any:
        """Without places."""
        if isinstance(self.value, dict):
            return {key: node.plain() for key, node in self.value.items()}
        if isinstance(self.value, list):
            return [node.plain() for node in self.value]
        return self.value


@dataclass
class _Open:
    """An object or list that is still being read."""

    start: int
    value: dict[str, Node] | list[Node]
    key: str | None = None
    comma: bool = True
    """Whether a member may come: at the beginning, or after a comma."""
    repeated: bool = field(default=False)


def find_objects(text: str) -> Iterator[Node]:
    """The objects and lists that stand in a text, outermost only. Time is linear in the text."""
    position = 0
    steps = _MOST_STEPS
    while steps > 0 and (opening := _OPENING.search(text, position)) is not None:
        node, taken, retry = _read(text, opening.start(), steps)
        steps -= taken
        if node is not None:
            yield node
            position = node.end
        else:
            # Whatever was open there is broken by the same sign; a string may have hidden another beginning.
            position = max(retry, opening.start() + 1)


def _read(text: str, start: int, most: int) -> tuple[Node | None, int, int]:
    """The value that begins there, the steps that it took, and where to look again if it is broken."""
    stack: list[_Open] = []
    at = start
    retry = start + 1
    for step in range(1, most + 1):
        at = _BLANK.match(text, at).end()  # type: ignore[union-attr]
        sign = text[at : at + 1]
        top = stack[-1] if stack else None
        node: Node | None = None
        if not sign or len(stack) > _DEEPEST:
            return None, step, retry
        if sign in "}]":
            is_fit = top is not None and isinstance(top.value, dict) == (sign == "}") and top.key is None
            if top is None or not is_fit:
                return None, step, max(retry, at)
            stack.pop()
            node, at = Node(top.value, top.start, at + 1, top.repeated), at + 1
        elif sign == "," and top is not None and not top.comma and top.key is None:
            top.comma, at = True, at + 1
            continue
        elif top is not None and not top.comma:
            return None, step, max(retry, at)
        elif sign in "{[" and (top is None or isinstance(top.value, list) or top.key is not None):
            stack.append(_Open(at, {} if sign == "{" else []))
            at += 1
            retry = at
            continue
        elif sign in "\"'":
            found = _STRING.match(text, at)
            if found is None:
                return None, step, at + 1
            retry = at + 1
            at = found.end()
            if top is not None and isinstance(top.value, dict) and top.key is None:
                top.key = _decoded(found[0])
                at = _BLANK.match(text, at).end()  # type: ignore[union-attr]
                if text[at : at + 1] != ":":
                    return None, step, retry
                at += 1
                continue
            node = Node(_decoded(found[0]), found.start(), found.end())
        else:
            found = _ATOM.match(text, at)
            if found is None or (top is not None and isinstance(top.value, dict) and top.key is None):
                return None, step, max(retry, at)
            at = found.end()
            node = Node(_atom(found[0]), found.start(), found.end())
        if not stack:
            return node, step, at
        _add(stack[-1], node)
    return None, most, len(text)


def _add(parent: _Open, node: Node) -> None:
    if isinstance(parent.value, list):
        parent.value.append(node)
    else:
        assert parent.key is not None
        known = parent.value.get(parent.key)
        parent.repeated |= known is not None and known.plain() != node.plain()
        parent.value[parent.key] = node
        parent.key = None
    parent.comma = False


def _decoded(string: str) -> str:
    """What stands between the quotes; a backslash that begins no escape of JSON is a backslash."""
    body = string[1:-1]
    if "\\" in body:
        escaped = _ESCAPE.sub(_escape, body.replace('"', '\\"') if string[0] == "'" else body)
        body = json.loads(f'"{escaped}"')
    return _SURROGATES.sub("\ufffd", body)


def _escape(found: re.Match[str]) -> str:
    if found[1] is not None:
        return found[0]
    if found[2] is None:
        return json.dumps(found[0])[1:-1]
    return "'" if found[2] == "'" else "\\\\" + json.dumps(found[2])[1:-1]


def _atom(text: str) -> Any:
    if text in _WORDS:
        return _WORDS[text]
    try:
        return float(text)  # also NaN and Infinity, which no scale contains
    except ValueError:
        return text
