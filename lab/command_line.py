"""From words to a command's settings with tyro: texts wrapped once, positionals by name, unknown flags with the
nearest.
"""

from __future__ import annotations

import dataclasses
import functools
import re
import shutil
import sys
import textwrap
from collections.abc import Mapping, Sequence
from difflib import SequenceMatcher
from typing import Annotated, Any, NoReturn, TypeVar, get_type_hints

import docstring_parser
import tyro
from tyro.constructors import ConstructorRegistry, StructConstructorSpec, StructFieldSpec, StructTypeInfo

from lab.errors import EXIT_USAGE

T = TypeVar("T")


def read(
    kind: type[T],
    argv: Sequence[str],
    *,
    prog: str,
    default: T | None = None,
    elsewhere: Mapping[str, str] | None = None,
    console_outputs: bool = True,
) -> T:
    """The settings that words stand for.

    Args:
        kind: a dataclass, a docstring under each field.
        argv: the words.
        prog: the command's name, for messages.
        default: settings that the words are laid over.
        elsewhere: flags that are read before, and only listed here -> their help.
        console_outputs: whether this process says what is wrong.

    Raises:
        SystemExit: help was asked for (0), or a word is unknown, malformed or missing (2); it is said.
    """
    given: dict[str, Any] = {} if default is None else {"default": default}
    columns = min(shutil.get_terminal_size().columns, 100) - 1
    paragraphs = (kind.__doc__ or "").split("\n\n")
    settings, unknown = tyro.cli(
        kind,
        args=list(argv),
        prog=prog,
        # tyro joins lines that begin with a letter.
        description="\n\n".join(textwrap.indent(textwrap.fill(_joined(text), columns), " ") for text in paragraphs),
        config=(tyro.conf.PositionalMetavarFromFieldName,),
        registry=_registry(kind, elsewhere or {}),
        return_unknown_args=True,
        console_outputs=console_outputs,
        **given,
    )
    if unknown:
        _refuse(unknown[0], _flags(kind) | dict(elsewhere or {}), prog, console_outputs)
    return settings


def _joined(text: str) -> str:
    return " ".join(text.split())


@functools.cache
def _texts(kind: type) -> dict[str, str]:
    """The docstrings under a dataclass's fields, and under those of the classes that it is made from."""
    found: dict[str, str] = {}
    for above in reversed(kind.__mro__[:-1]):
        found |= {
            field.arg_name: _joined(field.description)
            for field in docstring_parser.parse_from_object(above).params
            if field.description
        }
    return found


def _registry(root: type, elsewhere: Mapping[str, str]) -> ConstructorRegistry:
    registry = ConstructorRegistry()

    @registry.struct_rule
    def rule(info: StructTypeInfo) -> StructConstructorSpec | None:
        """As tyro's own for dataclasses, but that the lines of a docstring are joined."""
        kind = info.type
        if not dataclasses.is_dataclass(kind):
            return None
        hints = get_type_hints(kind, include_extras=True)
        fields = [
            StructFieldSpec(
                field.name, _written(hints[field.name]), _default(field, info.default), _texts(kind).get(field.name)
            )
            for field in dataclasses.fields(kind)
        ]
        if kind is not root or not elsewhere:
            return StructConstructorSpec(kind, tuple(fields))
        optional: Any = str | None
        listed = tuple(StructFieldSpec(name, optional, None, text) for name, text in elsewhere.items())

        def without_listed(**values: Any) -> Any:
            return kind(**{name: value for name, value in values.items() if name not in elsewhere})

        return StructConstructorSpec(without_listed, (*listed, *fields))

    return registry


def _written(hint: Any) -> Any:
    """The type that is read from a word: that of `tyro.conf.arg(constructor=...)` where the field has one."""
    for note in getattr(hint, "__metadata__", ()):
        if (constructor := getattr(note, "constructor_factory", None)) is not None:
            return Annotated[(constructor(), *hint.__metadata__)]
    return hint


def _default(field: dataclasses.Field[Any], instance: Any) -> Any:
    if dataclasses.is_dataclass(instance):
        return getattr(instance, field.name)
    if field.default is not dataclasses.MISSING:
        return field.default
    return tyro.MISSING if field.default_factory is dataclasses.MISSING else field.default_factory()


def _refuse(word: str, flags: Mapping[str, str], prog: str, console_outputs: bool) -> NoReturn:
    flag = word.partition("=")[0]
    if console_outputs:
        if flag.startswith("-"):
            near = _nearest(flag.lstrip("-").replace("_", "-"), flags)
            hint = f"did you mean {' or '.join(f'--{name}' for name in near)}? " if near else ""
            print(f"error: {flag}: no such flag; {hint}{prog} --help lists them", file=sys.stderr)
        else:
            print(f"error: {word!r}: belongs to no flag; {prog} --help shows what goes where", file=sys.stderr)
    raise SystemExit(EXIT_USAGE)


def _flags(kind: Any, above: str = "") -> dict[str, str]:
    """Name of each flag -> its help."""
    found: dict[str, str] = {}
    for field in dataclasses.fields(kind):
        name = f"{above}{field.name.replace('_', '-')}"
        nested: Any = field.default_factory
        if dataclasses.is_dataclass(nested):
            found |= _flags(nested, f"{name}.")
        else:
            found[name] = _texts(kind).get(field.name, "")
    return found


def _nearest(flag: str, flags: Mapping[str, str]) -> list[str]:
    """The likeliest flags, at most 3: of a similar name, or whose name and help hold the words of what was written."""
    *section, leaf = flag.split(".")
    asked = set(leaf.split("-"))

    def likeness(name: str, text: str) -> float:
        *own, last = name.split(".")
        named = set(last.split("-"))
        told = named | set(re.findall(r"[a-z]+", text.lower()))
        alike = max(
            SequenceMatcher(a=flag, b=name).ratio(),
            0.9 * (last == leaf),
            0.85 * (asked <= named),
            0.7 * (asked <= told) + 0.1 / (1 + len(told)),
        )
        return alike + 0.05 * (own == section)

    ranked = sorted(flags, key=lambda name: -likeness(name, flags[name]))
    best = likeness(ranked[0], flags[ranked[0]]) if ranked else 0.0
    return [name for name in ranked[:3] if likeness(name, flags[name]) >= max(0.7, best - 0.005)]
