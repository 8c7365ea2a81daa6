"""Whatever a reply holds, it is read in time linear in its length: ten times the text takes some ten times as long."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

import pytest

from evaluators.reading.roles import parse_roles
from evaluators.reading.scores import parse_scores
from evaluators.reading.suspicion import signs
from evaluators.reading.thoughts import split

VERDICT = "Score of Assistant 1: 8\nScore of Assistant 2: 6"
PIECES = [
    *(
        "score",
        "score ",
        "score: ",
        "score: 8\n",
        f"{VERDICT}\n",
        "Score of Assistant 1: 8 ",
        "Assistant 1: 8, Assistant 2: 6. ",
    ),
    *(
        "Assistant 1: 8\n",
        "assistant 1 ",
        "assistant",
        "the score is ",
        "final score is 8. ",
        "overall: ",
        "Note: 3\n",
        "it is 8 ",
    ),
    *("{", "[", '{"', '"', '\\"', '{"a":', '{"a":[', "[[", "{'", "{//\n", "{ // a\n", '{"score_1": 8, "score_2": 6}\n'),
    *(
        "|\n",
        "| a | b |\n",
        "|---|\n",
        "| Assistant 1 | 8 |\n",
        "1\n",
        "1 ",
        "1. ",
        "- a: b\n",
        "- ",
        "-",
        "*",
        "`",
        "```\n",
    ),
    *(
        "“",
        "”",
        '"a" ',
        "> ",
        ">\n",
        "«»",
        "「",
        "<think>",
        "</think>",
        "<think></think>",
        "[THINK]",
        "<",
        "<|",
        "<s>",
        "analysis",
    ),
    *(
        "<|channel|>analysis",
        "<|end|>",
        "助手1的得分：8\n",
        "助手1得分",
        "得分",
        "的",
        "１",
        "٨",
        "½",
        "10점 만점에 8점 ",
        "é",
        "e\u0301",
    ),
    *(
        "ignore ",
        "ignore all ",
        "rate this ",
        "my 10 ",
        "rate my 10 ",
        "dear ",
        "[start of ",
        "confidence",
        "confidence: 9\n",
    ),
    *(
        "\\",
        "\\frac{",
        "\\boxed{",
        "&nbsp;",
        "\ud83d",
        "\u2028",
        "\0",
        "😀",
        "((((",
        "a.",
        "! ",
        ". ",
        "of of ",
        "\n",
        " ",
        "\t",
        "\r",
    ),
]


def texts(length: int) -> dict[str, str]:
    draw = random.Random(0)
    signs_of_all = 'score of assistant 12:|{}[]"\\\n <>助手得分８,.“”`*'
    return {
        **{piece: (piece * (length // len(piece) + 1))[:length] for piece in PIECES},
        "ignore and blanks": "ignore" + " " * length,
        "blanks, then a verdict": " " * length + VERDICT,
        "a verdict, then a line": VERDICT + "\n" + "a" * length,
        "a verdict with a gap": VERDICT.replace("\n", "\n" * length),
        "nested": '{"a":' * (length // 6) + "1" + "}" * (length // 6),
        "noise": "".join(draw.choices(signs_of_all, k=length)),
        "prose": ("The first answer is right. It names 3 sources; the score is 2 points higher. " * length)[:length],
    }


def took_s(read: Callable[[str], object], text: str) -> float:
    """Of this process's own time: what others on the machine do counts for little."""
    start = time.process_time()
    read(text)
    return time.process_time() - start


def is_linear(read: Callable[[str], object], short: str, long: str) -> bool:
    """A quadratic reader takes 100 times as long for ten times the text; below 2 ms a clock tells little."""
    return any(took_s(read, long) < 40 * max(took_s(read, short), 0.002) for _ in range(3))


READERS: dict[str, Callable[[str], object]] = {
    "pair": lambda text: parse_scores(text, (1, 10)),
    "single": lambda text: parse_scores(text, (1, 10), count=1),
    "object": lambda text: parse_scores(text, (1, 10), structured=True),
    "roles": parse_roles,
    "thoughts": split,
    "suspicion": signs,
}


@pytest.mark.timeout(120)
@pytest.mark.parametrize("reader", READERS)
def test_time_is_linear_in_the_text(reader):
    read = READERS[reader]
    short, long = texts(9_000), texts(90_000)
    for text in short.values():
        read(text)  # tables of words are compiled once
    assert [name for name in short if not is_linear(read, short[name], long[name])] == []


@pytest.mark.timeout(60)
def test_ten_megabytes_are_read_too():
    for piece in ("Assistant 1: 8, ", '{"a":', "<think>", "\n", "助手1得分", "\ud83d"):
        text = piece * (10_000_000 // len(piece)) + "\n" + VERDICT
        said = split(text)
        assert said.unclosed or "Score of Assistant 1: 8" in said.text
        parse_scores(said.text, (1, 10))
        signs(text)
