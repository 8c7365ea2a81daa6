"""A score as people write it (8, 8.5, ８, ٨, 8½, 8/10, "8 out of 10", "10점 만점에 8점"), or a reason why it is none.

What follows a label is cut into numbers, words and signs, and must have one of a few shapes as a whole. Whatever has
none (ranges, percentages, other ends of the scale, "2 points higher") is not read.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass

from evaluators.reading.words import NUMBER_WORDS, WORD, any_of, words

Scale = tuple[int, int]
LONGEST = 200
"""Signs after a label that are looked at."""


@dataclass(frozen=True)
class Value:
    """A number with its place in the text, or the reason why there is none."""

    number: float | None
    span: tuple[int, int] = (0, 0)
    reason: str = ""
    off_scale: bool = False
    """It is one number, but none of the scale."""


_TOKEN = re.compile(rf"(?P<number>\d+(?:[.,]\d+)?[ \t]?[¼-¾⅐-⅞]?|[¼-¾⅐-⅞])|(?P<word>{WORD})|(?P<sign>[^\s])")
_UNIT = any_of(words("unit"))
_OUT = rf"(?:/|{any_of(words('out_of'))})"
_FIRST = any_of(words("scale"))
_MOST = any_of(words("most"))
_U = rf"(?: {_UNIT})?"
_CLOSE = r"(?: [\])>\"]){0,4}"
_SHAPES = tuple(
    (re.compile(shape), n, d)
    for shape, n, d in (
        (rf"#{_U}", 0, None),
        (rf"#{_U}{_CLOSE} {_OUT} #{_U}", 0, 1),
        (rf"#{_U}{_CLOSE} \( (?:{_OUT}|{_MOST})(?: :)? #{_U} \)", 0, 1),
        (rf"#{_U}{_CLOSE} \( # (?:{_UNIT} ?)?(?:{_FIRST}|{_MOST}) \)", 0, 1),
        (rf"# (?:{_UNIT} ?)?{_FIRST}(?: [,:])?(?: 得)? #{_U}", 1, 0),
        (rf"(?:{_OUT}|{_MOST}) #{_U}(?: [,:])?(?: 得)? #{_U}", 1, 0),
    )
)
# "8 (on a scale of 1 to 10)", "8 on a 1-10 scale"
_ON_SCALE = re.compile(
    rf"#{_U}(?: \(| ,)? (?:on )?(?:a |the )?(?:scale (?:of |from )?# (?:-|to) #|# (?:-|to) # scale)(?: \))?"
)
_IN_WORDS = re.compile(rf"(?P<word>{WORD}) \( #{_U} \)|#{_U} \( (?P<said>{WORD}) \)")
_OPENS = re.compile(r"(?:[\[(<\"] ){0,4}")
_COMMENT = re.compile(rf"(?:\(|-{{1,2}}|[,;.!|]|{any_of(words('because'))}(?= )) ?")
_UNSURE = re.compile(rf"(?<![^\s(,;]){any_of(words('hedge'))}(?![^\s),;.])")
_EMPTY = re.compile(r"[\s\])>\".,;:!|/(-]*\Z")


def read_value(plain: str, start: int, end: int, scale: Scale, *, comment: bool = True) -> Value:
    """The score between two positions of a plain text, of which it must be all, but for a comment without numbers."""
    return read_before(plain, start, end, scale, lambda tail: not tail or (comment and is_comment(tail)))


def read_before(plain: str, start: int, end: int, scale: Scale, may_follow: Callable[[str], bool]) -> Value:
    """The same, where what may follow is for `may_follow` to say: it is shown the rest, its numbers as `#`."""
    cut = min(end, start + LONGEST)
    tokens, numbers = _tokens(plain, start, cut)
    shown = plain[start:cut].strip()[:30]
    if not numbers:
        return Value(None, reason=f"a score is {shown!r}, not a number" if shown else "a score is missing")
    opened = _OPENS.match(tokens)
    tokens = tokens[opened.end() :] if opened else tokens
    found: set[tuple[int, int | None]] = set()
    for shape, n, d in _SHAPES:
        if (match := shape.match(tokens)) and _ends(tokens, match.end(), end > cut, may_follow):
            found.add((n, d))
    if (match := _ON_SCALE.match(tokens)) and _ends(tokens, match.end(), end > cut, may_follow):
        ends = [_number(plain[slice(*numbers[at])]) for at in (1, 2)]
        if ends == list(scale):
            found.add((0, None))
    in_words = _IN_WORDS.match(tokens)
    if in_words and NUMBER_WORDS.get(in_words["word"] or in_words["said"]) == _number(plain[slice(*numbers[0])]):
        found |= {(0, None)} if _ends(tokens, in_words.end(), end > cut, may_follow) else set()
    values = {}
    for n, d in found:
        if d is not None and _number(plain[slice(*numbers[d])]) != scale[1]:
            continue
        values[_number(plain[slice(*numbers[n])])] = numbers[n]
    if len(values) != 1:
        what = f"not out of {scale[1]}" if found and not values else "not one number"
        return Value(None, reason=f"the score {shown!r} is {what}", off_scale=bool(found) and not values)
    ((number, span),) = values.items()
    if number is None:
        return Value(None, reason=f"the score {shown!r} is no number")
    if not scale[0] <= number <= scale[1]:
        return Value(None, reason=f"the score {number:g} is not between {scale[0]} and {scale[1]}", off_scale=True)
    return Value(number, span)


def _tokens(plain: str, start: int, end: int) -> tuple[str, list[tuple[int, int]]]:
    """Words and signs with single spaces between them, `#` for each number; and where the numbers stand."""
    shapes: list[str] = []
    numbers: list[tuple[int, int]] = []
    for token in _TOKEN.finditer(plain, start, end):
        if token["number"]:
            if shapes[-1:] and shapes[-2:-1] != ["#"] and plain[token.start() - 1] in ".+-<" and shapes[-1] != "#":
                is_wrapped = plain[token.start() - 1] == "<" and plain[token.end() : token.end() + 1] == ">"
                shapes[-1] += "" if is_wrapped else "~"  # ".8", "-8", "<8" are no numbers of a scale
            shapes.append("#")
            numbers.append((token.start(), token.start() + len(token[0].rstrip())))
        elif token[0] != "'" or not plain[token.end() : token.end() + 1].isalpha():  # 10'da 8
            glued = shapes[-1:] == ["#"] and token["word"] and token.start() == numbers[-1][1] and token[0].isascii()
            shapes.append(f"~{token[0]}" if glued and token[0] not in _GLUED else token[0])
    return " ".join(shapes), numbers


_GLUED = frozenset(words("unit")) | {"of"}
"""What may stand right behind a number: 8pts, but not 8th, 8e1."""


def _ends(tokens: str, at: int, is_cut: bool, may_follow: Callable[[str], bool]) -> bool:
    tail = tokens[at:]
    if tail and tail[0] != " ":
        return False
    return may_follow("" if _EMPTY.match(tail) and not is_cut else tail.strip())


def is_comment(tail: str) -> bool:
    """A remark behind a score that makes no other score of it."""
    while tail[:1] in (")", "]", ">", '"'):
        tail = tail[1:].lstrip()
    begins = _COMMENT.match(tail)
    if begins is None or "#" in tail or "%" in tail or "~" in tail[:3]:
        return False
    remark = tail[begins.end() :]
    first = re.match(WORD, remark)
    return _UNSURE.search(remark) is None and (first is None or first[0] not in NUMBER_WORDS)


def _number(text: str) -> float | None:
    fraction = 0.0
    if not text[-1].isdecimal():
        fraction = unicodedata.numeric(text[-1])
        text = text[:-1].rstrip()
    if not text or (fraction and not text.isdecimal()) or re.search(r",\d{3}\Z", text) or len(text) > 20:
        return None
    return float(text.replace(",", ".")) + fraction
