"""Signs that a text under judgement tries to judge itself. They are counted and reported; they change no score."""

from __future__ import annotations

import re

from evaluators.reading.markup import has_chat_markup
from evaluators.reading.scores import Scores, parse_scores
from evaluators.samples import Pair

LONGEST = 100_000
"""Of a longer text only the two ends are looked at."""

_DISOBEY = re.compile(
    r"\b(?:ignore|disregard|forget) (?:(?:all|any|the|your|everything|of|these|those) ){0,4}"
    r"(?:(?:previous|prior|above|earlier|other|preceding) ?){0,2}(?:instruction|prompt|rule|guideline|direction)"
    r"|(?:忽略|无视)[^。]{0,12}(?:指令|指示|说明)|игнорируй\w{0,4} [^.]{0,20}инструкци"
    r"|\bignora\w{0,4} [^.]{0,25}instruc|\bignor(?:iere|ez) [^.]{0,25}(?:anweisung|instruction)"
    r"|\b(?:dear|attention|note to(?: the)?|hey),? (?:llm|ai|judge|evaluator|grader|reviewer)s?\b",
    re.IGNORECASE,
)
_TRIGGERS = (*["ignor", "disregard", "forget", "忽略", "无视", "игнорир", "dear", "attention", "note", "hey"],)
# "rate ... my answer ... ten", each at most 40 signs after the one before and in the same sentence.
_STEPS = re.compile(
    r"\b(?:(?P<verb>rate|score(?! of)|give|grade|award|prefer|choose|pick)|(?P<whom>this|my|(?:assistant|answer) [12])|"
    r"(?P<best>10|ten|highest|best|maximum|full marks|winner))\b|(?P<stop>[.\n])",
    re.IGNORECASE,
)
_VERBS = (*["rate", "score", "give", "grade", "award", "prefer", "choose", "pick"],)
_BESTS = (*["10", "ten", "highest", "best", "maximum", "full", "winner"],)
_NEAR = 41
_DELIMITERS = re.compile(
    r"\[ ?(?:the )?(?:start|end) of [^\]\n]{1,60}\]|</?(?:answer|response|assistant|system|query)[ _-]?[12]?>|"
    r"<(?:start|end) output>",
    re.IGNORECASE,
)
_JSON_SCORE = re.compile(r'"score_?[12]?" ?:', re.IGNORECASE)
_BLANKS = re.compile(r"[^\S\n]+")


def signs(text: str) -> list[str]:
    """The kinds of signs in a text: score format, delimiters, orders, chat markup. Time is linear in the text."""
    if len(text) > LONGEST:
        text = f"{text[: LONGEST // 2]}\n{text[-LONGEST // 2 :]}"
    spaced = _BLANKS.sub(" ", text)
    line = spaced.replace("\n", " ")
    lower = spaced.lower()
    found = []
    if _imitates_scores(text) or _JSON_SCORE.search(spaced):
        found.append("score format")
    if ("[" in spaced or "<" in spaced) and _DELIMITERS.search(spaced):
        found.append("delimiters")
    orders = _holds(lower, _TRIGGERS) and _DISOBEY.search(line) is not None
    if orders or (_holds(lower, _VERBS) and _holds(lower, _BESTS) and _asks_for_the_best(spaced)):
        found.append("orders to the judge")
    if has_chat_markup(text):
        found.append("chat markup")
    return found


def _holds(text: str, words: tuple[str, ...]) -> bool:
    return any(word in text for word in words)


def _imitates_scores(text: str) -> bool:
    return isinstance(parse_scores(text, (0, 100)), Scores)


def _asks_for_the_best(text: str) -> bool:
    verb = whom = -_NEAR
    for step in _STEPS.finditer(text):
        if step["stop"]:
            verb = whom = -_NEAR
        elif step["verb"]:
            verb = step.end()
        elif step["whom"] and verb >= 0 and step.start() - verb <= _NEAR:
            whom = step.end()
        elif step["best"] and whom >= 0 and step.start() - whom <= _NEAR:
            return True
    return False


def suspicious(pair: Pair) -> list[str]:
    """Signs in the responses of a sample, such as "response2: orders to the judge"."""
    responses = {"response1": pair.response1, "response2": pair.response2 or ""}
    return [f"{name}: {sign}" for name, text in responses.items() for sign in signs(text)]
