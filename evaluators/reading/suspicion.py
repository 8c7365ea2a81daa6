"""Signs that a text under judgement tries to judge itself. They are counted and reported; they change no score."""

from __future__ import annotations

import re

from evaluators.reading.scores import Scores, parse_scores
from evaluators.prompts.wrapping import has_chat_markup
from evaluators.samples import Pair

_ORDERS = re.compile(
    r"(?:ignore|disregard|forget)\s+(?:all\s+|any\s+|the\s+|your\s+|everything\s+)*(?:previous|prior|above|earlier|other)?"
    r"\s*(?:instruction|prompt|rule|guideline|direction)s?"
    r"|\b(?:rate|score(?!\s+of)|give|grade|award|prefer|choose|pick)\b"
    r"[^.\n]{0,40}\b(?:this|my|assistant [12]|answer [12])\b[^.\n]{0,40}"
    r"\b(?:10|ten|highest|best|maximum|full marks|winner)\b"
    r"|\b(?:dear|attention|note to(?: the)?|hey),?\s+(?:llm|ai|judge|evaluator|grader|reviewer)s?\b"
    r"|(?:忽略|无视)[^。\n]{0,12}(?:指令|指示|说明)|игнорируй\w*\s+[^.\n]{0,20}инструкци\w*"
    r"|ignora\w*\s+[^.\n]{0,25}instruc\w+|ignor(?:iere|ez)\s+[^.\n]{0,25}(?:anweisung|instruction)\w*",
    re.IGNORECASE,
)
_DELIMITERS = re.compile(
    r"\[\s*(?:the\s+)?(?:start|end)\s+of\s+[^\]\n]{1,60}\]|</?(?:answer|response|assistant|system|query)[ _-]?[12]?>|"
    r"<(?:start|end) output>",
    re.IGNORECASE,
)
_JSON_SCORE = re.compile(r'"score_?[12]?"\s*:', re.IGNORECASE)


def signs(text: str) -> list[str]:
    """The kinds of signs in a text: score format, delimiters, orders, chat markup."""
    found = []
    if isinstance(parse_scores(text, (0, 100)), Scores) or _JSON_SCORE.search(text):
        found.append("score format")
    if _DELIMITERS.search(text):
        found.append("delimiters")
    if _ORDERS.search(text):
        found.append("orders to the judge")
    if has_chat_markup(text):
        found.append("chat markup")
    return found


def suspicious(pair: Pair) -> list[str]:
    """Signs in the responses of a sample, such as "response2: orders to the judge"."""
    responses = {"response1": pair.response1, "response2": pair.response2 or ""}
    return [f"{name}: {sign}" for name, text in responses.items() for sign in signs(text)]
