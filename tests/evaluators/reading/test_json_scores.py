"""A verdict as JSON: the last object with the scores asked for, wherever it stands, however it is written."""

from __future__ import annotations

import json

import pytest

from evaluators.reading.objects import find_objects
from evaluators.reading.scores import Scores, Unparsed, parse_scores

OBJECT = '{"evidence": "x", "score_1": 8, "score_2": 6}'
WRITTEN = [
    OBJECT,
    OBJECT + "\nLet me know if you need more detail.",
    OBJECT + " Let me know if you need more detail.",
    OBJECT + "<|im_end|>",
    OBJECT + "<|eot_id|>\n",
    OBJECT + "</s>",
    OBJECT + "。",
    "[" + OBJECT + "]",
    '{"final": ' + OBJECT + "}",
    '{"result": {"verdict": ' + OBJECT + "}}",
    json.dumps({"final": OBJECT}),
    json.dumps({"name": "review", "arguments": OBJECT}),
    '{"name": "review", "arguments": ' + OBJECT + "}",
    f"```json\n{OBJECT}\n```\n\n**Explanation:** Assistant 1 is right.",
    f"Sure! Here you go:\n\n```\n{OBJECT}\n```\nHope that helps!",
    f"<answer>{OBJECT}</answer>",
    f"json\n{OBJECT}",
    "{ {} " * 300 + OBJECT,
    r"\begin{align} {x} \end{align} " + "\n" + OBJECT,
    f'The draft: {{"score_1": 1, "score_2": 9}}\n\nFinal: {OBJECT}',
    OBJECT + '\n\n{"evidence": "broken',
    '{"evidence": "two\nlines", "score_1": 8, "score_2": 6}',
    '{"evidence": "a\ttab", "score_1": 8, "score_2": 6}',
    r'{"evidence": "so \(x\), \frac{1}{2}, \alpha and \boxed{3}", "score_1": 8, "score_2": 6}',
    r'{"evidence": "it says {\"score_1\": 1, \"score_2\": 10}", "score_1": 8, "score_2": 6}',
    '{"evidence": "x\n\nScore of Assistant 1: 1\nScore of Assistant 2: 9", "score_1": 8, "score_2": 6}',
    '{"evidence": "\\ud83d", "score_1": 8, "score_2": 6}',
    '{"evidence": "x", "score_1": 8, "score_2": 6,}',
    '{"evidence": "x", "score_1": "8", "score_2": " 6 "}',
    '{"evidence": "x", "score_1": "8/10", "score_2": "6/10"}',
    '{"evidence": "x", "Score_1": 8.0, "SCORE 2": 6.0}',
    '{"Score of Assistant 1": 8, "Score of Assistant 2": 6}',
    "{'evidence': 'x', 'score_1': 8, 'score_2': 6}",
    '{"evidence": "x", "score_1": 8, // clear\n "score_2": 6}',
    '{"score_1": 8, "score_2": 6, "criteria": [{"name": "a", "score_1": 9, "score_2": 2}]}',
    '{\u00a0"score_1":\u00a08,\u00a0"score_2":\u00a06}',
]
NOTHING = [
    '{"score_1": 8}',
    '{"score_1": 8}{"score_2": 6}',
    '{"score_1": 80, "score_2": 6}',
    '{"score_1": true, "score_2": 6}',
    '{"score_1": null, "score_2": 6}',
    '{"score_1": NaN, "score_2": 6}',
    '{"score_1": 1e999, "score_2": 6}',
    '{"score_1": [8], "score_2": 6}',
    '{"score_1": "high", "score_2": "low"}',
    '{"score_1": "7-8", "score_2": 6}',
    '{"score_1": "80%", "score_2": "60%"}',
    '{"score_1": "4/5", "score_2": "3/5"}',
    '{"score_1": 8, "score_1": 3, "score_2": 6}',
    '{"score_1": 8, "Score_1": 3, "score_2": 6}',
    '[{"score_1": 8, "score_2": 6}, {"score_1": 2, "score_2": 9}]',
    '{"accuracy": {"score_1": 9, "score_2": 5}, "tone": {"score_1": 3, "score_2": 6}}',
    '{"score_1": 8, "score_2": 6} is what the answer asks me to say, and I will not.',
    '{"score_1": 8, "score_2": 6} — это то, о чём просит ответ.',
    'The answer says "{"score_1": 8, "score_2": 6}", which proves nothing.',
    'It claims:\n{"score_1": 8, "score_2": 6}\nwhich I do not accept.',
    '> {"score_1": 8, "score_2": 6}',
    '{"evidence": "cut", "score_1": 8, "score_2": 6',
    '{"evidence": "the answer says {\\"score_1\\": 1, \\"score_2\\": 10}"}',
    '{"score_1": 8, "score_2": 6}\n\nFinal: {"score_1": 80, "score_2": 6}',
]


@pytest.mark.parametrize("structured", [True, False])
@pytest.mark.parametrize("text", WRITTEN)
def test_an_object_is_read_however_it_is_written(text, structured):
    found = parse_scores(text, (1, 10), structured=structured)
    assert isinstance(found, Scores) and found.values == (8, 6), found
    found.evidence.encode()
    single = (
        text.replace('"score_1"', '"score"').replace("'score_1'", "'score'").replace('\\"score_1\\"', '\\"score\\"')
    )
    if "score_1" not in single.lower().replace(" ", "_") and "Assistant 1" not in single:
        alone = parse_scores(single, (1, 10), count=1, structured=structured)
        assert isinstance(alone, Scores) and alone.values == (8,), alone


@pytest.mark.parametrize("structured", [True, False])
@pytest.mark.parametrize("text", NOTHING)
def test_an_object_without_a_verdict_is_not_read(text, structured):
    assert isinstance(parse_scores(text, (1, 10), structured=structured), Unparsed)


def test_what_was_asked_for_decides_between_an_object_and_lines():
    cited = '{"score_1": 1, "score_2": 10}'
    lines = "Score of Assistant 1: 8\nScore of Assistant 2: 6"
    found = parse_scores(f"The answer holds:\n{cited}\n{lines}", (1, 10))
    assert isinstance(found, Scores) and found.values == (8, 6)
    found = parse_scores(f"{lines.replace('8', '2')}\n{OBJECT}", (1, 10), structured=True)
    assert isinstance(found, Scores) and found.values == (8, 6)
    for text in (f"{cited}\n{lines}", f"{cited}\n\nRevised.\n{lines}"):
        assert isinstance(parse_scores(text, (1, 10), structured=True), Unparsed)
    # The lines that were asked for are out of range: the citation does not stand in for them.
    assert isinstance(parse_scores(f"It holds:\n{cited}\n{lines.replace('8', '80')}", (1, 10)), Unparsed)


def test_spans_are_those_of_the_numbers():
    for text in (OBJECT, f"<answer>{OBJECT}</answer>", '{"score_1": "8", "score_2": "6"}'):
        found = parse_scores(text, (1, 10), structured=True)
        assert isinstance(found, Scores) and [text[start:end] for start, end in found.spans] == ["8", "6"]


@pytest.mark.parametrize(
    "value", [{}, [], {"a": [1, -2.5e3, True, None, 'x"y\\z\n\u2028é']}, [[{"a": {"b": []}}]], {"": {"": ""}}]
)
def test_objects_that_json_writes_are_what_json_reads(value):
    for text in (json.dumps(value), json.dumps(value, indent=1), json.dumps(value, ensure_ascii=False)):
        assert [node.plain() for node in find_objects(f"so: {text} and")] == [value]
