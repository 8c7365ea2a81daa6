"""Data as people have them: read, or refused in words that say what to do."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from evaluators.benchmarks import check, read
from evaluators.errors import RunError
from evaluators.samples import label
from tests.evaluators.conftest import Done, records, write_pairs

GOOD = {"query": "q", "response1": "a", "response2": "b"}
FAMILIES = frozenset({"QA", "MDia"})


def checked(path: Path, *lines: object, kind: str = "jsonl", skip: bool = False, limit: int | None = None) -> list:
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    found = check(path, kind=kind, fields={}, families=FAMILIES, limit=limit, skip_refused=skip)
    pairs = read(path, kind=kind, fields={}, families=FAMILIES, skip=found.refused)
    return [pair for _, pair in pairs][:limit]


@pytest.mark.parametrize(
    ("spelled", "meant"),
    [
        ("model_a", 1),
        ("model_b", 2),
        ("tie", 0),
        ("tie (bothbad)", 0),
        ("Tie (BothBad)", 0),
        ("both_bad", 0),
        ("tie (inconsistent)", 0),
        (" model_A ", 1),
        ("2.0", 2),
        ("1.00", 1),
        ("-1.0", 0),
        (2.0, 2),
        (0.0, 0),
    ],
)
def test_arenas_words_and_numbers_of_other_types_are_labels(spelled: object, meant: int, tmp_path: Path) -> None:
    assert label(spelled) == meant
    turn = [{"role": role, "content": role} for role in ("user", "assistant")]
    arena = {"question_id": "x", "model_a": "m", "model_b": "n", "winner": spelled, "turn": 1}
    arena |= {"conversation_a": turn, "conversation_b": turn}
    for kind, line in (("jsonl", {**GOOD, "human": spelled}), ("mt-bench", arena)):
        assert [pair.human for pair in checked(tmp_path / "d", line, kind=kind)] == [meant], kind


@pytest.mark.parametrize("value", ["model_c", "1.5", "tie (both)", "bothbad ", True, [1], {"a": 1}, "neither", 1.5])
def test_what_is_no_label_is_refused_with_the_line(value: object, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="line 2: human is"):
        checked(tmp_path / "d", GOOD, {**GOOD, "human": value})


def test_a_null_response_among_pairs_is_refused_wherever_it_stands(tmp_path: Path) -> None:
    null = {**GOOD, "response2": None, "human": 2}
    alone = {"query": "q", "response1": "a", "human": 2}
    path = tmp_path / "d"
    for lines, refused in (
        ([GOOD, null, GOOD], [2]),
        ([null, null, GOOD, alone, null], [1, 2, 5]),
        ([null, alone, GOOD], [1]),
    ):
        with pytest.raises(RunError, match="response2 is null in a file of pairs") as error:
            checked(path, *lines)
        assert [f"line {number}: response2" in str(error.value) for number in range(1, len(lines) + 1)] == [
            number in refused for number in range(1, len(lines) + 1)
        ]
        assert len(checked(path, *lines, skip=True)) == len(lines) - len(refused)
    # A file in which no line has a second response is one of single responses, however that is written.
    assert [pair.is_single for pair in checked(path, null, alone, null)] == [True] * 3
    assert len(checked(path, null, null, null, limit=2)) == 2
    assert len(checked(path, null, GOOD, GOOD, GOOD, skip=True, limit=2)) == 2


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (json.dumps([GOOD, GOOD], indent=2).encode(), "this is a JSON array; write one object a line"),
        (json.dumps([GOOD]).encode(), "this is a JSON array"),
        (b"\xef\xbb\xbf" + json.dumps([GOOD], indent=1).encode(), "this is a JSON array"),
        (json.dumps(GOOD, indent=2).encode(), "this is an object over several lines"),
        (json.dumps(GOOD).encode("utf-16"), "this is UTF-16"),
        (json.dumps(GOOD).encode("utf-16-le"), "this is UTF-16"),
        (json.dumps(GOOD).encode("utf-16-be"), "this is UTF-16"),
        (gzip.compress(json.dumps(GOOD).encode(), mtime=0), "this is packed with gzip"),
        (b"PAR1\x15\x04", "this is Parquet"),
        (json.dumps(GOOD).replace('"a"', "NaN").encode(), "line 1: response1 is NaN"),
        (json.dumps({**GOOD, "response1": [{"role": "user", "content": "x"}]}).encode(), "is a list of messages"),
        (json.dumps({**GOOD, "id": 2.0}).encode(), "line 1: id is 2.0"),
        (json.dumps({**GOOD, "id": "x"}).encode() * 1 + b"\n" + json.dumps({**GOOD, "id": "x"}).encode(), "id 'x'"),
        (b'{"query": "\xff"}', "line 1: not UTF-8"),
        (b"[" * 100_000, "line 1: not JSON"),
        (b'{"id": ' + b"9" * 10_000 + b"}", "line 1: not JSON"),
    ],
)
def test_other_files_are_named_once(content: bytes, told: str, tmp_path: Path) -> None:
    path = tmp_path / "d.jsonl"
    path.write_bytes(content)
    with pytest.raises(RunError) as error:
        check(path, kind="jsonl", fields={}, families=FAMILIES, limit=None)
    assert told in str(error.value) and str(error.value).count("\n") <= 2, error.value


def test_line_ends_within_texts_and_marks_of_order_are_no_lines(judge: Callable[..., Done], tmp_path: Path) -> None:
    text = "a\u2028b\u2029c\x85d\x0be\x0cf\x1cg\rh"
    line = json.dumps({"id": "x\u2028y", **GOOD, "response1": text}, ensure_ascii=False)
    (tmp_path / "p.jsonl").write_bytes(b"\xef\xbb\xbf" + line.encode() + b"\r\n\r\n")
    script = json.dumps({"reply": f"{text}\nScore of Assistant 1: 8\nScore of Assistant 2: 6"}, ensure_ascii=False)
    (tmp_path / "s.jsonl").write_bytes(b"\xef\xbb\xbf" + script.encode() + b"\n")
    done = judge("run", "--data", "p.jsonl", "--judge", "scripted:s.jsonl", "--preset", "single", "--out", "r")
    assert done.returncode == 0, done.stderr
    raw = (tmp_path / "r" / "verdicts.jsonl").read_text()
    assert len(raw.splitlines()) == 1
    [record] = records(tmp_path / "r")
    assert record["response1"] == text and record["verdict"]["winner"] == 1
    assert record["layers"][0][0]["evidence"].startswith("a\u2028b")


def test_a_dry_run_needs_no_key_and_says_what_to_expect(judge: Callable[..., Done], tmp_path: Path) -> None:
    write_pairs(tmp_path / "p.jsonl", 10)
    words = ("run", "--data", "p.jsonl", "--judge", "openai:gpt-4o-mini", "--key-env", "NO_SUCH_VARIABLE", "--dry-run")
    done = judge(*words)
    assert done.returncode == 0, done.stderr
    cheapest, likely, most = (line for line in done.stdout.splitlines() if "neurons a layer" in line)
    assert cheapest.endswith("(cheapest)") and likely.endswith("(likely)") and most.endswith("(most)")
    [expected] = [line for line in done.stdout.splitlines() if line.startswith("expect ")]
    # 1 + 2 n L calls a sample, for 2, 5 and 8 roles and two layers.
    assert "90 calls" in cheapest and "210 calls" in likely and "330 calls" in most and " 210 calls" in expected
    costs = [float(line.split("about ")[1].split(" USD")[0]) for line in (cheapest, likely, most)]
    assert f"about {costs[1]:.2f} USD" in expected and f"from {costs[0]:.2f} USD to {costs[2]:.2f} USD" in expected
    assert "what a model thinks before it answers comes on top" in done.stdout
    one = judge(*words, "--width", 3).stdout
    assert one.count("neurons a layer") == 1 and "cheapest" not in one and "from" not in one.split("expect")[1]
    unpriced = judge(*[word if word != "openai:gpt-4o-mini" else "openai:mine" for word in words]).stdout
    assert "expect      unpriced, 210 calls, from 90 calls to 330 calls" in unpriced
