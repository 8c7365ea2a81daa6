"""What is wrong with a command line, in one line: the flag, its value, what is wrong, what to write instead."""

from __future__ import annotations

import dataclasses
import re
import types
from collections.abc import Mapping, Sequence
from difflib import SequenceMatcher, get_close_matches
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from tyro._errors import BadValue, InstantiationFailure, InvalidChoice, MissingArgs, ParseErrorEvent

from evaluators.command_line.fields import joined, texts

Flags = dict[str, tuple[str, Any]]
"""Name of a flag -> its help, its type."""
_NAMES = {int: "a whole number", float: "a number", bool: "True or False", str: "a text"}


def flags_of(kind: Any, *, flat: bool = False, above: str = "") -> Flags:
    """The flags of a dataclass and of its sections; those that help does not show are left out."""
    hints = get_type_hints(kind, include_extras=True)
    found: Flags = {}
    for field in dataclasses.fields(kind):
        hint = hints[field.name]
        nested: Any = field.default_factory
        notes = getattr(hint, "__metadata__", ())
        marks = {str(note) for note in notes}
        own = next((note.name for note in notes if getattr(note, "name", None)), field.name)
        name = f"{above}{own.replace('_', '-')}"
        if marks & {"Suppress", "Positional"}:
            continue
        if dataclasses.is_dataclass(nested):
            inside = above if flat or "OmitArgPrefixes" in marks else f"{name}."
            found |= flags_of(nested, flat=flat, above=inside)
        else:
            found[name] = (texts(kind).get(field.name, ""), hint)
    return found


def why(event: ParseErrorEvent, argv: Sequence[str]) -> str | None:
    """The line for what tyro refuses; None for what it says better itself."""
    if isinstance(event, MissingArgs):
        names = [_name(missing.arg) for missing in event.missing_arguments]
        text = _first_sentence(event.missing_arguments[0].arg.field.helptext)
        return f"{', '.join(names)}: missing{f'; needed: {text}' if text else ''}; {event.prog} --help tells more"
    if isinstance(event, BadValue):
        kind = event.argument.field.type_stripped
        return f"{_given(event.argument, argv)}: needs a value{'' if kind is str else f': {_meaning(kind)}'}"
    if isinstance(event, InvalidChoice):
        # Of an optional type tyro's choices come in any order.
        choices = _literals(event.argument.field.type_stripped) or list(event.choices)
        return f"{_name(event.argument)} {event.value}: {_choose(event.value, choices)}"
    if isinstance(event, InstantiationFailure):
        if event.argument is None:
            return joined(event.message)
        kind, given = event.argument.field.type_stripped, _given(event.argument, argv)
        choices = _literals(kind)
        return f"{given}: {_choose(given.partition(' ')[2], choices) if choices else f'must be {_meaning(kind)}'}"
    return None


def unknown_word(word: str, argv: Sequence[str], flags: Flags, prog: str) -> str:
    """The line for a word that belongs to no flag."""
    flag = word.partition("=")[0]
    if flag.startswith("-"):
        near = _nearest(_spelled(flag), {name: text for name, (text, _) in flags.items()})
        hint = f"did you mean {' or '.join(f'--{name}' for name in near)}? " if near else ""
        return f"{flag}: no such flag; {hint}{prog} --help lists them"
    before = argv[argv.index(word) - 1] if word in argv[1:] else ""
    if flags.get(_spelled(before), ("", None))[1] is bool:
        section, dot, leaf = _spelled(before).rpartition(".")
        return f"{before} {word}: takes no value; write --{section}{dot}{leaf} or --{section}{dot}no-{leaf} alone"
    return f"{word!r}: belongs to no flag; {prog} --help shows what goes where"


def known(word: str, flags: Flags) -> bool:
    """Whether a flag is among those that there are, or a word that every command takes."""
    name = _spelled(word.partition("=")[0])
    return name in flags or _positive(name) in flags or name in ("", "help") or name.startswith("tyro-")


def _positive(name: str) -> str:
    """A switch turned off -> its name: `section.no-switch` -> `section.switch`."""
    section, dot, leaf = name.rpartition(".")
    return f"{section}{dot}{leaf.removeprefix('no-')}"


def _spelled(flag: str) -> str:
    return flag.lstrip("-").replace("_", "-")


def _name(argument: Any) -> str:
    name = argument.lowered.name_or_flags[0]
    return str(argument.lowered.metavar or name).split()[0].strip("[]") if argument.is_positional() else name


def _given(argument: Any, argv: Sequence[str]) -> str:
    """The flag with the words that were given to it, as they stood."""
    names = {_spelled(name) for name in argument.lowered.name_or_flags}
    said: list[str] = []
    for at, word in enumerate(argv):
        flag, equals, value = word.partition("=")
        if flag.startswith("-") and _spelled(flag) in names:
            said = [value] if equals else []
            for after in [] if equals else argv[at + 1 :]:
                if after.startswith("--"):
                    break
                said.append(after)
    most = argument.lowered.nargs if isinstance(argument.lowered.nargs, int) else len(said)
    return " ".join([_name(argument), *said[:most]])


def _parts(kind: Any) -> tuple[Any, ...]:
    return get_args(kind) if get_origin(kind) in (Union, types.UnionType) else (kind,)


def _literals(kind: Any) -> list[str]:
    return [str(choice) for part in _parts(kind) if get_origin(part) is Literal for choice in get_args(part)]


def _meaning(kind: Any) -> str:
    """What a value of a type is, for people."""
    meanings = []
    for noted in _parts(kind):
        part = noted.__origin__ if hasattr(noted, "__metadata__") else noted
        if get_origin(part) is tuple:
            first, *others = get_args(part)
            each = _meaning(first)
            meanings.append(f"{each}, or several" if others == [...] else f"{1 + len(others)} values, each {each}")
        elif get_origin(part) is Literal:
            meanings.append("one of " + ", ".join(map(str, get_args(part))))
        elif part is not types.NoneType:
            meanings.append(_NAMES.get(part, "what --help says"))
    return " or ".join(meanings)


def _choose(value: str, choices: Sequence[str]) -> str:
    near = get_close_matches(value, choices, n=1)
    return f"unknown; {f'did you mean {near[0]}? ' if near else ''}choose from {', '.join(choices)}"


def _first_sentence(text: Any) -> str:
    sentence = re.split(r"(?<=\w)\. |\.$", joined((text() if callable(text) else text) or ""))[0]
    return sentence[:1].lower() + sentence[1:] if sentence[1:2].islower() or sentence[1:2] == " " else sentence


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
