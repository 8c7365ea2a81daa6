"""The page's server through real sockets; decisions survive a kill; figures of the summary against slow formulas."""

from __future__ import annotations

import http.client
import json
import random
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from statistics import mean
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from evaluators.commands.annotate import summary_text
from evaluators.errors import RunError
from evaluators.showing.annotation import EARLIER, Decisions, file_of, read_decisions, shown_order
from evaluators.showing.annotation.server import AnnotationServer
from evaluators.showing.annotation.summary import Judged, summary
from tests.evaluators.conftest import Done

HOSTILE = "</pre><script>document.title='taken'</script>"


def _records(count: int = 3) -> list[dict[str, Any]]:
    review = {"role": "Tone", "evidence": HOSTILE, "scores": [7, 2], "layer": 1, "order": "12"}
    return [
        {"id": f"s{n}", "query": HOSTILE, "response1": f"one {n}", "response2": f"two {n}", "layers": [[review]]}
        for n in range(count)
    ]


def _ask(address: str, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=20)
    connection.request(method, path, None if body is None else json.dumps(body), headers)
    reply = connection.getresponse()
    return reply.status, reply.read()


def test_decisions_through_the_socket_and_other_origins_refused(tmp_path: Path) -> None:
    decisions, others = Decisions(tmp_path, "ann"), Decisions(tmp_path, "Ben / é")
    server = AnnotationServer(_records(), [decisions, others])
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        address, token = server.origin, _token(server.address("ann"))
        body = {"at": 0, "choice": 1, "seconds": 2.5}
        own = {"X-Token": token, "Origin": address}
        for headers in (
            {"X-Token": "wrong"},
            {"X-Token": token, "Origin": "http://evil.example"},
            {"X-Token": token, "Host": "evil.example"},
            {"X-Token": token, "Host": "127.0.0.1.evil.example:80"},
            {"X-Token": token, "Host": "localhost:9000", "Origin": "http://localhost:9001"},
            {"X-Token": token, "Host": "127.0.0.1@evil.example"},
            {},
        ):
            assert _ask(address, "POST", "/decide", body, **headers)[0] == 403
        assert _ask(address, "GET", "/?token=wrong")[0] == 403 and not decisions.latest
        for wrong in ({}, body | {"at": 9}, body | {"choice": 5}, body | {"at": "0"}, [1]):
            assert _ask(address, "POST", "/decide", wrong, **own)[0] == 400
        for wrong in (body | {"at": True}, body | {"seconds": -1}, body | {"seconds": float("nan")}, "x"):
            assert _ask(address, "POST", "/decide", wrong, **own)[0] == 400
        assert _ask(address, "POST", "/reviews", {}, **own)[0] == 400 and not decisions.latest
        assert _ask(address, "POST", "/nothing", body, **own)[0] == 404
        for at in range(3):
            status, text = _ask(address, "GET", f"/sample?token={token}&annotator=Ben&at={at}")
            found = json.loads(text)
            assert found["annotator"] == "ann", "the token says who it is, whatever else the address says"
            turned = shown_order("ann", f"s{at}") == "21"
            assert status == 200 and not {"human", "reviews", "layers"} & found.keys()
            assert found["responses"][turned] == f"one {at}"
            if at == 2:
                status, text = _ask(address, "POST", "/reviews", body | {"at": at}, **own)
                assert status == 200 and json.loads(text)[0]["scores"][turned] == 7
                assert json.loads(text)[0]["turned"] == turned
            assert _ask(address, "POST", "/decide", body | {"at": at}, **own)[0] == 200
            one = decisions.latest[f"s{at}"]
            assert one["label"] == (2 if turned else 1) and one["assisted"] == (at == 2) and one["seconds"] == 2.5
        forwarded = own | {"Host": "localhost:9000", "Origin": "http://localhost:9000"}
        assert _ask(address, "POST", "/decide", body | {"choice": 0}, **forwarded)[0] == 200, "through ssh -L 9000:..."
        ben = {"X-Token": _token(server.address("Ben / é"))}
        assert _ask(address, "POST", "/decide", body | {"annotator": "ann", "choice": 2}, **ben)[0] == 200
        assert _token(server.address("ann")) != ben["X-Token"] and set(others.latest) == {"s0"}
    finally:
        server.shutdown()
        server.server_close()
    decisions.close()
    again = Decisions(tmp_path, "ann")
    assert again.latest == decisions.latest and again.latest["s0"]["label"] == 0
    assert again.latest["s0"]["seconds"] == 5, "both decisions took their time"
    assert {name for name, _ in read_decisions(tmp_path)} == {"ann", "Ben / é"}
    assert sorted(path.name for path in tmp_path.glob("*.jsonl")) == [file_of("Ben / é"), "annotations-ann.jsonl"]


def test_every_person_has_a_file_and_one_process_at_a_time(tmp_path: Path) -> None:
    """Also where a file system takes Ann and ann for one name; and what was kept in one file before counts on."""
    names = ["ann", "Ann", "../../ann", "a/nn", "a_nn", ".", "é" * 100, "con\u202e", ""]
    assert len({file_of(name).casefold() for name in names}) == len(names)
    assert all(re.fullmatch(r"annotations-[a-z0-9_-]{0,60}\.jsonl", file_of(name)) for name in names)
    line = {"id": "s", "label": 1, "seconds": 3, "assisted": False}
    earlier = [{"annotator": "ann", **line}, {"annotator": "ben", **line}]
    (tmp_path / EARLIER).write_text("".join(json.dumps(one) + "\n" for one in earlier) + '{"annotator": "ann", "i')
    ann = Decisions(tmp_path, "ann")
    assert set(ann.latest) == {"s"}
    with pytest.raises(RunError, match="--annotators ann: another process"):
        Decisions(tmp_path, "ann")
    ben = Decisions(tmp_path, "ben")
    ben.add("t\u2028", 2, 1.5)
    # Ben's last line is being written while Ann's process starts again and the summary is read.
    path = tmp_path / file_of("ben")
    half = path.read_bytes() + b'{"annotator": "ben", "id'
    path.write_bytes(half)
    ann.close()
    Decisions(tmp_path, "ann").add("u", 0, 1)
    assert path.read_bytes() == half
    assert {key: one["label"] for key, one in read_decisions(tmp_path).items()} == {
        ("ann", "s"): 1,
        ("ben", "s"): 1,
        ("ben", "t\u2028"): 2,
        ("ann", "u"): 0,
    }


def _token(address: str) -> str:
    return parse_qs(urlsplit(address).query)["token"][0]


def test_what_was_saved_survives_a_kill(
    judge: Callable[..., Done], environment: dict[str, str], tmp_path: Path
) -> None:
    line = {"id": "s", "query": "q", "response1": "a", "response2": "b"}
    (tmp_path / "p.jsonl").write_text(json.dumps(line))
    words = ("--judge", "simulated:gap=1", "--depth", 1, "--out", "r")
    assert judge("run", "--data", "p.jsonl", *words).returncode == 0
    command = [sys.executable, "-m", "lab.cli", "judge", "annotate", "r", "--annotators", "ann"]
    with subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = urlsplit(process.stdout.readline().split(": ", 1)[1].strip())
        token = _token(url.geturl())
        body = {"at": 0, "choice": 0, "seconds": 4}
        assert _ask(url.geturl(), "POST", "/reviews", body, **{"X-Token": token})[0] == 200
        assert _ask(url.geturl(), "POST", "/decide", body, **{"X-Token": token})[0] == 200
        process.send_signal(signal.SIGKILL)
    with (tmp_path / "r" / "annotations-ann.jsonl").open("a") as file:
        file.write('{"annotator": "ann", "id"')
    found = json.loads(judge("annotate", "r", "--summary", "--json").stdout)
    with_reviews = found["seconds"]["with_reviews"]
    assert with_reviews == {"value": 4, "low": None, "high": None, "median": 4, "n": 1}
    assert found["saved"]["time"]["value"] is None and found["annotators"] == {"ann": 1}
    text = judge("annotate", "r", "--summary").stdout
    assert "mean 4.0, median 4.0 (n = 1)" in text and "not known; give --hourly-wage" in text
    assert "give --judge-cost" in judge("annotate", "r", "--summary", "--hourly-wage", 20).stdout
    (tmp_path / "r" / "annotations-ann.jsonl").write_text("nonsense\n")
    with pytest.raises(RunError, match="line 1 is no decision"):
        Decisions(tmp_path / "r", "ann")


@pytest.mark.parametrize(
    ("with_reviews", "alone", "told"),
    [
        (10, 27, "time          63% less: 2.7 times faster"),
        (27, 10, "time          170% more: 2.7 times slower"),
    ],
)
def test_the_summary_says_it_as_people_would(with_reviews: int, alone: int, told: str) -> None:
    decisions = [_one("a", "x", 1, True, with_reviews), _one("a", "y", 1, False, alone)]
    judged = {name: Judged(name, 1, None) for name in "xy"}
    assert any(told in line for line in summary_text(summary(decisions, judged)))


def _one(annotator: str, sample: str, label: int, assisted: bool, seconds: float) -> dict[str, Any]:
    return {"annotator": annotator, "id": sample, "label": label, "assisted": assisted, "seconds": seconds}


def test_summary_by_hand() -> None:
    """Two people, four samples, each part worked out on paper."""
    decisions = [_one("a", "x", 1, True, 2), _one("b", "x", 1, True, 4), _one("a", "y", 2, True, 6)]
    decisions += [_one("b", "y", 1, True, 8), _one("a", "z", 1, False, 30), _one("b", "z", 2, False, 10)]
    decisions += [_one("a", "w", 1, False, 20), _one("b", "w", 2, True, 10), _one("a", "gone", 1, False, 999)]
    winners = {"x": 1, "y": 2, "z": None, "w": 1}
    judged = {name: Judged(name, winner, Decimal("0.01")) for name, winner in winners.items()}
    found = summary(decisions, judged, hourly_wage=36)
    assert found["annotators"] == {"a": 4, "b": 4}
    people = found["among_people"]
    # Both used the reviews on x and y: labels 1, 2 and 1, 1: agreement 1/2, expected by chance 1/2, kappa 0.
    assert people["with_reviews"] == {"agreement": 0.5, "kappa": 0, "n": 2, "pairs": 1}
    # z alone: labels 1 and 2 differ, chance agreement 0, kappa 0.
    assert people["without_reviews"] == {"agreement": 0, "kappa": 0, "n": 1, "pairs": 1}
    assert people["all"]["agreement"] == 0.25 and people["all"]["n"] == 4
    judge = found["judge"]
    assert judge["with_reviews"]["accuracy"] == 3 / 5 and judge["with_reviews"]["n"] == 5
    assert judge["without_reviews"] == {"accuracy": 1, "kappa": None, "n": 1, "unscored": 2}
    assert found["seconds"]["with_reviews"]["value"] == 6 and found["seconds"]["with_reviews"]["median"] == 6
    assert found["seconds"]["without_reviews"]["value"] == 20 and found["seconds"]["without_reviews"]["n"] == 3
    saved = found["saved"]
    assert saved["times_faster"]["value"] == pytest.approx(20 / 6) and saved["time"]["value"] == pytest.approx(0.7)
    # At 36 USD an hour a second costs a cent: 6 cents and 1 for the judge, instead of 20.
    assert saved["cost"]["value"] == pytest.approx(1 - 7 / 20) and saved["judge_cost"] == pytest.approx(0.01)
    dear = summary(decisions, judged, hourly_wage=36, judge_cost=0.24)
    assert dear["saved"]["cost"]["value"] == pytest.approx(-0.5)


def test_intervals_draw_whole_queries() -> None:
    """Against a plain loop over draws of queries."""
    rng = random.Random(0)
    judged = {f"s{n}": Judged(f"q{n // 3}", 1, None) for n in range(90)}
    slow = {f"q{n}": rng.uniform(0.2, 3) for n in range(30)}
    decisions = [
        _one(who, name, 1, assisted, slow[one.query] * (5 if assisted else 12) * rng.uniform(0.8, 1.2))
        for name, one in judged.items()
        for who, assisted in (("a", True), ("b", False))
    ]
    found = summary(decisions, judged, draws=4000)
    ratios = []
    queries = sorted(slow)
    by_query = {query: [one for one in decisions if judged[one["id"]].query == query] for query in queries}
    for _ in range(2000):
        drawn = [one for query in rng.choices(queries, k=30) for one in by_query[query]]
        with_, without = (
            [one["seconds"] for one in drawn if one["assisted"] is assisted] for assisted in (True, False)
        )
        ratios.append((mean(with_), mean(without)))
    for name, values in (
        ("with_reviews", sorted(a for a, _ in ratios)),
        ("without_reviews", sorted(b for _, b in ratios)),
    ):
        one = found["seconds"][name]
        width = values[1949] - values[50]
        assert one["low"] == pytest.approx(values[50], abs=0.1 * width)
        assert one["high"] == pytest.approx(values[1949], abs=0.1 * width)
    faster = found["saved"]["times_faster"]
    assert faster["low"] < faster["value"] < faster["high"]


def test_nothing_decided_is_an_empty_summary() -> None:
    found = summary([], {"x": Judged("q", 1, None)}, hourly_wage=10, judge_cost=0.1)
    assert found["annotators"] == {} and found["saved"]["cost"] == {"value": None, "low": None, "high": None}
    assert found["among_people"]["all"] == {"agreement": None, "kappa": None, "n": 0, "pairs": 0}
    assert found["seconds"]["with_reviews"]["n"] == 0 and found["judge"]["all"]["accuracy"] is None


def test_the_cost_of_a_sample_is_known_where_each_call_was_paid_for() -> None:
    def record(*costs: str | None) -> dict[str, Any]:
        calls = [{"cost": cost} for cost in costs]
        verdict = {"winner": 1}
        return {"query": "q", "verdict": verdict, "roles_calls": calls[:1], "layers": [[{"calls": calls[1:]}]]}

    assert Judged.of(record("0.1", "0.2", "0.03")).cost == Decimal("0.33")
    assert Judged.of(record("0.1", None)).cost is None and Judged.of(record()).cost is None


def test_wrong_flags_are_told(judge: Callable[..., Done]) -> None:
    for words, told in (
        (("--hourly-wage", -1), "--hourly-wage -1.0: must be a number of USD"),
        (("--hourly-wage", 0), "--hourly-wage 0: must be more than 0"),
        (("--judge-cost", "nan"), "--judge-cost nan: must be a number of USD"),
    ):
        done = judge("annotate", "r", *words)
        assert done.returncode == 2 and told in done.stderr
