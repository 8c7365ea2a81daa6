"""Scores from a judge's reply: the verdict, in range, or the reason why there is none. Never a guess.

Only what the judge itself says is read: not its thoughts (see `thoughts`), and not what it quotes. Reading has two
stages. First the format that the prompt asked for: its last pair of lines is the verdict, and nothing that mentions a
score in other words replaces it. Only where there is none, a table of what people write in other words and languages,
all of which must agree. What can be understood in two ways is not read.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from evaluators.reading import json_scores, layouts
from evaluators.reading.confidence import stated_confidence
from evaluators.reading.mentions import Mention, TooManyError, asked, told
from evaluators.reading.numbers import Scale
from evaluators.reading.plain import blanked, quotations, without_quotations
from evaluators.reading.plain import plain as plain_of

LONGEST = 100_000
"""Of a longer reply only the end is read."""
_SEVERAL = "it gives several scores, and which of them is final cannot be told"


@dataclass(frozen=True)
class Scores:
    """A reply's scores in the order shown, and where their numbers stand in its text."""

    values: tuple[float, ...]
    spans: tuple[tuple[int, int], ...]
    evidence: str
    confidence: float | None = None
    """1 to 10, as the judge states it; None if it does not."""


@dataclass(frozen=True)
class Unparsed:
    """Why a reply gives no scores."""

    reason: str


def parse_scores(text: str, scale: Scale, *, count: int = 2, structured: bool = False) -> Scores | Unparsed:
    """The scores that a reply to a review prompt gives to `count` responses (1 or 2).

    Args:
        structured: JSON was asked for, so that an object counts before lines; else lines count before an object.
    """
    if not text.strip():
        return Unparsed("the reply is empty")
    cut = max(0, len(text) - LONGEST)
    end = text[cut:]
    found_json = json_scores.find(end, scale, count)
    # What stands within an object is no line of the reply.
    lines = end if found_json is None else _blanked(end, found_json.span)
    found, is_asked = _from_lines(lines, scale, count)
    if found_json is not None and (structured or not is_asked):
        is_read = isinstance(found, _Read) and (is_asked is False or found.start > found_json.span[0])
        if is_read and (not structured or is_asked) and found_json.values != found.values:  # type: ignore[union-attr]
            return Unparsed("it gives scores in an object and others in lines")
        if found_json.reason:
            return Unparsed(found_json.reason)
        return Scores(found_json.values, _moved(found_json.spans, cut), found_json.evidence, found_json.confidence)
    if isinstance(found, Unparsed):
        return found
    return Scores(found.values, _moved(found.spans, cut), _evidence(text[: cut + found.start]), found.confidence)


def _blanked(text: str, span: tuple[int, int]) -> str:
    start, end = span
    return text[:start] + blanked(text[start:end]) + text[end:]


def _moved(spans: Iterable[tuple[int, int]], by: int) -> tuple[tuple[int, int], ...]:
    return tuple((start + by, end + by) for start, end in spans)


@dataclass(frozen=True)
class _Read:
    values: tuple[float, ...]
    spans: tuple[tuple[int, int], ...]
    start: int
    confidence: float | None


def _from_lines(text: str, scale: Scale, count: int) -> tuple[_Read | Unparsed, bool]:
    """What lines say, and whether they have the format that was asked for."""
    if not text.strip():
        return Unparsed("it holds no score"), False
    plain = without_quotations(text, plain_of(text))
    first = _last_of_asked(plain, text, asked(plain, scale, count), count)
    chosen: Sequence[Mention] | Unparsed | None = first
    try:
        if first is None:
            chosen = _agreed(plain, text, scale, count)
        elif not isinstance(first, Unparsed):
            chosen = _unless_revised(plain, text, first, scale, count)
    except TooManyError:
        chosen = first or Unparsed("it names too many scores to tell which is the verdict")
    if chosen is None or isinstance(chosen, Unparsed):
        return chosen or Unparsed("it holds no score"), first is not None
    ordered = sorted(chosen, key=lambda mention: mention.who)
    values = [mention.value.number for mention in ordered if mention.value.number is not None]
    if len(values) < count:
        reason = next(mention.value.reason for mention in ordered if mention.value.number is None)
        return Unparsed(reason), first is not None
    start = min(mention.start for mention in ordered)
    spans = tuple(mention.value.span for mention in ordered)
    return _Read(tuple(values), spans, start, stated_confidence(plain)), first is not None


def _last_of_asked(plain: str, text: str, mentions: list[Mention], count: int) -> Sequence[Mention] | Unparsed | None:
    """The verdict in the format that was asked for; None where no line has it."""
    groups = _groups(plain, text, mentions)
    fences = _fences(text) if any(sign in text for sign in ("```", "~~~")) else []
    verdict: Sequence[Mention] | None = None
    later: list[Mention] = []
    is_fenced = True
    for group in groups:
        pair = group[-count:]
        is_whole = len(group) % count == 0 and all(
            {mention.who for mention in group[at : at + count]} == set(range(1, count + 1))
            for at in range(0, len(group), count)
        )
        in_fence = any(start <= group[0].start < end for start, end in fences)
        if is_whole and not layouts.goes_on(text, group[-1].end) and (is_fenced or not in_fence):
            verdict, later, is_fenced = pair, [], in_fence
        else:
            later += group
    if verdict is None:
        is_cited = any(len(group) >= count and layouts.goes_on(text, group[-1].end) for group in groups)
        return Unparsed("its scores stand within a sentence, as a citation would") if is_cited else None
    if _contradicts(later, verdict):
        return Unparsed(_SEVERAL)
    last = max(mention.end for mention in verdict)
    for start, end in quotations(text[last:]):
        # A whole verdict in quotation marks that nothing introduces may be the judge's own.
        introduction = text[last : last + start].rpartition("\n")[2].strip(" \t*-#")
        inside = text[last + start + 1 : last + end - 1]
        if not introduction and text[last + start] != ">" and asked(plain_of(inside), (0, 1), count):
            return Unparsed("it gives scores once more, in quotation marks")
    return verdict


def _groups(plain: str, text: str, mentions: Iterable[Mention]) -> list[list[Mention]]:
    """Mentions whose lines follow one another."""
    groups: list[list[Mention]] = []
    for mention in mentions:
        between = (groups[-1][-1].end, mention.start) if groups else (0, 0)
        if groups and not plain[slice(*between)].strip() and "```" not in text[slice(*between)]:
            groups[-1].append(mention)
        else:
            groups.append([mention])
    return groups


def _fences(text: str) -> list[tuple[int, int]]:
    marks = [found.start() for found in re.finditer(r"^[ \t]{0,8}(?:```|~~~)", text, re.MULTILINE)]
    return list(zip(marks[::2], [*marks[1::2], len(text)], strict=False))


def _contradicts(mentions: Iterable[Mention], verdict: Sequence[Mention]) -> bool:
    values = {mention.who: mention.value.number for mention in verdict}
    return any(mention.value.number != values.get(mention.who) for mention in mentions)


def _unless_revised(
    plain: str, text: str, verdict: Sequence[Mention], scale: Scale, count: int
) -> Sequence[Mention] | Unparsed:
    """The verdict, unless a later line calls another number the score: then nobody can tell which is meant."""
    last = max(mention.end for mention in verdict)
    later = [
        mention
        for mention in told(plain[last:], text[last:], scale, count)
        if mention.is_line and mention.labelled and (mention.value.number is not None or mention.value.off_scale)
    ]
    if _contradicts(later, verdict):
        return Unparsed("after its scores it gives others")
    return verdict


def _agreed(plain: str, text: str, scale: Scale, count: int) -> Sequence[Mention] | Unparsed:
    """What all mentions in other words agree on."""
    of_tables, rest = layouts.tables(plain, text, scale) if count == 2 else ([], plain)
    wanted = set(range(1, count + 1))
    labelled = [mention for mention in of_tables if mention.labelled]
    bare = [mention for mention in of_tables if not mention.labelled]
    aside: list[Mention] = []
    """What stands within a sentence, or below a heading that may call it something else."""
    for group in _groups(plain, text, told(rest, text, scale, count)):
        above = layouts.preceding_line(plain, group[0].start)
        is_headed = layouts.is_heading_of_scores(above)
        is_inset = layouts.goes_on(text, group[-1].end)
        for mention in group:
            if mention.labelled or is_headed:
                (aside if is_inset else labelled).append(replace(mention, labelled=True))
            else:
                (aside if is_inset or layouts.is_other_heading(above) else bare).append(mention)
    finals = [mention for mention in labelled if mention.final]
    for chosen in (finals, labelled):
        if {mention.who for mention in chosen} == wanted:
            last = max(mention.start for mention in chosen)
            return _same(chosen, wanted, [one for one in [*aside, *labelled] if one.labelled and one.start > last])
    listed = [*layouts.sections(rest, text, scale)] if count == 2 else []
    if listed and {mention.who for mention in listed} == wanted:
        return _same(listed, wanted, labelled)
    if {mention.who for mention in bare} == wanted and not labelled:
        return _same(bare, wanted, aside)
    missing = sorted(wanted - {mention.who for mention in [*labelled, *bare]})
    named = f" of Assistant {missing[0]}" if 0 < len(missing) < count else ""
    return Unparsed(f"it holds no score{named}" if missing else "its scores are not told in one way")


def _same(mentions: Sequence[Mention], wanted: set[int], others: Sequence[Mention]) -> Sequence[Mention] | Unparsed:
    """One mention of each, if all of them, and the others too, say the same."""
    chosen = []
    for number in wanted:
        own = [mention for mention in mentions if mention.who == number]
        if len({(mention.value.number, mention.value.reason) for mention in own}) > 1:
            return Unparsed(_SEVERAL)
        chosen.append(own[-1])
    return Unparsed(_SEVERAL) if _contradicts(others, chosen) else chosen


def _evidence(text: str) -> str:
    """The explanation before the scores, without the label that the format asks for."""
    text = re.sub(
        r"^\W{0,20}(?:<start output>\s{0,20})?(?:evaluation evidence|evidence)[^\w\n]{0,8}[:：][^\w\n]{0,8}",
        "",
        text.strip(),
        flags=re.IGNORECASE,
    )
    return text.strip().strip("*#`").strip()
