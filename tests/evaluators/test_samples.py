from __future__ import annotations

import json
import math
import zipfile
from pathlib import Path

import pytest
import yaml

from evaluators.benchmarks import check, loaders, parse_fields, read
from evaluators.benchmarks.llmeval2 import FAMILY_OF
from evaluators.errors import ConfigError, RunError
from evaluators.samples import LABELS, Pair, label
from tests.evaluators.formats import FORMATS

FAMILIES = frozenset(FAMILY_OF.values())
GOOD = {"id": "a", "query": "q", "response1": "x", "response2": "y", "human": 1}


def write(path: Path, *lines: object) -> Path:
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return path


def load(path: Path, kind: str = "jsonl", fields: tuple[str, ...] = ()) -> list[Pair]:
    names = parse_fields(fields)
    check(path, kind=kind, fields=names, families=FAMILIES, limit=None)
    return [pair for _, pair in read(path, kind=kind, fields=names, families=FAMILIES)]


def test_fields_and_their_defaults(tmp_path):
    path = write(tmp_path / "p.jsonl", GOOD, "", {"query": "q2", "response1": "", "response2": "é"})
    first, second = load(path)
    assert first == Pair("a", "q", "x", "y", 1)
    assert second == Pair("line-000003", "q2", "", "é", None)


def test_other_names(tmp_path):
    path = write(tmp_path / "p.jsonl", {"question": "q", "a": "x", "b": "y", "gold": "model2"})
    (pair,) = load(path, fields=("query=question", "response1=a", "response2=b", "human=gold"))
    assert (pair.query, pair.response1, pair.response2, pair.human) == ("q", "x", "y", 2)
    with pytest.raises(ConfigError, match="--fields prompt=question"):
        parse_fields(("prompt=question",))
    with pytest.raises(RunError, match=r"line 1: has no field 'question2'.*it has question, a, b, gold"):
        load(path, fields=("query=question2",))


def test_bad_lines_are_refused_by_number_with_the_reason(tmp_path):
    path = write(
        tmp_path / "p.jsonl",
        GOOD,
        "{not json",
        GOOD,
        "[1]",
        GOOD | {"id": "b", "human": 3},
        GOOD | {"id": "c", "query": " "},
        GOOD | {"id": "d", "response1": 5},
        GOOD | {"id": "e", "family": "Poetry"},
        {"query": "q"},
        GOOD | {"id": True},
        GOOD | {"id": "x" * 300},
    )
    with pytest.raises(RunError) as caught:
        load(path)
    told = str(caught.value)
    assert "10 of 11 lines refused" in told
    for line, reason in {
        2: "not JSON",
        3: "id 'a' stands in line 1 already",
        4: "holds a list, not an object",
        5: "human is 3, which is no known label",
        6: "query is empty",
        7: "response1 is int, not a text",
        8: "family 'Poetry' is unknown",
        9: "response1 is missing",
        10: "id is True",
        11: "id is 300 characters long",
    }.items():
        assert f"line {line}: {reason}" in told


@pytest.mark.parametrize(
    "said", [None, "None", "none", " NONE ", "null", "NaN", "nan", "N/A", "na", "<NA>", "", math.nan]
)
def test_a_label_that_is_missing_is_no_tie(tmp_path, said):
    """However pandas and others write that there is none, of pairs and of single responses."""
    [pair] = load(write(tmp_path / "p.jsonl", GOOD | {"human": said}))
    assert pair.human is None
    single = {name: value for name, value in GOOD.items() if name != "response2"}
    [pair] = load(write(tmp_path / "s.jsonl", single | {"human": said}))
    assert pair.human is None


@pytest.mark.parametrize("said", ["both", "Neither", " neither "])
def test_a_label_that_may_be_a_tie_or_no_judgement_is_refused(tmp_path, said):
    with pytest.raises(RunError, match="a tie or no judgement"):
        load(write(tmp_path / "p.jsonl", GOOD | {"human": said}))


@pytest.mark.parametrize("said", ["tie", "TIE", 0, "0", -1, "draw", "equal", "same"])
def test_ties_are_ties(tmp_path, said):
    assert load(write(tmp_path / "p.jsonl", GOOD | {"human": said}))[0].human == 0


@pytest.mark.parametrize("content", [b"", b"\n\n", b'{"query": "caf\xe9"}\n', b"\x00\x01"])
def test_files_with_nothing_to_judge(tmp_path, content):
    (tmp_path / "p.jsonl").write_bytes(content)
    with pytest.raises(RunError, match="holds no sample|refused"):
        load(tmp_path / "p.jsonl")


def test_lone_surrogates_can_be_sent_and_stored(tmp_path):
    path = tmp_path / "p.jsonl"
    path.write_text('{"query": "q\\ud800", "response1": "x", "response2": "y"}\n')
    assert load(path)[0].query == "q?"


def test_deep_nesting_is_refused(tmp_path):
    path = tmp_path / "p.jsonl"
    path.write_text("[" * 100_000 + "\n")
    with pytest.raises(RunError, match="line 1: not JSON"):
        load(path)


def test_the_original_llmeval2_file_zipped_or_not(tmp_path):
    lines = [
        {"query": "q", "response1": "x", "response2": "y", "human": human, "dataset": dataset}
        for human, dataset in (("model1", "webgpt"), (2, "code-contests"), ("tie", "mt-bench"))
    ]
    plain = write(tmp_path / "LLMEval2_benchmark.json", *lines)
    with zipfile.ZipFile(tmp_path / "LLMEval2_benchmark.json.zip", "w") as archive:
        archive.write(plain, "LLMEval2_benchmark.json")
        archive.writestr("__MACOSX/._LLMEval2_benchmark.json", "junk")
    for path in (plain, tmp_path / "LLMEval2_benchmark.json.zip"):
        pairs = load(path, "llmeval2")
        assert [(pair.id, pair.human, pair.family) for pair in pairs] == [
            ("llmeval2-0000", 1, "QA"),
            ("llmeval2-0001", 2, "Code"),
            ("llmeval2-0002", 0, "MDia"),
        ]
    with pytest.raises(RunError, match="dataset 'nowhere' is none of LLMEval²'s"):
        load(write(tmp_path / "x.json", lines[0] | {"dataset": "nowhere"}), "llmeval2")


def test_labels():
    assert {label(spelling) for spelling in LABELS} == {0, 1, 2}
    assert (label(" Tie "), label("MODEL1"), label(-1), label(2.0)) == (0, 1, 0, 2)
    for wrong in (3, "3", True, None, [], "model3", 1.5):
        with pytest.raises(RunError, match="no known label"):
            label(wrong)


@pytest.mark.parametrize("name", loaders.names())
def test_every_benchmark_has_unique_ids_known_labels_and_one_order(name, tmp_path):
    assert name in FORMATS, f"give {name} a small valid file in tests/evaluators/formats.py"
    form = FORMATS[name]
    path = form.write(tmp_path, form.rows)
    once, again = load(path, name), load(path, name)
    assert once == again and len({pair.id for pair in once}) == len(form.rows) > 1
    assert [pair.human for pair in once] == [1, 2, 0][: len(form.rows)]


@pytest.mark.parametrize("name", loaders.names())
def test_every_benchmark_refuses_a_bad_sample_by_number_with_the_reason(name, tmp_path):
    form = FORMATS[name]
    rows = [form.rows[0], {**form.rows[1], **form.spoil}, *form.rows[2:]]
    path = form.write(tmp_path, rows)
    with pytest.raises(RunError) as caught:
        load(path, name)
    told = str(caught.value)
    assert f"1 of {len(rows)} lines refused" in told and f"line 2: {form.reason}" in told


def test_systems_are_named_both_or_neither(tmp_path):
    path = write(tmp_path / "p.jsonl", GOOD | {"model_a": "m", "model_b": "n"})
    (pair,) = load(path, fields=("system1=model_a", "system2=model_b"))
    assert (pair.system1, pair.system2) == ("m", "n")
    assert pair.digest == load(path)[0].digest
    for wrong, told in (({"system1": "m"}, "system2 is missing"), ({"system1": 3, "system2": "n"}, "system1 is int")):
        with pytest.raises(RunError, match=f"line 1: {told}"):
            load(write(tmp_path / "p.jsonl", GOOD | wrong))


def test_the_shared_samples_load_when_they_are_there():
    path = Path(__file__).parents[3] / "shared" / "data" / "pairwise" / "llmeval2_select_200.jsonl"
    rows = load(path) if path.exists() else []
    assert len(rows) in (0, 200)


def test_every_family_of_llmeval2_has_its_nouns():
    table = yaml.safe_load((Path(__file__).parents[2] / "evaluators" / "prompts" / "families.yaml").read_text())
    assert set(table) == FAMILIES and len(table) == 9
