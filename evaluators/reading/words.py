"""The words of `languages.yaml`, ready to be looked up."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from evaluators.reading.plain import folded

_TABLE = Path(__file__).with_name("languages.yaml")
_LABEL_KINDS = ("score", "whole", "head", "of", "name")

WORD = r"[^\s\d!-/:-@\[-`{-~¼-¾⅐-⅞]+"
"""A run of letters of any script, marks included."""
_RUN = re.compile(WORD)


def _languages() -> Iterator[tuple[dict[str, list[str]], bool]]:
    """Each language's lists, and whether it puts spaces between words."""
    table: dict[str, Any] = yaml.safe_load(_TABLE.read_text(encoding="utf-8"))
    for language in table.pop("unspaced").values():
        yield language, False
    for language in table.values():
        yield language, True


def words(kind: str, *, spaced: bool | None = None) -> list[str]:
    """All words of a kind, in plain spelling, the longest first."""
    found = {
        folded(str(word))
        for language, has_spaces in _languages_once()
        if spaced in (None, has_spaces)
        for word in language.get(kind, ())
    }
    return sorted(found, key=lambda word: (-len(word), word))


@lru_cache(maxsize=1)
def _languages_once() -> tuple[tuple[dict[str, list[str]], bool], ...]:
    return tuple(_languages())


def any_of(some: Iterable[str]) -> str:
    """A pattern for any of the words; a star in one stands for an ending."""
    return "(?:" + "|".join(re.escape(word).replace(r"\*", r"[^\W\d_]{0,4}").replace(r"\ ", " ") for word in some) + ")"


def _spaced_words() -> tuple[dict[str, str], list[tuple[str, str]]]:
    whole: dict[str, str] = {}
    beginnings: list[tuple[str, str]] = []
    for kind in _LABEL_KINDS:
        for entry in words(kind, spaced=True):
            for word in entry.split(" "):
                if word.endswith("*"):
                    beginnings.append((word[:-1], kind))
                else:
                    whole.setdefault(word, kind)
    return whole, beginnings


_SPACED, _BEGINNINGS = _spaced_words()
_UNSPACED = {word: kind for kind in reversed(_LABEL_KINDS) for word in words(kind, spaced=False)}
_LONGEST = max(map(len, _UNSPACED))


@lru_cache(maxsize=4096)
def kinds(label: str) -> frozenset[str] | None:
    """What a label's words are: score, whole, of, name; None where one of them is none of these."""
    found: set[str] = set()
    for run in _RUN.findall(label):
        if run in _SPACED:
            found.add(_SPACED[run])
        elif (
            beginning := next((k for b, k in _BEGINNINGS if run.startswith(b) and len(run) <= len(b) + 4), None)
        ) is not None:
            found.add(beginning)
        elif (parts := _parts(run)) is not None:
            found |= parts
        else:
            return None
    return frozenset(found)


def _parts(run: str) -> set[str] | None:
    """A run of a language without spaces, cut into its words from the left, the longest first."""
    found: set[str] = set()
    at = 0
    while at < len(run):
        length = next((n for n in range(min(_LONGEST, len(run) - at), 0, -1) if run[at : at + n] in _UNSPACED), 0)
        if not length:
            return None
        found.add(_UNSPACED[run[at : at + length]])
        at += length
    return found


_NUMERALS = {"1": 1, "2": 2, "a": 1, "b": 2, "one": 1, "two": 2, "一": 1, "二": 2}
WHO = r"(?P<who>[12](?!\d|[.,]\d)|one\b|two\b|[ab](?![a-z0-9'])|[一二](?![分点點]))"


class Stems:
    """A pattern for those of many words that occur in a text, which is found faster than one for all of them."""

    def __init__(self, *some: str, after: str = "") -> None:
        self._stems = [(word.rstrip("*"), spaced) for spaced in (True, False) for word in self._of(some, spaced=spaced)]
        self._after = after
        self._compiled: dict[tuple[bool, ...], re.Pattern[str] | None] = {}

    @staticmethod
    def _of(some: Iterable[str], *, spaced: bool) -> list[str]:
        return [word for kind in some for word in words(kind, spaced=spaced)]

    def pattern(self, plain: str) -> re.Pattern[str] | None:
        """None where none of the words occurs."""
        present = tuple(stem in plain for stem, _ in self._stems)
        if present not in self._compiled:
            self._compiled[present] = self._pattern(present)
        return self._compiled[present]

    def _pattern(self, present: tuple[bool, ...]) -> re.Pattern[str] | None:
        here = [stem for stem, is_present in zip(self._stems, present, strict=True) if is_present]
        spaced = "|".join(re.escape(stem) for stem, is_spaced in here if is_spaced)
        unspaced = "|".join(re.escape(stem) for stem, is_spaced in here if not is_spaced)
        forms = [rf"(?<![^\W\d_])(?:{spaced})[^\W\d_]{{0,4}}"] * bool(spaced) + [unspaced] * bool(unspaced)
        return re.compile(rf"(?:{'|'.join(forms)}){self._after}") if forms else None


NAMED = Stems("name", after=rf"(?:[^\w\n]{{0,4}}(?:no|nr)\b\.?)?[^\w\n]{{0,4}}{WHO}")
"""A name with its number: Assistant 1, 助手2, Response B."""
SCORED = Stems("score", "whole")
"""A word for a score."""


def who(found: re.Match[str], text: str) -> int | None:
    """1 or 2; None where a small letter is no name ("an assistant a user ...")."""
    numeral = text[slice(*found.span("who"))]
    if numeral in ("a", "b"):
        return None
    return _NUMERALS[found["who"]]


NUMBER_WORDS = {
    folded(word): number
    for language, _ in _languages_once()
    for number, word in enumerate(language.get("numbers", ()), start=1)
}
"""one: 1, acht: 8, 八: 8."""
