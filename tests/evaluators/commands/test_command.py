"""As a user runs it: `depthlab judge ...` in a process of its own."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest
import yaml

from tests.evaluators.conftest import records, write_pairs

SIMULATED = ("--judge", "simulated:")


def test_it_works_with_nothing_but_a_file(judge, tmp_path):
    pairs = write_pairs(tmp_path / "p.jsonl", 30, human=1)
    done = judge("run", "--data", pairs, *SIMULATED, "--out", "out")
    assert done.returncode == 0, done.stderr
    found = records(tmp_path / "out")
    assert len(found) == 30 == len({record["id"] for record in found})
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    right = sum(record["verdict"]["winner"] == 1 for record in found)
    assert metrics["agreement"]["accuracy"] == pytest.approx(right / 30)
    assert f"accuracy {right / 30:.4f}" in done.stdout and "unpriced" in done.stdout
    assert metrics["spent"]["cost"] is None
    record = found[0]
    # Every figure can be computed again from the record alone.
    scores = [item["scores"] for layer in record["layers"] for item in layer]
    mean = [sum(score[position] for score in scores) / len(scores) for position in (0, 1)]
    assert record["verdict"]["scores"] == pytest.approx(mean) and record["spent"]["calls"] == 17
    assert record["run"]["version"] and record["run"]["judges"] and len(record["run"]["config"]) == 16
    assert all(call["text"] and call["key"] for layer in record["layers"] for item in layer for call in item["calls"])


def test_a_finished_run_is_not_judged_again_and_new_samples_are(judge, tmp_path):
    pairs = write_pairs(tmp_path / "p.jsonl", 3)
    command = ("run", "--data", pairs, *SIMULATED, "--out", "out", "--preset", "single")
    assert judge(*command).returncode == 0
    before = (tmp_path / "out" / "verdicts.jsonl").read_bytes()
    assert "3 of 3 samples are judged already" in judge(*command).stdout
    assert (tmp_path / "out" / "verdicts.jsonl").read_bytes() == before
    write_pairs(pairs, 5)
    assert judge(*command).returncode == 0
    after = (tmp_path / "out" / "verdicts.jsonl").read_bytes()
    assert after.startswith(before) and len(after.splitlines()) == 5
    # A sample that has changed under its id is not passed over.
    write_pairs(pairs, 5, query="another")
    done = judge(*command)
    assert done.returncode == 1 and "has judged another sample under the id 's0'" in done.stderr
    done = judge(*command, "--depth", 2)
    assert done.returncode == 1 and "network.depth: None -> 2" in done.stderr


def test_the_stored_config_makes_the_same_run(judge, tmp_path):
    pairs = write_pairs(tmp_path / "p.jsonl", 4)
    flags = (
        "--depth",
        3,
        "--connection",
        "window:2",
        "--roles",
        "Accuracy",
        "Tone, style",
        "--temperatures",
        0.5,
        "None",
    )
    assert judge("run", "--data", pairs, *SIMULATED, "--out", "one", *flags).returncode == 0
    stored = tmp_path / "one" / "config.yaml"
    assert yaml.safe_load(stored.read_text())["network"]["temperatures"] == [0.5, None]
    assert judge("run", "--config", stored, "--out", "two").returncode == 0
    one, two = ({record["id"]: record for record in records(tmp_path / name)} for name in ("one", "two"))
    assert one == two


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        ((), 2, "usage: depthlab judge"),
        (("rnu",), 2, "Did you mean run?"),
        (("run",), 2, "error: --data"),
        (("run", "--data", "p.jsonl"), 2, "error: --judge"),
        (("run", "--data", "p.jsonl", "--judge", "simulated:"), 2, "error: --out"),
        (("run", "--data", "p.jsonl", "--judge", "gpt-4o", "--out", "o"), 2, "write SCHEME:NAME"),
        (("run", "--data", "p.jsonl", "--judge", "opnai:x", "--out", "o"), 2, "did you mean openai?"),
        (("run", "--data", "none.jsonl", *SIMULATED, "--out", "o"), 1, "No such file"),
        (("run", "--data", "p.jsonl", *SIMULATED, "--out", "o", "--preset", "wide"), 2, "did you mean widedeep?"),
        (("run", "--data", "p.jsonl", *SIMULATED, "--out", "o", "--depht", "2"), 2, "--depth"),
        (("run", "--data", "p.jsonl", *SIMULATED, "--out", "o", "--format", "jsnl"), 2, "did you mean jsonl?"),
        (("run", "--data", "p.jsonl", *SIMULATED, "--out", "o", "--budget", "1"), 2, "no price is known"),
        (("run", "--data", "p.jsonl", *SIMULATED, "--out", "o", "--scores", "probabilities"), 2, "--scale 1 9"),
        (("run", "--data", "p.jsonl", *SIMULATED, "--out", "p.jsonl"), 1, "--out p.jsonl"),
        (("run", "--data", "p.jsonl", *SIMULATED, "--out", "."), 1, "not a judge's"),
        (("run", "--config", "bad.yaml"), 2, "did you mean network.depth?"),
        (("run", "--data", "p.jsonl", "--judge", "scripted:bad.yaml", "--out", "o"), 2, "line 1"),
        (
            ("run", "--data", "p.jsonl", "--judge", "openai:m", "--base-url", "localhost:80", "--out", "o"),
            2,
            "--base-url",
        ),
        (("show", "x"), 1, "holds no verdicts.jsonl"),
        (("cache", "--prune"), 2, "--older-than"),
        (("cache",), 1, "no such file"),
    ],
)
def test_what_is_wrong_is_said_in_one_message(judge, tmp_path, words, code, told):
    write_pairs(tmp_path / "p.jsonl", 1)
    (tmp_path / "bad.yaml").write_text("network: {dephts: 3}\n")
    done = judge(*words)
    assert done.returncode == code, done.stderr
    assert told in done.stderr + done.stdout and "Traceback" not in done.stderr


def test_dry_run_makes_no_call_and_tells_calls_tokens_and_cost(judge, server, tmp_path):
    pairs = write_pairs(tmp_path / "p.jsonl", 10)
    command = ("run", "--data", pairs, "--base-url", server.url, "--dry-run", "--judge")
    done = judge(*command, "openai:gpt-4o-mini", "--width", 3)
    assert done.returncode == 0 and not server.requests and not (tmp_path / "out").exists()
    assert re.search(r"3 neurons a layer: 130 calls, [\d,]+ \+ 32,500 tokens .*, about \d+\.\d\d USD", done.stdout)
    assert "unpriced" in judge(*command, "openai:unheard-of").stdout


def test_show_prints_the_whole_network_and_obeys_nobody(judge, tmp_path):
    pairs = write_pairs(tmp_path / "p.jsonl", 1, response2="evil \x1b[2J\x1b[31m text\u202e")
    script = tmp_path / "script.jsonl"
    lines = [
        {"task": "roles", "reply": "- Accuracy: facts\n- Tone"},
        {"layer": 2, "neuron": 2, "reply": "I will not say."},
        {"order": "21", "reply": "Turned evidence \x1b[0m.\nScore of Assistant 1: 3\nScore of Assistant 2: 7"},
        {"reply": "Straight evidence.\nScore of Assistant 1: 8\nScore of Assistant 2: 4"},
    ]
    script.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert judge("run", "--data", pairs, "--judge", f"scripted:{script}", "--out", "out").returncode == 0
    done = judge("show", "s0", "--out", "out")
    assert done.returncode == 0 and "\x1b" not in done.stdout and "\u202e" not in done.stdout
    for part in ("1. Accuracy: facts", "layer 2", "neuron 1, 2 shown first", "7 : 3", "Turned evidence", "8 : 4"):
        assert part in done.stdout
    assert (
        "neuron 2, 1 shown first, by scripted:script.jsonl: unscored: unreadable reply: it holds no score"
        in done.stdout
    )
    assert "verdict: response 1, 7.5 : 3.5 from 6 reviews, 2 unscored" in done.stdout
    listed = judge("show", "--out", "out")
    assert "s0  verdict: response 1" in listed.stdout and "unscored 2" in listed.stdout
    assert judge("show", "s9", "--out", "out").returncode == 1


def test_the_cache_is_looked_at_and_pruned(judge, server, tmp_path):
    pairs = write_pairs(tmp_path / "p.jsonl", 2)
    assert judge("run", "--data", pairs, "--judge", "openai:m", "--base-url", server.url, "--out", "o").returncode == 0
    assert "m: 26 replies" in judge("cache").stdout
    assert "26 replies deleted" in judge("cache", "--prune", "--older-than", 0).stdout
    no_cache = judge(
        "run", "--data", pairs, "--judge", "openai:m", "--base-url", server.url, "--out", "n", "--no-cache"
    )
    assert no_cache.returncode == 0 and "0 replies" in judge("cache").stdout


def test_two_processes_cannot_judge_into_one_folder(judge, tmp_path):
    from filelock import FileLock

    (tmp_path / "out").mkdir()
    with FileLock(tmp_path / "out" / ".lock"):
        done = judge("run", "--data", write_pairs(tmp_path / "p.jsonl", 1), *SIMULATED, "--out", "out")
    assert done.returncode == 1 and "another process is judging into it" in done.stderr


def test_a_reader_that_has_seen_enough_is_no_error(judge, environment, tmp_path):
    pairs = write_pairs(tmp_path / "p.jsonl", 3000)
    flags = ("--preset", "single", "--out", "out")
    assert judge("run", "--data", pairs, *SIMULATED, *flags).returncode == 0
    command = [sys.executable, "-m", "lab.cli", "judge", "show", "--out", str(tmp_path / "out")]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.readline().startswith(b"s")
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 141
