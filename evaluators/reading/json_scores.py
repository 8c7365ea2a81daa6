"""A verdict as a JSON object: the last that has the scores asked for, wherever it stands."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from evaluators.reading.confidence import in_scale
from evaluators.reading.layouts import goes_on
from evaluators.reading.numbers import Scale, Value, read_value
from evaluators.reading.objects import Node, find_objects
from evaluators.reading.plain import plain

_KEYS = {
    "score1": 1, "scoreofassistant1": 1, "assistant1score": 1, "scoreassistant1": 1,
    "score2": 2, "scoreofassistant2": 2, "assistant2score": 2, "scoreassistant2": 2,
}  # fmt: skip
_WRAPPERS = {
    "final",
    "answer",
    "finalanswer",
    "output",
    "response",
    "result",
    "verdict",
    "review",
    "json",
    "arguments",
    "content",
}
_INTRODUCED = re.compile(r"(?:\A|[\n:=.!?>`,(\[{\"'}\]])[ \t\u00a0*_`]*\Z|\bjson\s{0,4}\Z", re.IGNORECASE)
_FOLLOWED = re.compile(
    r"(?:[ \t\u00a0`*.;)\]}\"'。．！]|<\|[^<>|\n]{1,40}\|>|</?[A-Za-z_][\w-]{0,30}>|<\uff5c[^<>\n]{1,40}\uff5c>)*"
    r"(?:\Z|\n|(?<=\s)(?P<next>[^\W\d_]))"
)
_QUOTE_LINE = re.compile(r"[ \t]{0,8}>")


@dataclass(frozen=True)
class Found:
    """Scores in the order shown, or the reason why the object has none."""

    span: tuple[int, int]
    """Of the outermost object or list."""
    values: tuple[float, ...] = ()
    spans: tuple[tuple[int, int], ...] = ()
    evidence: str = ""
    confidence: float | None = None
    reason: str = ""


def find(text: str, scale: Scale, count: int) -> Found | None:
    """The scores of the last object that has them; None where none has. An object within a sentence is a citation."""
    if not ("{" in text and re.search("score", text, re.IGNORECASE)):
        return None
    for outer in reversed([*find_objects(text)]):
        fitting = list(_fitting(outer, count, 0))
        if not fitting or not _stands_alone(text, outer) or goes_on(text, outer.end):
            continue
        depth = min(depth for depth, _ in fitting)
        read = [_read(node, text, scale, count) for at, node in fitting if at == depth]
        if len({(values, reason) for values, _, _, _, reason in read}) > 1:
            return Found((outer.start, outer.end), reason="it holds several objects with scores")
        return Found((outer.start, outer.end), *read[0])
    return None


def _fitting(node: Node, count: int, depth: int) -> Iterator[tuple[int, Node]]:
    """Objects within a value that have the keys of the scores, each with its depth."""
    if isinstance(node.value, list):
        for item in node.value:
            yield from _fitting(item, count, depth + 1)
    elif isinstance(node.value, dict):
        if set(_scores(node, count)) == set(range(1, count + 1)):
            yield depth, node
            return
        for key, item in node.value.items():
            if isinstance(item.value, (dict, list)):
                yield from _fitting(item, count, depth + 1)
            elif isinstance(item.value, str) and (len(node.value) == 1 or _key(key) in _WRAPPERS):
                # JSON within JSON: its places in the reply are unknown.
                inner = item.value.strip()
                for found in find_objects(inner) if depth < 3 and inner[:1] in ("{", "[") else ():
                    if found.start == 0 and found.end == len(inner):
                        yield from ((at, _placeless(fit)) for at, fit in _fitting(found, count, depth + 1))


def _placeless(node: Node) -> Node:
    members = {key: Node(item.value, 0, 0, item.repeated) for key, item in node.value.items()}
    return Node(members, 0, 0, node.repeated)


def _key(key: str) -> str:
    return re.sub(r"[\W_]", "", key[:60]).lower()


def _scores(node: Node, count: int) -> dict[int, list[Node]]:
    found: dict[int, list[Node]] = {}
    for key, item in node.value.items():
        name = _key(key)
        number = (1 if name == "score" else None) if count == 1 else _KEYS.get(name)
        if number is not None:
            found.setdefault(number, []).append(item)
    return found


def _read(
    node: Node, text: str, scale: Scale, count: int
) -> tuple[tuple[float, ...], tuple[tuple[int, int], ...], str, float | None, str]:
    scores = _scores(node, count)
    if node.repeated or any(len(items) > 1 for items in scores.values()):
        return (), (), "", None, "it gives a score twice"
    values = [_value(scores[number][0], text, scale) for number in range(1, count + 1)]
    reason = next((value.reason for value in values if value.number is None), "")
    members = {_key(key): item.value for key, item in node.value.items()}
    evidence = members.get("evidence", "")
    stated = members.get("confidence")
    if isinstance(stated, str):
        stated = read_value(plain(stated), 0, len(stated), (1, 10)).number
    return (
        tuple(value.number for value in values if value.number is not None),
        tuple(value.span for value in values),
        evidence.strip() if isinstance(evidence, str) else "",
        in_scale(stated),
        reason,
    )


def _value(node: Node, text: str, scale: Scale) -> Value:
    number = node.value
    if isinstance(number, str):
        value = read_value(plain(number), 0, len(number), scale, comment=False)
        inside = text.find(number[slice(*value.span)], node.start, node.end) if value.number is not None else -1
        start = max(inside, node.start)
        return Value(
            value.number, (start, start + value.span[1] - value.span[0] if inside >= 0 else start), value.reason
        )
    if isinstance(number, bool) or not isinstance(number, float):
        return Value(None, reason=f"a score is {Node.plain(node)!r}, not a number"[:80])
    if not scale[0] <= number <= scale[1]:  # also refuses NaN
        return Value(None, reason=f"the score {number:g} is not between {scale[0]} and {scale[1]}")
    return Value(number, (node.start, node.end))


def _stands_alone(text: str, outer: Node) -> bool:
    """Whether it is an answer by itself: it begins a line or follows a colon or a sentence, and no sentence goes on."""
    before = text[max(text.rfind("\n", 0, outer.start) + 1, outer.start - 200) : outer.start]
    if _QUOTE_LINE.match(before) or (after := _FOLLOWED.match(text, outer.end)) is None:
        return False
    if after["next"] and after["next"].islower():
        return False
    quote = before.rstrip()[-1:]
    is_quoted = quote in ("\"'“«「„") and text[outer.end : outer.end + 1] in ("\"'”»」“") if quote else False
    return not is_quoted and (not before.strip() or _INTRODUCED.search(before) is not None)
