"""Scores from a judge's reply: the final verdict, in range, or the reason why there is none. Never a guess.

Only the reply is read, never the texts that were judged. Quotations in the reply count for nothing, so a response that
imitates the format is not heard through a judge who cites it.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Scale = tuple[int, int]

_SCORE = (
    r"(?:scor\w*|rating|rated|grade|mark|points?|puntuaci[oó]n|puntaje|calificaci[oó]n|nota|pontua[cç][aã]o|"
    r"punteggio|voto|bewertung|punktzahl|punkte|note|wertung|оценк\w*|балл\w*|得分|评分|評分|分数|分數|打分|スコア|点数|"
    r"得点|評価|점수|평점|puan\w*|ocena|wynik|điểm(?: số)?|skor|nilai|نقاط|درجة|स्कोर|अंक)"
)
_NAME = (
    r"(?:assist[ae]n\w*|asist[ae]n\w*|asystent\w*|ассистент\w*|помощник\w*|助手|助理|アシスタント|어시스턴트|trợ lý|"
    r"مساعد|المساعد|सहायक|answer|response|summary|solution|reply|ending|continuation|description|antwort|"
    r"respuesta|resposta|réponse|risposta|ответ\w*|回答|回复|답변)"
)
# What stands between a name and its number, as a sign or a word.
_LINK = (
    r"(?:[^\S\n]*(?:[:=|]|->|是|为|は|が|은|는)|[^\S\n]+(?:-(?=\s)|(?:is|was|of|to|gets|receives|scores|est|es|é|è|ist)\b))"
    r"[^\w\n+-]{0,8}\n?[^\w\n+-]{0,4}"
)
_NUMBER = r"(?P<number>[-+]?\d+(?:[.,]\d+)*)(?P<rest>[^\n]{0,40})"
_NOTHING = r"(?P<nothing>n/?a\b|none\b|unknown\b|not applicable|\?)"

# "Score of the Assistant 1: 8", "Assistant 1's score is 8", "助手1的得分:8"; without a word for it, "Assistant 1: 8".
_PAIR = re.compile(
    rf"(?:(?P<before>{_SCORE})[^\n\d:=|]{{0,24}}?)?(?<![^\W\d_]){_NAME}[^\w\n]{{0,3}}(?P<who>[12])(?!\d|[.,]\d)"
    rf"(?P<between>[^\n\d]{{0,40}}?){_LINK}(?:{_NUMBER}|{_NOTHING})",
    re.IGNORECASE,
)
_SINGLE = re.compile(
    rf"(?<![^\W\d_]){_SCORE}(?P<between>[^\n\d:=]{{0,24}}?){_LINK}(?:{_NUMBER}|{_NOTHING})",
    re.IGNORECASE,
)
_CONFIDENCE = re.compile(
    r"(?:confidence|置信度|信心|自信度|уверенность|confianza|confiance|konfidenz|신뢰도)[^\n\d:=]{0,24}[:=]\W{0,8}(\d+(?:\.\d+)?)\s*(%?)",
    re.IGNORECASE,
)
_HAS_SCORE = re.compile(_SCORE, re.IGNORECASE)
_QUOTED = re.compile(
    r'"[^"]{0,800}?"|“[^”]{0,800}”|«[^»]{0,800}»|„[^“”]{0,800}[“”]|「[^」]{0,800}」|^[ \t]*>[^\n]*', re.MULTILINE
)
_OUT_OF = re.compile(r"\s*(?:/|out of|of|von|sur|de|из|su|över|op)\s*(\d+(?:[.,]\d+)?)", re.IGNORECASE)
# What may follow a number that had no word for score before it: "Assistant 1: 8", but not "Assistant 1: 3 mistakes".
_UNIT = r"\s*(?:points?|pts?\.?|分|点|점|балл\w*|punkte|puntos|pontos|puan)?\s*"
_ENDS = re.compile(rf"{_UNIT}(?:[,;|)\]]|and\b|$|\(|\.(?:\s*$|\s+{_NAME}))", re.IGNORECASE)
_ALONE = re.compile(rf"{_UNIT}[.)\]]?\s*$", re.IGNORECASE)
# What makes a number another number, or several: "80%", "7-8", "7 to 8", "8th", "8+".
_GOES_ON = re.compile(
    r"\s*%|\s*(?:-|~|to\b|or\b)\s*\d|[-+](?![^\W\d_])|(?!pts?\b|points?\b|and\b)[a-z_]", re.IGNORECASE
)


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


def parse_scores(text: str, scale: Scale, *, count: int = 2) -> Scores | Unparsed:
    """The final scores of a reply to a review prompt, for `count` responses (1 or 2).

    The last mention of each counts, so a revised score replaces an earlier one; a last mention that is out of range or
    no number makes the reply unparsed, rather than letting an earlier one stand.
    """
    if not text.strip():
        return Unparsed("the reply is empty")
    structured = _from_json(text, scale, count)
    return structured if structured is not None else _from_text(text, scale, count)


def _from_text(text: str, scale: Scale, count: int) -> Scores | Unparsed:
    plain = _normalized(text)
    # A quotation is blanked out, so that positions stay.
    plain = _QUOTED.sub(lambda found: re.sub(r"[^\n]", " ", found[0]) if _tells_scores(found[0]) else found[0], plain)
    finals: dict[int, re.Match[str]] = {}
    position = 0
    pattern = _PAIR if count == 2 else _SINGLE
    while (found := pattern.search(plain, position)) is not None:
        position = found.end("number") if found["number"] else found.end()
        who = int(found["who"]) if count == 2 else 1
        is_labelled = count == 1 or bool(found["before"] or _HAS_SCORE.search(found["between"]))
        # A number on the next line could begin anything, unless it stands there alone.
        on_next_line = bool(found["number"]) and "\n" in found[0][: found.start("number") - found.start()]
        if found["nothing"] and not is_labelled:
            continue
        must_end = bool(found["number"]) and (on_next_line or not is_labelled)
        if must_end and not _ends_there(found, _ALONE if on_next_line else _ENDS):
            continue
        finals[who] = found
    missing = [who for who in range(1, count + 1) if who not in finals]
    if missing:
        return Unparsed("it holds no score" + (f" of Assistant {missing[0]}" if len(missing) < count else ""))
    values: list[float] = []
    for who in range(1, count + 1):
        value = _number(finals[who], scale)
        if isinstance(value, Unparsed):
            return value
        values.append(value)
    first = min(finals[who].start() for who in finals)
    return Scores(
        tuple(values),
        tuple(finals[who].span("number") for who in range(1, count + 1)),
        _evidence(text[:first]),
        _confidence(plain),
    )


def _tells_scores(quotation: str) -> bool:
    return _PAIR.search(quotation) is not None or _SINGLE.search(quotation) is not None


def _ends_there(found: re.Match[str], ends: re.Pattern[str]) -> bool:
    rest = found["rest"]
    if outof := _OUT_OF.match(rest):
        rest = rest[outof.end() :]
    return ends.match(rest) is not None


def _number(found: re.Match[str], scale: Scale) -> float | Unparsed:
    low, high = scale
    if found["nothing"]:
        return Unparsed(f"a score is {found['nothing']!r}, not a number")
    digits, rest = found["number"], found["rest"]
    shown = f"{found['number']}{rest}".strip()[:20]
    if not re.fullmatch(r"[-+]?\d+(?:[.,]\d+)?", digits):
        return Unparsed(f"the score {shown!r} is no number")
    value = float(digits.replace(",", "."))
    if outof := _OUT_OF.match(rest):
        if float(outof[1].replace(",", ".")) != high:
            return Unparsed(f"the score {shown!r} is not out of {high}")
    elif _GOES_ON.match(rest):
        return Unparsed(f"the score {shown!r} is not one number")
    if not low <= value <= high:
        return Unparsed(f"the score {digits} is not between {low} and {high}")
    return value


def _normalized(text: str) -> str:
    """Full-width signs made plain and markup blanked out, character by character, so that positions stay."""
    return "".join(map(_plain, text.replace("\\boxed", " " * 6)))


def _plain(character: str) -> str:
    if character in "*_`#<$\\{}":
        return " "
    folded = unicodedata.normalize("NFKC", character)
    if len(folded) == 1:
        character = folded
    if character in "–—−‐‑‒":
        return "-"
    if character.isdecimal():
        return str(unicodedata.decimal(character))
    return {"⁄": "/", "→": "="}.get(character, character)


def _evidence(text: str) -> str:
    """The explanation before the scores, without the label that the format asks for."""
    text = re.sub(
        r"^\W*(?:<start output>\s*)?(?:evaluation evidence|evidence)\W*[:：]\W*", "", text.strip(), flags=re.IGNORECASE
    )
    return text.strip().strip("*#`").strip()


def _confidence(plain: str) -> float | None:
    stated = list(_CONFIDENCE.finditer(plain))
    return _in_tenths(float(stated[-1][1]), is_percent=bool(stated[-1][2])) if stated else None


def _in_tenths(value: float, *, is_percent: bool = False) -> float | None:
    value = value / 10 if is_percent else value
    return value if 1 <= value <= 10 else None


def find_objects(text: str) -> list[tuple[int, Any]]:
    """The JSON objects and lists that stand in a text, outermost only, each with its position."""
    decoder = json.JSONDecoder()
    found = []
    position = 0
    tries = 0
    while (start := _next_opening(text, position)) >= 0 and tries < 200:
        tries += 1
        try:
            value, position = decoder.raw_decode(text, start)
        except (ValueError, RecursionError):
            position = start + 1
        else:
            found.append((start, value))
    return found


def _next_opening(text: str, position: int) -> int:
    openings = [at for sign in "{[" if (at := text.find(sign, position)) >= 0]
    return min(openings, default=-1)


def _from_json(text: str, scale: Scale, count: int) -> Scores | Unparsed | None:
    """Scores from a structured reply; None where the reply is not one."""
    names = [("score_1", "score1"), ("score_2", "score2")] if count == 2 else [("score",)]
    objects = [
        (start, value)
        for start, value in find_objects(text)
        if isinstance(value, Mapping) and all(any(key in value for key in keys) for keys in names)
    ]
    if not objects:
        return None
    start, value = objects[-1]
    # An object in a line that quotes, or one that the reply does not end with, is a citation.
    if text[text.rfind("\n", 0, start) + 1 : start].lstrip().startswith(">"):
        return None
    end = json.JSONDecoder().raw_decode(text, start)[1]
    if re.sub(r"[\s`]|</?\w+>", "", text[end:]):
        return None
    values: list[float] = []
    for keys in names:
        score = next(value[key] for key in keys if key in value)
        if isinstance(score, str) and re.fullmatch(r"\s*\d+(?:\.\d+)?\s*", score):
            score = float(score)
        if isinstance(score, bool) or not isinstance(score, (int, float)):
            return Unparsed(f"a score is {score!r}, not a number"[:80])
        if not scale[0] <= score <= scale[1]:  # also refuses NaN
            return Unparsed(f"the score {score} is not between {scale[0]} and {scale[1]}"[:80])
        values.append(float(score))
    confidence = value.get("confidence")
    evidence = value.get("evidence", "")
    return Scores(
        tuple(values),
        tuple(_json_span(text, start, end, keys) for keys in names),
        evidence.strip() if isinstance(evidence, str) else "",
        _in_tenths(confidence) if isinstance(confidence, (int, float)) else None,
    )


def _json_span(text: str, start: int, end: int, keys: tuple[str, ...]) -> tuple[int, int]:
    pattern = rf'"(?:{"|".join(keys)})"\s*:\s*"?\s*(\d+(?:\.\d+)?)'
    spans = [found.span(1) for found in re.compile(pattern).finditer(text, start, end)]
    return spans[-1] if spans else (start, start)
