"""Where a text names a score: in lines of the format that was asked for, or in any line that says so in its own way."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from evaluators.reading.numbers import LONGEST, Scale, Value, is_comment, read_before, read_value
from evaluators.reading.words import NAMED, SCORED, kinds, who

_LINK = r"(?:[:=|]|->|-{1,2}(?=[ \t]))"
_LEAD = r"^[^\w\n]{0,20}(?:\(?\d{1,2}[.)][^\w\n]{1,8})?"
_ASKED_PAIR = re.compile(
    rf"{_LEAD}score[ \t]{{1,8}}of[ \t]{{1,8}}(?:the[ \t]{{1,8}})?assistant[ \t]{{1,8}}\#?(?P<who>[12])(?!\d|[.,]\d)"
    rf"[^\w\n:=|-]{{0,8}}{_LINK}",
    re.MULTILINE,
)
_ASKED_SINGLE = re.compile(rf"{_LEAD}score[^\w\n:=|-]{{0,8}}{_LINK}", re.MULTILINE)
_ANY_LINK = re.compile(r"[:=|]|->|(?<=[\s)])-{1,2}(?=[ \t])")
_COPULA = re.compile(r"(?:\b(?:is|of|est|es|ist|e)\b|是|为|は|이|은)(?=[^\w\n]{0,4}\d)")
_NUMBERED = re.compile(r"\s*\(?\d{1,2}[.)]\s")
_SENTENCE_END = re.compile(r"[.!?;](?=\s)")
_MOST = 100
"""A text that names scores in more lines is not read in the tolerant way: no judge writes so."""
_MOST_IN_A_LINE = 4


@dataclass(frozen=True)
class Mention:
    """A score of one response, as a place in the text says it."""

    who: int
    value: Value
    start: int
    """Of its line."""
    end: int
    """Of what was read."""
    labelled: bool = True
    """Called a score; "Assistant 1: 8" is only a number."""
    final: bool = False
    """Called the final one."""
    is_line: bool = True
    """A line of its own and no part of a sentence."""


class TooManyError(Exception):
    """Scores are named in so many lines that none of them is the verdict."""


def asked(plain: str, scale: Scale, count: int) -> list[Mention]:
    """Mentions in the format that was asked for: a line each, `Score of Assistant 1: 8`; `Score: 8` of a single one."""
    pattern = _ASKED_PAIR if count == 2 else _ASKED_SINGLE
    # The last ones decide.
    lines = deque(pattern.finditer(plain), maxlen=_MOST)
    return [
        Mention(int(found["who"]) if count == 2 else 1, value, found.start(), end)
        for found in lines
        for value, end in [_value_after(plain, found.end(), scale)]
    ]


def told(plain: str, text: str, scale: Scale, count: int) -> list[Mention]:
    """Mentions in any words. Raises TooManyError."""
    if count == 1:
        return list(singles(plain, scale))
    return [
        mention
        for start, end, named in named_lines(plain)
        if len(named) <= _MOST_IN_A_LINE
        for mention in _of_line(plain, text, start, end, named, scale)
    ]


def named_lines(plain: str) -> Iterator[tuple[int, int, list[re.Match[str]]]]:
    """Lines that name a response, with the names, of which five at most are looked for. Raises TooManyError."""
    pattern = NAMED.pattern(plain)
    position = 0
    for _ in range(_MOST):
        if pattern is None or (found := pattern.search(plain, position)) is None:
            return
        start, end = line_start(plain, found.start()), line_end(plain, found.start())
        named = [found]
        while len(named) <= _MOST_IN_A_LINE and (following := pattern.search(plain, named[-1].end(), end)) is not None:
            named.append(following)
        yield start, end, named
        position = end
    raise TooManyError


def _of_line(
    plain: str, text: str, start: int, end: int, named: list[re.Match[str]], scale: Scale
) -> Iterator[Mention]:
    """What a line says of those whom it names: "Assistant 1: 8, Assistant 2: 6", "I give Assistant 1 a score of 8"."""
    before = plain[max(start, named[0].start() - LONGEST) : named[0].start()]
    label = last_sentence(before)
    # What begins the line holds for all: "Final scores: Assistant 1: 8; Assistant 2: 6".
    common = kinds(label)
    if common is None or any(sign.isdigit() for sign in label):
        return
    own: frozenset[str] = frozenset()
    for name, following in zip(named, [*named[1:], None], strict=True):
        stop = end if following is None else following.start()
        number = who(name, text)
        found = _after_name(plain, name.end(), stop, scale, common | own, is_last=following is None)
        own = frozenset()
        if number is None or found is None:
            continue
        value, value_end, said, is_explicit = found
        if value.number is not None and following is not None:
            own = kinds(plain[value.span[1] : stop]) or own  # "...: 8 Score of Assistant 2: 6"
        labelled = bool(said & {"score", "whole"})
        if value.number is not None or (labelled and is_explicit):
            is_line = is_explicit and len(label) == len(before.lstrip())
            yield Mention(number, value, start, value_end, labelled, "whole" in said, is_line)


def _after_name(
    plain: str, start: int, stop: int, scale: Scale, said: frozenset[str], *, is_last: bool
) -> tuple[Value, int, frozenset[str], bool] | None:
    """The value behind a name, where it ends, what it is called, and whether a colon or the like leads to it."""
    near = min(stop, start + 80)
    link = _ANY_LINK.search(plain, start, near)
    first = re.compile(r"\d").search(plain, start, near)
    is_explicit = link is not None and (first is None or link.start() < first.start())
    if not is_explicit and first is None:
        return None
    between_end, begin = (link.start(), link.end()) if is_explicit and link else (first.start(), first.start())  # type: ignore[union-attr]
    between = kinds(plain[start:between_end])
    if between is None:
        return None
    said |= between
    if not is_explicit and not ("score" in said and between):
        return None
    if is_last:
        value, end = _value_after(plain, begin, scale)
    else:
        value, end = read_before(plain, begin, stop, scale, _may_join), stop
    return value, end, said, is_explicit


def _may_join(tail: str) -> bool:
    """What may stand between a score and the next name."""
    return not tail or is_comment(tail) or ("#" not in tail and "%" not in tail and kinds(tail) is not None)


def _value_after(plain: str, start: int, scale: Scale) -> tuple[Value, int]:
    """The value behind a label: the rest of its line, or a number that has the next line to itself; and its end."""
    end = line_end(plain, start)
    if plain[start : min(end, start + LONGEST)].strip():
        return read_value(plain, start, end, scale), end
    for _ in range(2):
        following = line_end(plain, end + 1)
        if plain[end : min(following, end + LONGEST)].strip():
            value = read_value(plain, end + 1, following, scale, comment=False)
            return (value, following) if value.number is not None else (Value(None, reason="a score is missing"), end)
        end = following
    return Value(None, reason="a score is missing"), end


def singles(plain: str, scale: Scale, position: int = 0) -> Iterator[Mention]:
    """Lines that tell one score, without a name. Raises TooManyError."""
    pattern = SCORED.pattern(plain)
    for _ in range(_MOST):
        if pattern is None or (found := pattern.search(plain, position)) is None:
            return
        start = max(line_start(plain, found.start()), position, found.start() - LONGEST)
        position = line_end(plain, found.start())
        mentions: list[Mention] = []
        for _ in range(_MOST_IN_A_LINE):
            if found is not None and not any(mention.value.number is not None for mention in mentions):
                mentions += _single(plain, start, found.end(), position, scale)
                found = pattern.search(plain, found.end(), position)
        yield from mentions[-1:]
    raise TooManyError


def _single(plain: str, start: int, word_end: int, end: int, scale: Scale) -> Iterator[Mention]:
    """What a line says whose word for a score ends at `word_end`."""
    near = min(end, word_end + 60)
    link = _ANY_LINK.search(plain, word_end, near) or _COPULA.search(plain, word_end, near)
    if link is None or (plain[word_end : word_end + 1].isalpha() and link.start() == word_end):
        return
    label = last_sentence(plain[start : link.start()])
    said = kinds(label)
    if said is None or not said & {"score", "whole"} or any(sign.isdigit() for sign in label):
        return
    value, value_end = _value_after(plain, link.end(), scale)
    is_explicit = plain[link.start()] in ":=|-"
    if value.number is None and not is_explicit:
        return
    yield Mention(1, value, line_start(plain, start), value_end, True, "whole" in said, is_explicit)


def last_sentence(before: str) -> str:
    """The part of a line's beginning that belongs to what follows, without a list's number."""
    if (numbered := _NUMBERED.match(before)) is not None:
        before = before[numbered.end() :]
    ends = [found.end() for found in _SENTENCE_END.finditer(before)]
    return before[ends[-1] :].lstrip() if ends else before.lstrip()


def line_start(plain: str, position: int) -> int:
    """Where the line of a position begins."""
    return plain.rfind("\n", 0, position) + 1


def line_end(plain: str, position: int) -> int:
    """Where the line of a position ends."""
    found = plain.find("\n", position)
    return len(plain) if found < 0 else found
