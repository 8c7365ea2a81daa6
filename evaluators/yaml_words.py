"""YAML as people write it: a word means what the setting it is given to can be.

YAML 1.1, which PyYAML reads, takes `no`, `off`, `yes` and `on` for booleans, `2:4` for 124 and `1e5` for a text. Here
every plain value is read as it is written, and the type of the setting decides.
"""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any, Literal, Union, get_args, get_origin

import yaml

_YES = frozenset({"yes", "on", "true", "y"})
_NO = frozenset({"no", "off", "false", "n"})
_NOTHING = frozenset({"", "~", "null", "none"})


def read(text: str) -> Any:
    """The content of a YAML text, with every value as it is written.

    Raises:
        yaml.YAMLError: it is not YAML.
    """
    return yaml.load(text, Loader=_Loader)


class _Loader(yaml.BaseLoader):
    """Refuses a key that stands twice, of which PyYAML would take the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                raise yaml.MarkedYAMLError(problem=f"{key.value} stands twice", problem_mark=key.start_mark)
            seen.add(str(key.value))
        return super().construct_mapping(node, deep)


def fault(error: yaml.YAMLError | UnicodeDecodeError) -> str:
    """What is wrong with a text that is no YAML, where, and what to do, in one line."""
    if isinstance(error, UnicodeDecodeError):
        return f"not text in UTF-8 (byte {error.start + 1}); save it as UTF-8"
    mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None) or str(error)
    place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark is not None else ""
    remedy = "; indent with spaces" if "'\\t'" in problem else ""
    return f"{place}{' '.join(problem.split())}{remedy}"


def meant(value: Any, kind: Any) -> Any:
    """What a value that `read` gives means for a setting of a type; the same where it cannot mean anything else.

    Args:
        value: text, a list or a dict.
        kind: a type, with unions and literals.
    """
    if kind is Any and isinstance(value, (list, dict)):
        inside = value.items() if isinstance(value, dict) else enumerate(value)
        found = {key: meant(entry, Any) for key, entry in inside}
        return found if isinstance(value, dict) else list(found.values())
    choices = _choices(kind)
    if isinstance(value, list):
        inner = [get_args(choice)[0] for choice in choices if get_origin(choice) in (tuple, list) and get_args(choice)]
        return [meant(entry, inner[0]) for entry in value] if inner else value
    if not isinstance(value, str):
        return value
    word = value.strip().lower()
    literals = [choice for kind in choices if get_origin(kind) is Literal for choice in get_args(kind)]
    if value in literals:
        return value
    if types.NoneType in choices and word in _NOTHING:
        return None
    for words, truth in ((_YES, True), (_NO, False)):
        if word in words:
            if bool in choices:
                return truth
            return next((literal for literal in literals if str(literal).lower() in words), value)
    if str in choices and kind is not Any:
        return value
    readings: list[tuple[type, Callable[[str], Any]]] = [(int, _integer), (float, _number)]
    for wanted, reading in readings:
        if wanted in choices and (number := reading(word)) is not None:
            return number
    return value


def _choices(kind: Any) -> tuple[Any, ...]:
    if kind is Any:
        return (types.NoneType, bool, int, float, str)
    if get_origin(kind) in (Union, types.UnionType):
        return tuple(choice for part in get_args(kind) for choice in _choices(part))
    if hasattr(kind, "__metadata__"):  # Annotated
        return _choices(kind.__origin__)
    return (kind,)


def _integer(word: str) -> int | None:
    number = _number(word)
    word = word.lstrip("0") or "0" if word.isdecimal() else word
    try:
        return int(word, 0)
    except ValueError:
        return int(number) if number is not None and number.is_integer() else None


def _number(word: str) -> float | None:
    try:
        return float(word)
    except ValueError:
        return None
