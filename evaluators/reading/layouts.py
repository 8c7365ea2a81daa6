"""Scores that a table or a list under a name tells, where no single line does."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

from evaluators.reading.mentions import Mention, last_sentence, line_end, line_start, named_lines, singles
from evaluators.reading.numbers import Scale, read_value
from evaluators.reading.plain import blanked
from evaluators.reading.words import NAMED, kinds, who

_ROW = re.compile(r"^[ \t]{0,8}\|[^\n]{0,600}$", re.MULTILINE)
_RULE = re.compile(r"[-:\s]*-[-:\s]*")
# The end of a fence, and "Confidence: 7".
_PASSED_OVER = re.compile(r"```|~~~|<|[^\s:]{1,20}\s?:")
_MOST_ROWS = 200
_MOST_SECTIONS = 20
_LONGEST_SECTION = 3000


class _Cell(NamedTuple):
    start: int
    end: int
    text: str


_Row = list[_Cell]


class _Names(NamedTuple):
    pattern: re.Pattern[str]
    plain: str
    text: str

    def of(self, cell: _Cell) -> int | None:
        """Whose cell it is, if it holds a name and nothing that says otherwise."""
        found = self.pattern.search(self.plain, cell.start, cell.end)
        if found is None:
            return None
        around = self.plain[cell.start : found.start()] + " " + self.plain[found.end() : cell.end]
        return who(found, self.text) if kinds(around) is not None and not any(map(str.isdigit, around)) else None


def tables(plain: str, text: str, scale: Scale) -> tuple[list[Mention], str]:
    """Mentions in Markdown tables with a heading; and the plain text with these tables blanked out."""
    mentions: list[Mention] = []
    parts: list[str] = []
    position = 0
    pattern = NAMED.pattern(plain)
    if pattern is None:
        return [], plain
    for rows in _blocks(plain):
        if len(rows) < 3 or not all(_RULE.fullmatch(cell.text) for cell in rows[1]):
            continue
        mentions += _of_table(plain, _Names(pattern, plain, text), rows[0], rows[2:], scale)
        begin, end = line_start(plain, rows[0][0].start), rows[-1][-1].end
        parts += plain[position:begin], blanked(plain[begin:end])
        position = end
    return mentions, "".join([*parts, plain[position:]])


def _blocks(plain: str) -> Iterator[list[_Row]]:
    """Rows that follow one another."""
    block: list[_Row] = []
    last = -2
    for found in [*_ROW.finditer(plain)][-_MOST_ROWS:] if "|" in plain else ():
        if found.start() != last + 1 and block:
            yield block
            block = []
        block.append(_cells(plain, found.start(), found.end()))
        last = found.end()
    if block:
        yield block


def _cells(plain: str, start: int, end: int) -> _Row:
    cells: _Row = []
    at = plain.index("|", start) + 1
    while at <= end:
        bar = plain.find("|", at, end)
        stop = end if bar < 0 else bar
        if bar >= 0 or plain[at:stop].strip():
            cells.append(_Cell(at, stop, plain[at:stop].strip()))
        at = stop + 1
    return cells or [_Cell(start, end, "")]


def _of_table(plain: str, names: _Names, head: _Row, rows: list[_Row], scale: Scale) -> Iterator[Mention]:
    named = [names.of(cell) for cell in head]
    said = [kinds(cell.text) or frozenset[str]() for cell in head]
    columns = [at for at in range(1, len(head)) if said[at] & {"score", "whole"} and named[at] is None]
    if finals := [at for at in columns if "whole" in said[at]]:
        columns = finals
    for row in rows:
        if len(row) != len(head):
            continue
        if sorted(number for number in named if number) == [1, 2]:
            # A column for each response: of the rows, those that are called the score.
            label = kinds(row[0].text) if named[0] is None else frozenset[str]()
            if label is not None and (named[0] is not None or label & {"score", "whole"}):
                for cell, number in zip(row, named, strict=True):
                    if number is not None:
                        yield _of_cell(plain, number, cell, scale, label)
        elif (number := names.of(row[0])) is not None and len(columns) == 1:
            yield _of_cell(plain, number, row[columns[0]], scale, said[columns[0]])


def _of_cell(plain: str, number: int, cell: _Cell, scale: Scale, said: frozenset[str]) -> Mention:
    value = read_value(plain, cell.start, cell.end, scale, comment=False)
    return Mention(number, value, line_start(plain, cell.start), cell.end, bool(said), "whole" in said)


def sections(plain: str, text: str, scale: Scale) -> Iterator[Mention]:
    """Scores in lines below a name: "Assistant 1:", then "- Accuracy: 9" and "- Overall score: 8"."""
    begins: list[tuple[int, int, int]] = []
    for start, _, named in named_lines(plain):
        before = plain[max(start, named[0].start() - 80) : named[0].start()]
        number = who(named[0], text)
        if number is not None and kinds(before) is not None and last_sentence(before) == before.lstrip():
            begins.append((start, named[0].end(), number))
        if len(begins) > _MOST_SECTIONS:
            return
    for at, (_, name_end, number) in enumerate(begins):
        end = begins[at + 1][0] if at + 1 < len(begins) else len(plain)
        end = min(end, name_end + _LONGEST_SECTION)
        lines = [replace(found, who=number) for found in singles(plain[:end], scale, name_end)]
        finals = [found for found in lines if found.final]
        yield from (found for found in finals or lines if not goes_on(text, found.end))


def preceding_line(plain: str, start: int) -> str:
    """The line above that is not blank, without its blanks; no more than its end where it is long."""
    end = len(plain[:start].rstrip())
    begin = line_start(plain, end)
    return plain[max(begin, end - 200) : end].strip()


def goes_on(text: str, end: int) -> bool:
    """Whether a sentence goes on right below, as around a citation: "It claims:", two lines, "which is wrong"."""
    at = end
    for _ in range(3):
        begin = text.find("\n", at) + 1
        if not begin:
            return False
        at = line_end(text, begin)
        line = text[begin : min(at, begin + 80)].strip(" \t*_")
        if not _PASSED_OVER.match(line):
            return line[:1].islower()
    return False


def is_heading_of_scores(line: str) -> bool:
    """Whether a line calls the numbers below it scores: "Final scores:"."""
    said = kinds(line) if line.endswith(":") or len(line) < 60 else None
    return said is not None and bool(said & {"score", "whole", "head"})


def is_other_heading(line: str) -> bool:
    """Whether a line may call the numbers below it something else: "Mistakes:", "Ranks"."""
    return bool(line) and not is_heading_of_scores(line) and (line[-1] not in ".!?" or any(map(str.isdigit, line)))
