"""LLMEval²: 61 lines of our own with every trap of the published file, and the published file where it is at hand.

The traps: dialogues without a query, blank responses, identical pairs, other scripts, queries that stand there more
than once, lines that end in CRLF.
"""

from __future__ import annotations

import json
import zipfile
from collections import Counter
from pathlib import Path

import pytest

from evaluators import benchmarks, metrics
from evaluators.benchmarks.llmeval2 import FAMILY_OF, LANGUAGE_OF
from evaluators.errors import RunError
from evaluators.prompts import Prompts
from evaluators.samples import Pair
from evaluators.statistics.clusters import clusters, keys
from tests.evaluators.conftest import records

TRAPS = Path(__file__).with_name("llmeval2_traps.jsonl")
SHARED = Path(__file__).parents[4] / "shared" / "data" / "llmeval2"
WHOLE = SHARED / "LLMEval2_benchmark.json.zip"
PROMPTS = Prompts()


def load(path: Path, kind: str = "llmeval2") -> list[Pair]:
    names = {"kind": kind, "fields": {}, "families": frozenset(PROMPTS.families)}
    benchmarks.check(path, **names, without_query=PROMPTS.without_query, limit=None)
    return [pair for _, pair in benchmarks.read(path, **names, without_query=PROMPTS.without_query)]


def blank(pair: Pair) -> bool:
    return not pair.response1.strip() or not (pair.response2 or "").strip()


def cluster_names(pairs: list[Pair]) -> list[str]:
    return clusters([keys(pair.query, (pair.response1, pair.response2)) for pair in pairs])


def test_every_trap_loads_with_the_id_of_its_line():
    rows = [json.loads(line) for line in TRAPS.read_bytes().split(b"\r\n") if line]
    pairs = load(TRAPS)
    assert len(pairs) == len(rows) == 61
    assert [pair.id for pair in pairs] == [f"llmeval2-{at:04d}" for at in range(61)]
    for pair, row in zip(pairs, rows, strict=True):
        texts = (pair.query, pair.response1, pair.response2, pair.dataset)
        assert texts == tuple(row[name] for name in ("query", "response1", "response2", "dataset"))
        assert pair.human == {"model1": 1, "model2": 2, "TIE": 0}[row["human"]]
    assert {pair.dataset for pair in pairs} == set(FAMILY_OF)
    assert sum(blank(pair) for pair in pairs) == 6
    assert sum(pair.response1 == pair.response2 for pair in pairs) == 4
    assert {pair.dataset for pair in pairs if not pair.query.strip()} == {"mt-bench"}


def test_lines_that_loaded_before_empty_queries_did_are_the_same_samples():
    """Ids and digests as of commit f3fa4d5: runs of that time go on."""
    was = {
        "llmeval2-0000": "8e916259427a5282",
        "llmeval2-0001": "3c5e26ce0a7143d4",
        "llmeval2-0019": "28d9af8915791d74",
        "llmeval2-0033": "be1d3498ba1be3d8",
    }
    assert {pair.id: pair.digest for pair in load(TRAPS) if pair.id in was} == was


def test_any_file_may_name_languages(tmp_path):
    line = {"query": "q", "response1": "x", "response2": "y"}
    path = tmp_path / "two.jsonl"
    path.write_text("".join(json.dumps(line | own) + "\n" for own in ({"language": "Latin"}, {})))
    assert [pair.language for pair in load(path, "jsonl")] == ["Latin", ""]


def test_a_language_is_the_data_sets_where_the_script_bears_it_out():
    found = Counter((pair.dataset, pair.language) for pair in load(TRAPS))
    assert found["rlhf-reward-chinese", "Chinese"] == 4  # one of them quotes more Latin letters than it has Chinese
    assert found["rlhf-reward-russian", "Russian"] == found["reward-aira-portuguese", "Portuguese"] == 4
    assert (found["hh-rlhf", "English"], found["hh-rlhf", "unknown"]) == (2, 1)  # a line in Japanese
    assert sum(count for (_, language), count in found.items() if language == "unknown") == 1


def test_dialogues_without_a_query_are_clustered_by_what_they_share():
    pairs = load(TRAPS)
    named = dict(zip((pair.id for pair in pairs), cluster_names(pairs), strict=True))
    alone = [pair for pair in pairs if not pair.query.strip()]
    parts = Counter(named[pair.id] for pair in alone)
    # One opening three times; a text cut off at its start, which two others share in turn; two by themselves.
    assert sorted(parts.values()) == [1, 1, 3, 3]
    assert all(named[pair.id] == pair.query for pair in pairs if pair.query.strip())
    assert set(cluster_names(pairs[::-1])) == set(named.values())


@pytest.mark.parametrize("query", ["", " \n", None])
def test_an_empty_query_is_refused_by_line_in_a_family_that_has_material(query, tmp_path):
    good = {"query": "q", "response1": "x", "response2": "y"}
    for kind, own, loads in (
        ("llmeval2", {"dataset": "webgpt"}, False),
        ("llmeval2", {"dataset": "mt-bench"}, True),
        ("jsonl", {"family": "SDia"}, False),
        ("jsonl", {"family": "MDia"}, True),
        ("jsonl", {}, False),
    ):
        path = tmp_path / "two.jsonl"
        path.write_text("".join(json.dumps(good | own | change) + "\n" for change in ({}, {"query": query})))
        if loads:
            assert [bool(pair.query.strip()) for pair in load(path, kind)] == [True, False]
            continue
        with pytest.raises(RunError, match=f"line 2: query is {'missing' if query is None else 'empty'}"):
            load(path, kind)


def test_another_version_of_the_file_is_named(judge, tmp_path):
    zipped = tmp_path / "traps.json.zip"
    with zipfile.ZipFile(zipped, "w") as archive:
        archive.write(TRAPS, "LLMEval2_benchmark.json")
    told = []
    for path in (TRAPS, zipped):
        done = judge(
            "run", "--data", path, "--format", "llmeval2", "--judge", "simulated:gap=1", "--out", f"of-{path.name}"
        )
        assert done.returncode == 0, done.stderr
        told.append(done.stdout.splitlines()[0].partition(": ")[2])
        assert "blank       6 samples with a blank response, judged like others" in done.stdout
    assert told[0] == told[1] and told[0].startswith("61 samples; another version than the published LLMEval²")
    assert json.loads((tmp_path / f"of-{zipped.name}" / "metrics.json").read_text())["data"]["edition"] in told[0]


@pytest.mark.parametrize("preset", ["single", "faireval", "panel", "widedeep", "widedeep-reference"])
def test_the_traps_go_through_every_command(preset, judge, tmp_path):
    data = ("--data", TRAPS, "--format", "llmeval2", "--seed", 0, "--preset", preset)
    judges = [f"simulated:gap={gap},position=0.5" for gap in (1, 2)]
    for at, one in enumerate(judges):
        done = judge("run", *data, "--judge", one, "--out", f"run{at}")
        assert done.returncode == 0 and "61 samples" in done.stdout, done.stderr
    found = records(tmp_path / "run0")
    assert len(found) == 61 and all(record["verdict"]["unscored"] == 0 for record in found)
    alone = next(record["id"] for record in found if not record["query"].strip())
    for words, told in (
        (("show", "--out", "run0"), "61 samples"),
        (("show", alone, "--out", "run0"), "query\n  (blank)"),
        (("metrics", "run0", "run1", "--draws", 100), "McNemar"),
        (("report", "run0", "--draws", 100), "report.html"),
        (("calibrate", "run0", "--draws", 100), "held out"),
        (("annotate", "run0", "--summary"), "decisions"),
        (("power", "--pilot", "run0", "run1"), "needed"),
    ):
        done = judge(*words)
        assert done.returncode == 0 and told in done.stdout, (words, done.stdout[-500:], done.stderr)
    statistics = json.loads((tmp_path / "run0" / "metrics.json").read_text())["statistics"]
    groups = {name: sum(one["scored"]["accuracy"]["n"] for one in statistics[name].values()) for name in BREAKDOWNS}
    assert groups == dict.fromkeys(BREAKDOWNS, 61)
    assert (statistics["without_query"], statistics["blank_responses"], statistics["refused"]) == (8, 6, {})
    assert statistics["clusters"] == statistics["queries"] - 1 + 4
    text = judge("metrics", "run0", "--draws", 100).stdout
    for told in ("8 without one", "by data set", "by language", "  Portuguese  n = 4", "  the longer  accuracy"):
        assert told in text


BREAKDOWNS = ("families", "datasets", "languages")


def test_a_sweep_over_the_traps(judge, tmp_path):
    data = ("--data", TRAPS, "--format", "llmeval2", "--seed", 0)
    done = judge("sweep", *data, "--judge", "simulated:gap=1", "--widths", 1, 2, "--draws", 100, "--out", "sweep")
    assert done.returncode == 0, done.stderr
    points = json.loads((tmp_path / "sweep" / "sweep.json").read_text())["points"]
    assert [point["samples"] for point in points] == [61] * 4


needs_the_whole = pytest.mark.skipif(not WHOLE.exists(), reason="the published file is not at hand")


@needs_the_whole
def test_the_published_file_loads_whole_zipped_or_not(tmp_path):
    with zipfile.ZipFile(WHOLE) as archive:
        plain = Path(archive.extract("LLMEval2_benchmark.json", tmp_path))
    pairs = load(WHOLE)
    assert pairs == load(plain) and len(pairs) == 2553
    expected = json.loads((SHARED / "expected.json").read_text())
    names = {1: "model1", 2: "model2", 0: "TIE"}
    assert Counter(names[int(pair.human or 0)] for pair in pairs) == expected["labels"]
    for dataset, labels in expected["labels_by_dataset"].items():
        part = Counter(names[int(pair.human or 0)] for pair in pairs if pair.dataset == dataset)
        assert {name: part[name] for name in labels} == labels
    assert len(expected["labels_by_dataset"]) == 15
    assert benchmarks.editions["llmeval2"](WHOLE) == benchmarks.editions["llmeval2"](plain)
    assert benchmarks.editions["llmeval2"](plain) == "LLMEval² as its authors published it"
    # The lines that loaded before empty queries did keep their ids, and those are of their lines.
    assert [pair.id for pair in pairs] == [f"llmeval2-{at:04d}" for at in range(2553)]
    assert (pairs[0].dataset, pairs[3].dataset, pairs[2552].dataset) == ("summarizefeedback", "mt-bench", "summeval")
    assert {pair.family for pair in pairs if not pair.query.strip()} == {"MDia"}
    assert sum(blank(pair) for pair in pairs) == 13
    assert Counter(pair.language for pair in pairs) == {
        "English": 2073,
        **dict.fromkeys(("Chinese", "Portuguese", "Russian"), 160),
    }
    assert set(LANGUAGE_OF) == set(FAMILY_OF)


@needs_the_whole
def test_the_published_files_clusters_and_lines_to_beat():
    pairs = load(WHOLE)
    named = cluster_names(pairs)
    assert len({pair.query for pair in pairs}) == 2205 and len(set(named)) == 2204 + 77
    alone = Counter(name for name, pair in zip(named, pairs, strict=True) if not pair.query.strip())
    assert sum(alone.values()) == 275 and max(alone.values()) == 7
    expected = json.loads((SHARED / "expected.json").read_text())
    human = [int(pair.human or 0) for pair in pairs]
    lines = metrics.baselines(human, [(len(pair.response1), len(pair.response2 or "")) for pair in pairs])
    for ours, theirs in (("always_1", "always_1"), ("longer", "longer_in_characters")):
        assert lines[ours] == pytest.approx({key: expected[theirs][key] for key in lines[ours]}, abs=1e-7)
    assert metrics.ceilings(human)["never_tie"]["accuracy"] == pytest.approx(0.8112, abs=5e-5)
    assert metrics.ceilings(human)["never_tie"]["kappa"] == pytest.approx(0.6829, abs=5e-5)
