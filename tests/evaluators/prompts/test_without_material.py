"""Families without material: what is shown, and what nobody is told of, where a sample is its responses alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from evaluators.errors import ConfigError
from evaluators.prompts import Prompts, Seen, Texts
from tests.evaluators.conftest import records

SEEN = (Seen("Tone", 1, "evidence", ("7", "6"), own=False, turned=True),)
TWO = ("user: a\n\nassistant: b", "user: a\n\nassistant: c")


def everything(prompts: Prompts, family: str, query: str, presented: tuple[str, ...]) -> list[str]:
    """All that a judge may be shown of a sample."""
    texts = Texts(query, presented)
    messages = []
    for structured in (False, True):
        messages += prompts.roles(family, texts, exact=None, most=8, structured=structured)
        messages += prompts.roles(family, texts, exact=2, most=8, structured=structured)
        for given in ((), SEEN):
            evidence = Texts(query, presented, None, tuple(one.evidence for one in given))
            messages += prompts.review(
                family, evidence, "Tone", given, (1, 10), structured=structured, confidence=structured
            )
    return [message.content for message in messages]


@pytest.mark.parametrize("presented", [TWO, TWO[:1]])
def test_dialogues_are_shown_and_no_question(presented):
    shown = everything(Prompts(), "MDia", "", presented)
    for text in shown:
        assert "None" not in text and "  " not in text and "question" not in text.lower()
        assert "sets of replies" not in text
    opened = [text for text in shown if "[start of " in text]
    assert len(opened) == 8
    for text in opened:
        assert text.startswith("Assistant 1's dialogue:" if len(presented) > 1 else "The assistant's dialogue:")
        assert all(one in text for one in presented) and text.count("[start of dialogue") == len(presented)
    given = "You are given two dialogues." if len(presented) > 1 else "You are given one dialogue."
    assert sum(given in text for text in shown) == 8


def test_the_same_family_with_a_query_speaks_as_before():
    shown = everything(Prompts(), "MDia", "Question 1:\na", TWO)
    assert all("one dialogue and two sets of replies" in text for text in shown[::2])
    assert all(text.startswith("Dialogue:\n[start of dialogue ") for text in shown[1::2])


def test_a_family_of_ones_own_may_leave_material_out(judge, tmp_path):
    own = tmp_path / "own.yaml"
    own.write_text(
        "Duel: {response: poem, responses: poems, goal: the stage, expert_in: verse, quality: beauty, "
        "perspectives: [Rhythm, Wit]}\n"
    )
    prompts = Prompts(families=own)
    assert prompts.without_query == {"MDia", "Duel"}
    assert "You are given two poems." in everything(prompts, "Duel", "", ("a", "b"))[0]
    # A query that is there nevertheless is not hidden from the judge.
    shown = everything(prompts, "Duel", "On rain", ("a", "b"))
    assert "You are given one query and two poems." in shown[0] and "Query:\n[start of query" in shown[1]
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text(json.dumps({"response1": "a", "response2": "b", "family": "Duel"}) + "\n")
    script = tmp_path / "script.jsonl"
    reply = {"reply": "Fine.\nScore of Assistant 1: 8\nScore of Assistant 2: 6"}
    script.write_text("\n".join(map(json.dumps, ({"task": "roles", "reply": "- Rhyme"}, reply))))
    flags = ("--families", own, "--judge", f"scripted:{script}", "--min-roles", 3, "--no-cache", "--out", "duel")
    done = judge("run", "--data", pairs, *flags)
    assert done.returncode == 0, done.stderr
    (record,) = records(tmp_path / "duel")
    assert [role["name"] for role in record["roles"]] == ["Rhyme", "Rhythm", "Wit"]
    assert (record["query"], record["verdict"]["unscored"]) == ("", 0)


def test_long_dialogues_are_shortened_alike(judge, tmp_path):
    pairs = tmp_path / "pairs.jsonl"
    long = [f"user: {word}\n\nassistant: " + f"{word} " * 2000 for word in ("alpha", "omega")]
    pairs.write_text(json.dumps({"query": "", "response1": long[0], "response2": long[1], "family": "MDia"}) + "\n")
    script = tmp_path / "script.jsonl"
    script.write_text(json.dumps({"reply": "Fine.\nScore of Assistant 1: 8\nScore of Assistant 2: 6"}))
    flags = ("--judge", f"scripted:{script}", "--preset", "single", "--no-cache", "--context-tokens", 3000)
    done = judge("run", "--data", pairs, *flags, "--out", "long")
    assert done.returncode == 0, done.stderr
    (record,) = records(tmp_path / "long")
    assert record["shortened"] > 10_000 and record["verdict"]["scored"] == 1


@pytest.mark.parametrize(
    ("yaml", "told"),
    [
        ("material: 3", "material must be a text"),
        ("material: ' '", "material must be a text"),
        ("without_material: {colour: red}", "without_material: must hold some of response"),
        ("without_material: [poem]", "without_material: must hold some of response"),
        ("material: theme, without_material: {response: 3}", "Duel: without_material: response must be a text"),
        ("matter: theme", "Duel: must hold response, "),
    ],
)
def test_a_family_that_cannot_work_is_refused(yaml: str, told: str, tmp_path: Path) -> None:
    nouns = "response: poem, responses: poems, goal: g, expert_in: e, quality: q"
    path = tmp_path / "own.yaml"
    path.write_text(f"Duel: {{{nouns}, {yaml}}}\n")
    with pytest.raises(ConfigError, match=told):
        Prompts(families=path)
