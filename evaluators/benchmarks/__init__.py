"""Where samples come from. A new benchmark is one new file in this folder: a loader and its registration."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from evaluators.errors import ConfigError, RunError
from evaluators.registry import Registry
from evaluators.samples import FIELDS, Pair, make_pair

Line = tuple[int, Mapping[str, Any] | RunError]
"""Number of the line, from 1, and its fields in our names, or what is wrong with it."""
Loader = Callable[[Path], Iterator[Line]]

loaders: Registry[Loader] = Registry("data format", __name__, __path__)
benchmark = loaders.register

_SHOWN = 10


def parse_fields(spellings: tuple[str, ...]) -> dict[str, str]:
    """`query=question` and the like -> {our name: the file's name}.

    Raises:
        ConfigError: no equals sign, or a field that samples do not have.
    """
    names = {}
    for spelling in spellings:
        ours, equals, theirs = spelling.partition("=")
        if not equals or not theirs or ours not in FIELDS:
            raise ConfigError(f"--fields {spelling}: write OURS=THEIRS; ours are {', '.join(FIELDS)}")
        names[ours] = theirs
    return names


def read(path: Path, *, kind: str, fields: Mapping[str, str], families: frozenset[str]) -> Iterator[tuple[int, Pair]]:
    """The pairs of a file in its order, each with its line's number. Reads as it goes.

    Raises:
        RunError: the file cannot be read, or a line is refused; names the line and the reason.
    """
    for number, found in loaders.get(kind, flag="--format")(path):
        pair = _pair(number, found, fields, families)
        if isinstance(pair, RunError):
            raise RunError(f"--data {path}: line {number}: {pair}")
        yield number, pair


def check(path: Path, *, kind: str, fields: Mapping[str, str], families: frozenset[str], limit: int | None) -> int:
    """Read all that will be judged before the first call is made.

    Returns:
        The number of samples.

    Raises:
        RunError: nothing to judge, lines that are refused (named by number, with reasons) or an id that is there twice.
    """
    bad: list[str] = []
    seen: dict[int, int] = {}
    samples = refused = 0
    lines = loaders.get(kind, flag="--format")(path)
    for number, found in itertools.islice(lines, limit):
        pair = _pair(number, found, fields, families)
        if isinstance(pair, Pair) and (earlier := seen.setdefault(hash(pair.id), number)) != number:
            pair = RunError(f"id {pair.id!r} stands in line {earlier} already")
        if isinstance(pair, RunError):
            refused += 1
            bad += [f"  line {number}: {pair}"] if len(bad) < _SHOWN else []
        samples += 1
    if refused:
        more = [f"  and {refused - len(bad)} more"] if refused > len(bad) else []
        text = "\n".join([f"--data {path}: {refused} of {samples} lines refused", *bad, *more])
        raise RunError(text)
    if not samples:
        raise RunError(f"--data {path}: holds no sample")
    return samples


def _pair(
    number: int, found: Mapping[str, Any] | RunError, fields: Mapping[str, str], families: frozenset[str]
) -> Pair | RunError:
    if isinstance(found, RunError):
        return found
    for ours, theirs in fields.items():
        if theirs not in found:
            return RunError(f"has no field {theirs!r} (--fields {ours}={theirs}); it has {', '.join(found)}")
    named = {**found, **{ours: found[theirs] for ours, theirs in fields.items()}}
    try:
        pair = make_pair(named, fallback_id=f"line-{number:06d}")
    except RunError as error:
        return error
    if pair.family not in families:
        return RunError(f"family {pair.family!r} is unknown; known: {', '.join(sorted(families))} (add it: --families)")
    return pair
