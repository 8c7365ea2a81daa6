"""What breaks: a reply, a sample, a judge, an architecture, the disk. The run goes on, or stops early and says why."""

from __future__ import annotations

import json
import pathlib

import pytest

from evaluators import presets
from evaluators.judges import judges
from evaluators.judges.scripted import Scripted
from evaluators.network import Network
from tests.evaluators.conftest import records, write_pairs

REVIEW = "Score of Assistant 1: 8\nScore of Assistant 2: 6"


@pytest.fixture
def words(server, tmp_path):
    def made(count, *more, out="out"):
        pairs = write_pairs(tmp_path / "p.jsonl", count)
        return (
            *("run", "--data", pairs, "--judge", "openai:m", "--base-url", server.url, "--out", out),
            *("--structured", "off", "--backoff", 0.01, *more),
        )

    return made


@pytest.fixture
def preset(monkeypatch):
    def registered(network):
        monkeypatch.setitem(presets.architectures._things, "mine", lambda judges: network)

    return registered


class Broken(Network):
    """Breaks where a sample's id says so."""

    at: tuple[str, ...] = ("s3",)

    async def judge(self, pair, reviewers):
        judgement = await super().judge(pair, reviewers)
        if pair.id in self.at or not self.at:
            raise KeyError(f"a fault in {pair.id} \x1b[2J \ud83d")
        return judgement


def test_a_sample_that_breaks_is_unscored_with_the_trace_and_the_others_are_judged(
    judge, server, words, preset, tmp_path
):
    preset(Broken(depth=1, roles=()))
    done = judge(*words(8, "--preset", "mine"))
    assert done.returncode == 0, done.stderr
    assert "unscored 1" in done.stdout and "internal error: KeyError" in done.stdout and "\x1b" not in done.stdout
    found = {record["id"]: record for record in records(tmp_path / "out")}
    assert len(found) == 8 and len(server.requests) == 16
    (failure,) = found["s3"]["roles_failures"]
    assert failure["kind"] == "internal" and "Traceback" in failure["trace"] and "KeyError" in failure["trace"]
    assert found["s3"]["verdict"]["winner"] is None and found["s3"]["spent"]["calls"] == 2
    # Mended, the sample costs nothing more.
    preset(Network(depth=1, roles=()))
    assert judge(*words(8, "--preset", "mine", "--retry-unscored")).returncode == 0
    assert len(server.requests) == 16 and len(records(tmp_path / "out")) == 8
    assert judge("show", "s3", "--out", "out").returncode == 0


def test_a_run_that_breaks_everywhere_stops_soon(judge, server, words, preset, tmp_path):
    network = Broken(depth=1, roles=())
    type(network).at, before = (), Broken.at
    try:
        preset(network)
        done = judge(*words(200, "--preset", "mine", "--concurrency", 4))
    finally:
        Broken.at = before
    assert done.returncode == 1 and "5 samples in a row broke by an internal error" in done.stderr
    assert "--retry-unscored" in done.stderr and "Traceback" not in done.stderr
    assert len(records(tmp_path / "out")) < 12


@pytest.mark.parametrize(
    "error", [TypeError("x > None"), KeyError("choices"), IndexError(), OSError("gone"), RecursionError("deep")]
)
def test_whatever_a_judge_raises_fails_its_call(judge, tmp_path, monkeypatch, error):
    class Raises(Scripted):
        async def ask(self, call):
            if call.place.pair.id == "s1" and call.place.order == "21":
                raise error
            return await super().ask(call)

    monkeypatch.setitem(judges._things, "scripted", Raises)
    (tmp_path / "s.jsonl").write_text(json.dumps({"reply": REVIEW}) + "\n")
    pairs = write_pairs(tmp_path / "p.jsonl", 3)
    words = ("run", "--data", pairs, "--judge", f"scripted:{tmp_path / 's.jsonl'}", "--out", "out")
    done = judge(*words, "--preset", "faireval", "--no-cache")
    assert done.returncode == 0, done.stderr
    found = {record["id"]: record for record in records(tmp_path / "out")}
    failed = [item for item in found["s1"]["layers"][0] if "reason" in item]
    assert len(failed) == 3 and {item["kind"] for item in failed} == {"internal"}
    assert all(type(error).__name__ in item["trace"] for item in failed)
    assert found["s1"]["verdict"]["scores"] is None, "one order has no scored review"
    assert found["s0"]["verdict"]["unscored"] == 0


def test_a_verdict_that_there_is_not_is_the_samples(judge, words, preset, tmp_path):
    class Odd(Network):
        async def judge(self, pair, reviewers):
            import dataclasses

            judgement = await super().judge(pair, reviewers)
            return dataclasses.replace(judgement, verdict=dataclasses.replace(judgement.verdict, winner=3))

    preset(Odd(depth=1, roles=()))
    done = judge(*words(2, "--preset", "mine"))
    assert done.returncode == 1 and "no sample is scored" in done.stderr
    assert all("ValueError" in record["roles_failures"][0]["trace"] for record in records(tmp_path / "out"))


def test_a_full_disk_is_one_line_and_loses_no_reply(judge, server, words, tmp_path, monkeypatch):
    write = pathlib.Path.open

    class Full:
        def __init__(self, file):
            self._file, self.lines = file, 0

        def write(self, raw):
            self.lines += 1
            if self.lines > 2:
                raise OSError(28, "No space left on device")
            return self._file.write(raw)

        def __getattr__(self, name):
            return getattr(self._file, name)

    def opened(self, mode="r", *args, **more):
        file = write(self, mode, *args, **more)
        return Full(file) if self.name == "verdicts.jsonl" and mode == "ab" else file

    with monkeypatch.context() as patch:
        patch.setattr(pathlib.Path, "open", opened)
        done = judge(*words(6, "--preset", "single"))
    assert done.returncode == 1 and "No space left on device" in done.stderr and "Traceback" not in done.stderr
    asked = len(server.requests)
    assert judge(*words(6, "--preset", "single")).returncode == 0
    assert len(server.requests) == 6 >= asked and len(records(tmp_path / "out")) == 6


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ({"text": "I would rather not say."}, "it holds no score"),
        ({"text": "", "finish": "length"}, "cut off"),
    ],
)
def test_a_run_of_which_nothing_can_be_read_stops_early(judge, server, words, tmp_path, fault, told):
    server.faults = {-1: fault}
    done = judge(*words(500, "--preset", "single", "--concurrency", 4))
    assert done.returncode == 1, done.stdout
    assert "of the first 20 questions none came to a reply that can be read" in done.stderr and told in done.stderr
    assert len(server.requests) <= 3 * (20 + 4)


def test_a_run_in_which_one_reply_can_be_read_goes_on(judge, server, words, tmp_path):
    texts = iter([REVIEW])
    server.reply = lambda body: next(texts, "I would rather not say.")
    done = judge(*words(30, "--preset", "single", "--concurrency", 1, "--reasks", 0))
    assert done.returncode == 0 and "unscored 29" in done.stdout
    assert len(records(tmp_path / "out")) == 30


def test_one_judge_of_a_panel_that_says_nothing_of_use_stops_the_run(judge, server, words):
    server.reply = lambda body: REVIEW if body["model"] == "m" else "No."
    made = list(words(100, "--preset", "panel", "--reasks", 0))
    made.insert(made.index("openai:m") + 1, "openai:other")
    done = judge(*made)
    assert done.returncode == 1 and "other: of the first" in done.stderr


def test_calls_that_all_fail_stop_the_run_early(judge, server, words):
    server.faults = {-1: {"status": 400, "message": "no"}}
    done = judge(*words(500, "--preset", "single", "--concurrency", 4))
    assert done.returncode == 1 and "the first 10 calls all failed" in done.stderr
    assert len(server.requests) <= 14


def test_a_run_without_a_scored_sample_ends_with_an_error(judge, server, words, tmp_path):
    server.faults = {-1: {"text": "No."}}
    done = judge(*words(3, "--preset", "single"))
    assert done.returncode == 1 and "no sample is scored: 3 x" in done.stderr and "--retry-unscored" in done.stderr
    assert len(records(tmp_path / "out")) == 3
    # The same again has nothing to do and is no success either.
    assert judge(*words(3, "--preset", "single")).returncode == 1
    server.faults = {}
    assert judge(*words(3, "--preset", "single", "--retry-unscored")).returncode == 0


def test_after_a_reply_that_was_cut_off_the_next_has_more_room(judge, server, words):
    cut = {"finish": "length", "text": "Let me think about"}
    server.faults = {0: cut, 1: cut}
    assert judge(*words(1, "--preset", "single", "--max-tokens", 100)).returncode == 0
    assert [request["max_tokens"] for request in server.requests] == [100, 200, 400]
    # What was cut off is not shown again, and the room ends.
    assert all(len(request["messages"]) == len(server.requests[0]["messages"]) for request in server.requests)
    server.faults, server.requests[:] = {-1: cut}, []
    made = words(1, "--preset", "single", "--max-tokens", 100, "--reasks", 9, "--no-cache", out="other")
    assert judge(*made).returncode == 1
    assert [request["max_tokens"] for request in server.requests] == [100, 200, 400, 800]


def test_where_the_context_has_no_more_room_none_is_asked_for(judge, server, words):
    server.faults = {-1: {"finish": "length", "text": "Let me"}}
    made = words(1, "--preset", "single", "--max-tokens", 300, "--context-tokens", 1000, "--reasks", 9)
    assert judge(*made).returncode == 1
    tokens = [request["max_tokens"] for request in server.requests]
    assert tokens[0] == 300 and len(tokens) == 2 and 300 < tokens[1] < 700


def test_a_server_that_takes_no_schema_where_one_must_be_is_one_error(judge, server, words):
    server.schema = False
    made = [word if word != "off" else "on" for word in words(5, "--preset", "single")]
    done = judge(*made)
    assert done.returncode == 1 and "--structured auto" in done.stderr and "Traceback" not in done.stderr
    assert len(server.requests) <= 5


def test_nobody_there_is_told_within_give_up_with_a_word_while_waiting(judge, tmp_path):
    pairs = write_pairs(tmp_path / "p.jsonl", 1)
    words = ("run", "--data", pairs, "--judge", "openai:m", "--base-url", "http://127.0.0.1:9/v1", "--out", "o")
    done = judge(*words, "--give-up", 1, "--backoff", 0.1)
    assert done.returncode == 1 and "does not answer" in done.stderr.splitlines()[-1]
    assert "it is tried again for up to 1 s (--give-up)" in done.stderr


ODD = ("lone \ud83d surrogate", "line\u2028end\u2029s\x85here", "null \x00 byte", "big " * 10_000, "\x1b[2J")


@pytest.mark.parametrize("odd", ODD, ids=("surrogate", "ends", "null", "big", "escape"))
@pytest.mark.parametrize("structured", ["off", "auto"])
def test_replies_that_hold_anything_are_stored_shown_and_read_again(judge, server, words, tmp_path, odd, structured):
    def reply(body):
        if "response_format" in body:  # half an escape in the model's own JSON is ASCII on the wire
            if body["response_format"]["json_schema"]["name"] == "roles":
                return json.dumps({"roles": [{"name": f"role {odd[:100]}", "focus": odd[:100]}]})
            return json.dumps({"evidence": odd, "score_1": 8, "score_2": 6})
        return f"- Wit: {odd[:50]}" if "From which" in str(body["messages"]) else f"{odd}\n{REVIEW}"

    server.reply = reply
    made = [word if word != "off" else structured for word in words(1, "--max-tokens", 100_000)]
    done = judge(*made)
    assert done.returncode == 0, done.stderr[-2000:]
    raw = (tmp_path / "out" / "verdicts.jsonl").read_text(encoding="utf-8")
    assert len(raw.splitlines()) == 1
    record = json.loads(raw)
    json.dumps(record, ensure_ascii=False).encode()
    assert record["verdict"]["unscored"] == 0
    first = record["layers"][0][0]
    if "surrogate" not in odd:
        assert odd.strip()[:20] in first["evidence"] or "\x1b" in odd
    asked = len(server.requests)
    again = judge(*made[:-2], *made[-2:], "--out", "again")
    assert again.returncode == 0 and len(server.requests) == asked
    shown = judge("show", "s0", "--out", "out")
    assert shown.returncode == 0 and "\x1b" not in shown.stdout and "\x00" not in shown.stdout
    listed = judge("show", "--out", "out")
    assert listed.returncode == 0


def test_ten_megabytes_are_stored_shown_and_read_again(judge, server, words, tmp_path):
    server.reply = lambda body: "big " * 2_500_000 + f"\n{REVIEW}"
    assert judge(*words(1, "--preset", "single", "--max-tokens", 10_000_000)).returncode == 0
    (record,) = records(tmp_path / "out")
    assert record["verdict"]["winner"] == 1 and len(record["layers"][0][0]["calls"][0]["text"]) > 10_000_000
    again = judge(*words(1, "--preset", "single", "--max-tokens", 10_000_000, out="again"))
    assert again.returncode == 0 and len(server.requests) == 1
    assert judge("show", "s0", "--out", "out").returncode == 0
