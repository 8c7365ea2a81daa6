"""The formats that benchmarks publish, a few lines of each."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import datasets
import pytest

from evaluators.benchmarks import check, loaders, read
from evaluators.errors import RunError
from evaluators.samples import Pair
from tests.evaluators.formats import MT_BENCH, PANDALM

FAMILIES = frozenset({"QA", "MDia"})


def load(path: Path, kind: str, **fields: str) -> list[Pair]:
    check(path, kind=kind, fields=fields, families=FAMILIES, limit=None)
    return [pair for _, pair in read(path, kind=kind, fields=fields, families=FAMILIES)]


def _write(path: Path, content: Any) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def test_every_promised_format_is_there() -> None:
    assert set(loaders.names()) >= {"jsonl", "llmeval2", "faireval", "mt-bench", "llmbar", "pandalm", "hf"}


def test_llmbar(tmp_path: Path) -> None:
    good = {"input": "Why?", "output_1": "so", "output_2": "thus", "label": 2}
    (pair,) = load(_write(tmp_path / "dataset.json", [good]), "llmbar")
    assert (pair.id, pair.query, pair.response1, pair.response2, pair.human) == ("llmbar-0000", "Why?", "so", "thus", 2)
    path = _write(tmp_path / "bad.json", [good, {"input": "x"}, 3, good | {"label": 9}])
    with pytest.raises(RunError) as refused:
        load(path, "llmbar")
    text = str(refused.value)
    assert "3 of 4 lines refused" in text
    assert "line 2: has no field 'output_1'" in text and "line 3: holds a int" in text and "line 4: human is 9" in text
    (tmp_path / "torn.json").write_text('[{"input": ')
    with pytest.raises(RunError, match="not JSON"):
        load(tmp_path / "torn.json", "llmbar")


def test_pandalm_takes_the_majority(tmp_path: Path) -> None:
    base = PANDALM
    votes = [(1, 1, 2), (0, 2, 0), (0, 1, 2)]
    rows = [base | {f"annotator{k}": vote for k, vote in enumerate(row, start=1)} for row in votes]
    pairs = load(_write(tmp_path / "testset-v1.json", rows), "pandalm")
    assert [pair.human for pair in pairs] == [1, 0, None]
    assert pairs[0].query == "Add.\n\n1+1"
    assert (pairs[0].system1, pairs[0].system2) == ("bloom-7b", "llama-7b")
    # The published file has the bare word NaN where a sample has no input, or a system said nothing.
    empty = rows[0] | {"input": float("nan"), "response1": float("nan")}
    (pair,) = load(_write(tmp_path / "nan.json", [empty]), "pandalm")
    # Of six responses, pandas made the bare word true.
    (said,) = load(_write(tmp_path / "true.json", [rows[0] | {"response1": True, "response2": False}]), "pandalm")
    assert (said.response1, said.response2) == ("True", "False")
    assert (tmp_path / "nan.json").read_text().count(": NaN") == 2
    assert (pair.query, pair.response1, pair.response2) == ("Add.", "", "3")
    with pytest.raises(RunError, match="line 1: has no field 'annotator1'"):
        load(_write(tmp_path / "x.json", [base]), "pandalm")


def test_mt_bench_compares_up_to_the_turn_that_was_judged(tmp_path: Path) -> None:
    lines = [MT_BENCH | {"winner": "model_b"}, MT_BENCH | {"turn": 2, "winner": "tie (inconsistent)"}]
    path = tmp_path / "human.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    one, two = load(path, "mt-bench")
    assert (one.query, one.response1, one.response2, one.human) == ("user 1", "assistant 1 m", "assistant 1 n", 2)
    assert two.human == 0 and two.family == "MDia" and (two.system1, two.system2) == ("alpaca-13b", "gpt-3.5-turbo")
    assert two.response2 == "Answer 1:\nassistant 1 n\n\nAnswer 2:\nassistant 2 n"
    for wrong, told in (({"winner": "me"}, "winner is 'me'"), ({"turn": 3}, "do not hold 3 turns")):
        path.write_text(json.dumps(lines[0] | wrong))
        with pytest.raises(RunError, match=told):
            load(path, "mt-bench")


def test_faireval_is_a_folder(tmp_path: Path) -> None:
    lines = [{"question_id": number, "text": f"question {number}"} for number in (1, 2, 3)]
    for name in ("question.jsonl", "answer/answer_gpt35.jsonl", "answer/answer_vicuna-13b.jsonl"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        own = [line | {"text": f"{name} {line['question_id']}"} for line in lines]
        (tmp_path / name).write_text("\n".join(map(json.dumps, own)))
    review = tmp_path / "review" / "review_gpt35_vicuna-13b_human.txt"
    review.parent.mkdir()
    review.write_text("CHATGPT\nTIE\nVICUNA13B\n")
    pairs = load(tmp_path, "faireval")
    assert [pair.human for pair in pairs] == [1, 0, 2]
    assert pairs[1].response2 == "answer/answer_vicuna-13b.jsonl 2"
    review.write_text("CHATGPT\nTIE\n")
    with pytest.raises(RunError, match="2 judgments of 3 questions"):
        load(tmp_path, "faireval")
    review.write_text("CHATGPT\nTIE\nBARD\n")
    with pytest.raises(RunError, match="line 3: the winner is 'BARD'"):
        load(tmp_path, "faireval")
    with pytest.raises(RunError, match="name the folder"):
        load(review, "faireval")


def test_a_hugging_face_data_set_with_fields_of_its_own(tmp_path: Path) -> None:
    rows = {"prompt": ["a", "b"], "one": ["x", "y"], "two": ["z", "w"], "winner": ["tie", "model1"]}
    datasets.Dataset.from_dict(rows).save_to_disk(str(tmp_path / "set"))
    fields = {"query": "prompt", "response1": "one", "response2": "two", "human": "winner"}
    assert [(pair.query, pair.human) for pair in load(tmp_path / "set", "hf", **fields)] == [("a", 0), ("b", 1)]
    with pytest.raises(RunError, match="line 1: has no field 'nothing'"):
        load(tmp_path / "set", "hf", **fields | {"query": "nothing"})
    (tmp_path / "empty").mkdir()
    with pytest.raises(RunError, match=str(tmp_path / "empty")):
        load(tmp_path / "empty", "hf")
