"""Where samples come from. A new benchmark is one new file in this folder: a loader and its registration."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Container, Iterator, Mapping
from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from typing import Any

from evaluators.errors import ConfigError, RunError, UserError
from evaluators.registry import Registry, told
from evaluators.samples import FIELDS, Pair, make_pair

Line = tuple[int, Mapping[str, Any] | RunError]
"""Number of the line, from 1, and its fields in our names, or what is wrong with it."""
Loader = Callable[..., Iterator[Line]]
"""From the path, and what `--format-option` gives by name, to the lines."""

loaders: Registry[Loader] = Registry("data format", "depthlab.benchmarks", __name__, __path__)
benchmark = loaders.register

editions: dict[str, Callable[[Path], str]] = {}
"""Format -> what says whether a file is the published one, or another version of it."""

_SHOWN = 10
_NULL = "response2 is null in a file of pairs; leave the field out where there is one response only"


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


@dataclass(frozen=True)
class Checked:
    """What a file of samples holds."""

    samples: int
    refused: Mapping[int, str]
    """Number of a line -> why it was refused, of the lines that were read."""


def read(
    path: Path,
    *,
    kind: str,
    fields: Mapping[str, str],
    families: frozenset[str],
    without_query: frozenset[str] = frozenset(),
    options: Mapping[str, Any] | None = None,
    skip: Container[int] = (),
) -> Iterator[tuple[int, Pair]]:
    """The pairs of a file in its order, each with its line's number. Reads as it goes.

    Args:
        without_query: those of the families in which a query may be blank.
        options: of the format.
        skip: numbers of lines to pass over.

    Raises:
        RunError: the file cannot be read, or a line is refused; names the line and the reason.
    """
    for number, found in _lines(path, kind, options or {}):
        if number in skip:
            continue
        pair = _pair(number, found, fields, families, without_query)
        if isinstance(pair, RunError):
            raise RunError(f"--data {path}: line {number}: {pair}")
        yield number, pair


def check(
    path: Path,
    *,
    kind: str,
    fields: Mapping[str, str],
    families: frozenset[str],
    without_query: frozenset[str] = frozenset(),
    options: Mapping[str, Any] | None = None,
    limit: int | None,
    skip_refused: bool = False,
) -> Checked:
    """Read all that will be judged before the first call is made.

    Args:
        limit: read the first so many samples alone.
        skip_refused: go on without the lines that are refused.

    Raises:
        ConfigError: an option that the format does not take.
        RunError: nothing to judge, lines that are refused (named by number, with reasons) or an id that is there twice.
    """
    refused: dict[int, str] = {}
    seen: dict[int, int] = {}
    samples = 0
    alone: list[int] = []
    """Lines whose second response is null: each a single response, unless the file is one of pairs."""
    are_pairs = False
    for number, found in _lines(path, kind, options or {}):
        if limit is not None and samples + len(alone) + (0 if skip_refused else len(refused)) >= limit:
            break
        pair = _pair(number, found, fields, families, without_query)
        if isinstance(pair, Pair) and not pair.is_single and not are_pairs:
            are_pairs = True
            refused |= dict.fromkeys(alone, _NULL)
            alone = []
        if isinstance(pair, Pair) and (earlier := seen.setdefault(hash(pair.id), number)) != number:
            pair = RunError(f"id {pair.id!r} stands in line {earlier} already")
        if isinstance(pair, RunError):
            refused[number] = str(pair)
        elif pair.is_single and not isinstance(found, RunError) and fields.get("response2", "response2") in found:
            if are_pairs:
                refused[number] = _NULL
            else:
                alone.append(number)
        else:
            samples += 1
    samples += len(alone)
    if refused and not (skip_refused and samples):
        remedy = "mend them" if skip_refused else "mend them, or go on without them: --skip-refused"
        raise RunError(
            f"--data {path}: {len(refused)} of {samples + len(refused)} lines refused: "
            + "; ".join([*refused_text(refused), remedy])
        )
    if not samples:
        raise RunError(f"--data {path}: holds no sample")
    return Checked(samples, refused)


def _lines(path: Path, kind: str, options: Mapping[str, Any]) -> Iterator[Line]:
    """Those that the format's loader finds. Raises UserError for whatever a loader raises."""
    loader = loaders.get(kind, flag="--format")
    _, *parameters = signature(loader).parameters.values()
    taken = [one.name for one in parameters if one.kind is not one.VAR_KEYWORD]
    if len(taken) == len(parameters) and (unknown := [name for name in options if name not in taken]):
        raise ConfigError(f"--format-option {unknown[0]}: format {kind} takes {', '.join(taken) or 'none'}")
    try:
        yield from loader(path, **options)
    except UserError:
        raise
    except Exception as error:
        raise RunError(f"--data {path}: format {kind}: {told(error)}") from error


def refused_text(refused: Mapping[int, str]) -> Iterator[str]:
    """The first refused lines with their reasons, and how many more there are."""
    for number, reason in itertools.islice(refused.items(), _SHOWN):
        yield f"line {number}: {reason}"
    if len(refused) > _SHOWN:
        yield f"and {len(refused) - _SHOWN} more"


def _pair(
    number: int,
    found: Mapping[str, Any] | RunError,
    fields: Mapping[str, str],
    families: frozenset[str],
    without_query: frozenset[str],
) -> Pair | RunError:
    if isinstance(found, RunError):
        return found
    for ours, theirs in fields.items():
        if theirs not in found:
            return RunError(f"has no field {theirs!r} (--fields {ours}={theirs}); it has {', '.join(found)}")
    named = {**found, **{ours: found[theirs] for ours, theirs in fields.items()}}
    try:
        pair = make_pair(named, fallback_id=f"line-{number:06d}", without_query=without_query)
    except RunError as error:
        return error
    if pair.family not in families:
        return RunError(f"family {pair.family!r} is unknown; known: {', '.join(sorted(families))} (add it: --families)")
    return pair
