"""The page's server through real sockets; decisions survive a kill; the page in a browser where there is one."""

from __future__ import annotations

import http.client
import json
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from evaluators.annotation import Decisions, shown_order, summary
from evaluators.annotation.server import AnnotationServer
from evaluators.errors import RunError
from tests.evaluators.conftest import Done

HOSTILE = "</pre><script>document.title='taken'</script>"


def _records(count: int = 3) -> list[dict[str, Any]]:
    review = {"role": "Tone", "evidence": HOSTILE, "scores": [7, 2]}
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
    decisions = Decisions(tmp_path / "d.jsonl")
    server = AnnotationServer(_records(), decisions)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        address, token = server.origin, server.token
        body = {"at": 0, "choice": 1, "annotator": "ann", "assisted": False, "seconds": 2.5}
        own = {"X-Token": token, "Origin": address}
        for headers in (
            {"X-Token": "wrong"},
            {"X-Token": token, "Origin": "http://evil.example"},
            {"X-Token": token, "Host": "evil.example"},
            {},
        ):
            assert _ask(address, "POST", "/decide", body, **headers)[0] == 403
        assert _ask(address, "GET", "/?token=wrong")[0] == 403 and not decisions.latest
        for wrong in ({}, body | {"at": 9}, body | {"choice": 5}, body | {"annotator": ""}, [1]):
            assert _ask(address, "POST", "/decide", wrong, **own)[0] == 400
        for at in range(3):
            status, text = _ask(address, "GET", f"/sample?token={token}&annotator=ann&at={at}")
            found = json.loads(text)
            turned = shown_order("ann", f"s{at}") == "21"
            assert status == 200 and "human" not in found
            assert found["responses"][turned] == f"one {at}" and found["reviews"][0]["scores"][turned] == 7
            assert _ask(address, "POST", "/decide", body | {"at": at}, **own)[0] == 200
            assert decisions.latest["ann", f"s{at}"]["label"] == (2 if turned else 1)
        _ask(address, "POST", "/decide", body | {"choice": 0}, **own)
        if browser := shutil.which("chromium"):
            flags = ("--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr")
            opened = subprocess.run(
                [
                    *(browser, *flags, "--virtual-time-budget=4000", f"--user-data-dir={tmp_path / 'p'}"),
                    *("--dump-dom", server.address("ann")),
                ],
                capture_output=True,
                text=True,
                timeout=120,
            )
            assert "Sample 1 of 3; 3 labelled" in opened.stdout and "CONSOLE" not in opened.stderr
            assert "<title>Which response is better?</title>" in opened.stdout
    finally:
        server.shutdown()
        server.server_close()
    again = Decisions(tmp_path / "d.jsonl")
    assert again.latest == decisions.latest and again.latest["ann", "s0"]["label"] == 0


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
        token = url.query.split("&")[0].removeprefix("token=")
        body = {"at": 0, "choice": 0, "annotator": "ann", "assisted": True, "seconds": 4}
        assert _ask(url.geturl(), "POST", "/decide", body, **{"X-Token": token})[0] == 200
        process.send_signal(signal.SIGKILL)
    with (tmp_path / "r" / "annotations.jsonl").open("a") as file:
        file.write('{"annotator": "ann", "id"')
    done = judge("annotate", "r", "--summary")
    found = json.loads(done.stdout)
    assert found["with_reviews"]["n"] == 1 and found["with_reviews"]["median_s"] == 4
    assert found["time_saved"] is None and found["annotators"] == {"ann": 1}
    (tmp_path / "r" / "annotations.jsonl").write_text("nonsense\n")
    with pytest.raises(RunError, match="line 1 is no decision"):
        Decisions(tmp_path / "r" / "annotations.jsonl")


def test_summary_of_two_people() -> None:
    def one(annotator: str, sample: str, label: int, assisted: bool, seconds: float) -> dict[str, Any]:
        return {"annotator": annotator, "id": sample, "label": label, "assisted": assisted, "seconds": seconds}

    decisions = [one("a", "x", 1, True, 2), one("a", "y", 2, True, 4), one("b", "x", 1, False, 9)]
    decisions += [one("b", "y", 1, False, 15)]
    found = summary(decisions, {"x": 1, "y": 2})
    assert found["with_reviews"]["accuracy_of_judge"] == 1 and found["without_reviews"]["accuracy_of_judge"] == 0.5
    assert found["among_people"] == 0 and found["time_saved"] == pytest.approx(1 - 3 / 12)
