"""How tyro sees a dataclass: help from the docstrings under its fields, types as a person would name them."""

from __future__ import annotations

import dataclasses
import functools
import types
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import docstring_parser
import tyro
from tyro.constructors import (
    ConstructorRegistry,
    PrimitiveConstructorSpec,
    PrimitiveTypeInfo,
    StructConstructorSpec,
    StructFieldSpec,
    StructTypeInfo,
)

from evaluators import yaml_words

_WORDS = {int: "INT", float: "FLOAT", str: "STR", bool: "{True,False}"}


def joined(text: str) -> str:
    """The text in one line."""
    return " ".join(text.split())


@functools.cache
def texts(kind: type) -> dict[str, str]:
    """The docstrings under a dataclass's fields, and under those of the classes that it is made from."""
    found: dict[str, str] = {}
    for above in reversed(kind.__mro__[:-1]):
        found |= {
            field.arg_name: joined(field.description)
            for field in docstring_parser.parse_from_object(above).params
            if field.description
        }
    return found


def registry(root: type, elsewhere: Mapping[str, str]) -> ConstructorRegistry:
    """How the fields of `root` and of its sections are read; `elsewhere`: flags that are only listed -> their help."""
    rules = ConstructorRegistry()

    @rules.struct_rule
    def fields_of(info: StructTypeInfo) -> StructConstructorSpec | None:
        """As tyro's own for dataclasses, but that the lines of a docstring are joined."""
        kind = info.type
        if not dataclasses.is_dataclass(kind):
            return None
        hints = get_type_hints(kind, include_extras=True)
        fields = []
        for field in dataclasses.fields(kind):
            default = _default(field, info.default)
            hint = _shown(_written(hints[field.name]), default)
            fields.append(StructFieldSpec(field.name, hint, default, texts(kind).get(field.name)))
        if kind is not root or not elsewhere:
            return StructConstructorSpec(kind, tuple(fields))
        optional = _shown(str | None, None)
        listed = tuple(StructFieldSpec(name, optional, None, text) for name, text in elsewhere.items())

        def without_listed(**values: Any) -> Any:
            return kind(**{name: value for name, value in values.items() if name not in elsewhere})

        return StructConstructorSpec(without_listed, (*listed, *fields))

    @rules.primitive_rule
    def whole_number(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[int] | None:
        """1e5 is a whole number, here as in a YAML file."""
        if info.type is not int:
            return None

        def number(words: list[str]) -> int:
            found = yaml_words.meant(words[0], int)
            if not isinstance(found, int):
                raise ValueError("no whole number")
            return found

        return PrimitiveConstructorSpec(
            1, "INT", number, lambda value: isinstance(value, int), lambda value: [str(value)]
        )

    return rules


def _written(hint: Any) -> Any:
    """The type that is read from a word: that of `tyro.conf.arg(constructor=...)` where the field has one."""
    for note in getattr(hint, "__metadata__", ()):
        if (constructor := getattr(note, "constructor_factory", None)) is not None:
            return Annotated[(constructor(), *hint.__metadata__)]
    return hint


def _shown(hint: Any, default: Any) -> Any:
    """The type with what help says of it: no None that nobody writes, and no default that is none."""
    notes = getattr(hint, "__metadata__", ())
    config: dict[str, Any] = {}
    if not any(getattr(note, "metavar", None) for note in notes) and (word := _metavar(hint)) is not None:
        config["metavar"] = word
    if default is tyro.MISSING and get_origin(getattr(hint, "__origin__", hint)) is tuple:
        config["help_behavior_hint"] = "(required)"  # for tyro a list may be empty
    elif default in (None, "", ()) and not any(getattr(note, "help_behavior_hint", None) for note in notes):
        config["help_behavior_hint"] = ""
    if not config or dataclasses.is_dataclass(get_args(hint)[0] if notes else hint):
        return hint
    return Annotated[hint, tyro.conf.arg(**config)]


def _metavar(hint: Any) -> str | None:
    """Of an optional type or of a list; None where tyro's own is right."""
    if "Positional" in map(str, getattr(hint, "__metadata__", ())):
        return None
    bare = hint.__origin__ if hasattr(hint, "__metadata__") else hint
    if get_origin(bare) in (Union, types.UnionType):
        parts = [_word(part) for part in get_args(bare) if part is not types.NoneType]
        return None if None in parts else "|".join(map(str, parts))
    return _word(bare) if get_origin(bare) is tuple else None


def _word(kind: Any) -> str | None:
    if kind in _WORDS:
        return _WORDS[kind]
    if get_origin(kind) is Literal:
        return "{" + ",".join(map(str, get_args(kind))) + "}"
    if get_origin(kind) is tuple:
        first, *others = get_args(kind)
        one = _word(first) or _metavar(first)
        if one is None:
            return None
        return f"{one} [{one} ...]" if others == [...] else " ".join([one] * (1 + len(others)))
    return None


def _default(field: dataclasses.Field[Any], instance: Any) -> Any:
    if dataclasses.is_dataclass(instance):
        return getattr(instance, field.name)
    if field.default is not dataclasses.MISSING:
        return field.default
    return tyro.MISSING if field.default_factory is dataclasses.MISSING else field.default_factory()
