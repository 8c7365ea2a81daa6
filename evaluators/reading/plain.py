"""A text as it is read: signs of every script made plain, one for one, so that positions are those of the reply."""

from __future__ import annotations

import re
import unicodedata
from collections import deque

_MARKUP = "*_`#${}"
_TO_LINE_END = "\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"
_BULLETS = "•‣▪◦●■◆►▶✓✔★☆"
_OTHERS = {
    "⁄": "/",
    "÷": "/",
    "→": "=",
    "⇒": "=",
    "⟶": "=",
    "·": ".",
    "・": ".",
    "٫": ".",
    "،": ",",
    "؛": ";",
    "।": ".",
}
_OTHERS |= {"、": ",", "。": ".", "…": "~", "〜": "~", "\\": "~", "×": "~", "∶": ":", "٪": "%", "│": "|", "’": "'"}
_OTHERS |= {"\u0130": "i", "ı": "i"} | dict.fromkeys("–—−‐‑‒―", "-")


class _Folds(dict[int, str]):
    """Filled as signs turn up."""

    def __missing__(self, code: int) -> str:
        self[code] = fold = _fold(chr(code))
        return fold


def _fold(sign: str) -> str:
    if sign in _OTHERS:
        return _OTHERS[sign]
    if sign in _TO_LINE_END:
        return "\n"
    if sign in _MARKUP or sign in _BULLETS:
        return " "
    if sign.isdecimal():
        return str(unicodedata.decimal(sign))
    decomposed = unicodedata.decomposition(sign)
    if not decomposed.startswith(("<super>", "<sub>")):
        compatible = unicodedata.normalize("NFKC", sign)
        if len(compatible) == 1:
            sign = compatible
    if sign in _OTHERS:
        return _OTHERS[sign]
    kind = unicodedata.category(sign)
    # Signs without a shape (direction, joiners, variation), emoji, and controls.
    if kind in ("Cf", "Cc", "So", "Me", "Sk") or "\ufe00" <= sign <= "\ufe0f":
        return "\n" if sign == "\n" else " "
    if kind == "Sm" and ord(sign) > 127:
        return "~"
    lower = sign.lower()
    sign = lower if len(lower) == 1 else sign
    if (sign < "\u0530" or "\u1e00" <= sign < "\u1f00") and sign != "й":
        bare = unicodedata.normalize("NFD", sign)
        if len(bare) > 1 and all(unicodedata.combining(mark) for mark in bare[1:]):
            return bare[0]
    return sign


_FOLDS = _Folds()
_DRESSING = (
    "boxed|fbox|text|textbf|textit|textsf|texttt|textrm|mathbf|mathrm|mathit|mathsf|bm|boldsymbol|emph|underline|uline|"
    "large|Large|LARGE|huge|Huge|bf|it|displaystyle|left|right|quad|qquad"
)
_LATEX = re.compile(
    rf"\\(?:text)?color\s?\{{[A-Za-z0-9!]{{1,20}}\}}|\\(?:{_DRESSING})(?![A-Za-z])|"
    r"\\[()\[\],;:! ]|\\(?=[*_#.+\-`{}<>%])"
)
_FRACTION = re.compile(r"(\\[dt]?frac\s?)\{(\d{1,6})\}\{(\d{1,6})\}")
# Struck-out numbers stay within their tags, and are not read.
_TAGS = re.compile(
    r"<\|[^<>|\n]{1,40}\|>|</?(?!s>|s\s|del\b|strike\b)[A-Za-z][A-Za-z0-9 _=\"'#:;.-]{0,60}/?>|</s>|"
    r"&(?:nbsp|ensp|emsp|thinsp|lrm|rlm);"
)


def plain(text: str) -> str:
    """Lower case, ASCII digits and signs, no accents, no markup, LaTeX or HTML dress; as long as the text."""
    if "\\" in text:
        text = _FRACTION.sub(lambda found: f"{' ' * len(found[1])} {found[2]}/ {found[3]} ", text)
        text = _LATEX.sub(_blank, text)
    if "<" in text or "&" in text:
        text = _TAGS.sub(_blank, text)
    return text.translate(_FOLDS)


def _blank(found: re.Match[str]) -> str:
    return " " * len(found[0])


def blanked(text: str) -> str:
    """Spaces in place of all but line ends."""
    return re.sub(r"[^\n]+", _blank, text)


def folded(word: str) -> str:
    """A word of a table in the same spelling; a star at its end stays."""
    return word.rstrip("*").translate(_FOLDS) + "*" * word.endswith("*")


_PAIRS = {"“": "”", "«": "»", "„": "“”", "「": "」", "『": "』", "‹": "›", "《": "》"}
_MARKS = re.compile(r"[“”«»„「」『』‹›《》]|(?<![^\s(\[:,])\"(?=[^\s\"])|(?<=[^\s\"])\"(?![^\W\d_])")
_QUOTED_LINE = re.compile(r"^[ \t]{0,8}>(?:[^\n]*\n[ \t]{0,8}>)*[^\n]*", re.MULTILINE)
_LONGEST_QUOTE = 2000
_MOST_MARKS = 2000


def quotations(text: str) -> list[tuple[int, int]]:
    """Where quotations stand: between marks that match, at most 2,000 signs apart, and in lines that begin with `>`.

    A mark without its partner (a wall 12" wide) quotes nothing.
    """
    found = [line.span() for line in _QUOTED_LINE.finditer(text)] if ">" in text else []
    opened: tuple[int, str] | None = None
    for mark in deque(_MARKS.finditer(text), maxlen=_MOST_MARKS):
        sign, at = mark[0], mark.start()
        if opened is not None and sign in opened[1] and at - opened[0] <= _LONGEST_QUOTE and _may_close(text, at):
            found.append((opened[0], at + 1))
            opened = None
        elif sign in _PAIRS and (opened is None or opened[1] == '"'):
            opened = at, _PAIRS[sign]
        elif sign == '"' and (opened is None or opened[1] == '"' or at - opened[0] > _LONGEST_QUOTE):
            opened = (at, '"') if _may_open(text, at) else None
    return sorted(found)


def _may_open(text: str, at: int) -> bool:
    return (at == 0 or text[at - 1] in " \t\n([:,") and not text[at + 1 : at + 2].isspace()


def _may_close(text: str, at: int) -> bool:
    return text[at] != '"' or (not text[at - 1].isspace() and not text[at + 1 : at + 2].isalpha())


def without_quotations(text: str, plain_text: str) -> str:
    """The plain text with its quotations blanked out, line ends left."""
    parts: list[str] = []
    position = 0
    for start, end in quotations(text):
        if start < position:
            continue
        parts += plain_text[position:start], blanked(plain_text[start:end])
        position = end
    return "".join([*parts, plain_text[position:]])
