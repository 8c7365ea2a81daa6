"""Where a run runs: in notebooks and threads, under signals, on pipes; and what it goes on from."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest
import yaml

from evaluators import command
from tests.evaluators.conftest import records, write_pairs


@pytest.fixture
def words(server, tmp_path):
    def made(count, *more, out="out"):
        pairs = write_pairs(tmp_path / "p.jsonl", count)
        return (
            *("run", "--data", pairs, "--judge", "openai:m", "--base-url", server.url, "--out", out),
            *("--structured", "off", "--backoff", 0.01, *more),
        )

    return made


@contextlib.contextmanager
def inside(environment, folder):
    before = dict(os.environ)
    os.environ.update(environment)
    with contextlib.chdir(folder):
        yield
    os.environ.clear()
    os.environ.update(before)


@pytest.mark.parametrize("where", ["loop", "thread", "thread with a loop"])
def test_it_runs_in_notebooks_and_threads(server, words, environment, tmp_path, where, capsys):
    argv = [str(word) for word in words(2, "--preset", "single")]
    codes = []

    def run():
        codes.append(command.main(argv, prog="judge"))

    async def within():
        run()

    with inside(environment, tmp_path):
        handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
        if where == "loop":
            asyncio.run(within())
        else:
            thread = threading.Thread(target=run if where == "thread" else lambda: asyncio.run(within()))
            thread.start()
            thread.join(60)
        assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers
    assert codes == [0] and len(records(tmp_path / "out")) == 2


def test_handlers_of_the_program_around_it_are_there_again(server, words, environment, tmp_path):
    def mine(*_):
        raise AssertionError("not called")

    before = signal.signal(signal.SIGTERM, mine)
    try:
        with inside(environment, tmp_path):
            assert command.main([str(word) for word in words(1, "--preset", "single")], prog="judge") == 0
        assert signal.getsignal(signal.SIGTERM) is mine
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_saves_and_the_second_ends(server, words, environment, tmp_path, number):
    server.latency_s = 0.05
    command_line = [sys.executable, "-m", "lab.cli", "judge", *map(str, words(4, "--concurrency", 2))]
    process = subprocess.Popen(command_line, env=environment, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    while len(server.delivered) < 5:
        time.sleep(0.01)
    process.send_signal(number)
    assert process.wait(30) == 75
    process.stderr.close()
    server.faults = {-1: {"hang": 20}}
    before = len(server.requests)
    process = subprocess.Popen(command_line, env=environment, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    while len(server.requests) == before:
        time.sleep(0.01)
    process.send_signal(number)
    assert process.stderr is not None
    assert "stopping" in process.stderr.readline()
    process.send_signal(number)
    assert process.wait(10) == 128 + number
    assert "Traceback" not in process.stderr.read()
    # Nothing is left behind that keeps the next start waiting.
    server.faults, server.latency_s = {}, 0
    done = subprocess.run(command_line, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and len(records(tmp_path / "out")) == 4


def test_data_from_a_pipe_is_read_once(judge, server, words, environment, tmp_path):
    made = [str(word) for word in words(3, "--preset", "single")]
    content = (tmp_path / "p.jsonl").read_bytes()
    made[made.index("--data") + 1] = "/dev/stdin"
    process = subprocess.run(
        [sys.executable, "-m", "lab.cli", "judge", *made],
        input=content,
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    assert len(records(tmp_path / "out")) == 3
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    for text, code, told in ((content, 0, "3 of 3 samples are judged already"), (b"", 1, "holds no sample")):
        writer = threading.Thread(target=fifo.write_bytes, args=(text,))
        writer.start()
        made[made.index("--data") + 1] = str(fifo)
        done = judge(*made)
        writer.join()
        assert done.returncode == code and told in done.stdout + done.stderr
    assert f"--data {fifo}: holds no sample" in done.stderr
    writer = threading.Thread(target=fifo.write_bytes, args=(b'{"query": 1}\n',))
    writer.start()
    done = judge(*made)
    writer.join()
    assert f"--data {fifo}: 1 of 1 lines refused" in done.stderr


@pytest.mark.parametrize("flag", [("--cache", "p.jsonl"), ("--out", "p.jsonl/x"), ("--preset", "none")])
def test_nothing_is_left_of_a_run_that_cannot_start(judge, server, words, tmp_path, flag):
    done = judge(*words(1, *flag))
    assert done.returncode in (1, 2) and done.stderr.startswith("error: ")
    assert not (tmp_path / "out").exists()


def test_a_folder_never_mixes_prompts(judge, server, words, tmp_path):
    template = tmp_path / "mine.j2"
    text = '{% extends "default.j2" %}\n{% block system %}{{ super() }} Be strict.{% endblock %}\n'
    template.write_text(text)
    made = words(2, "--preset", "single", "--template", template)
    assert judge(*made).returncode == 0
    before = (tmp_path / "out" / "verdicts.jsonl").read_bytes()
    template.write_text(text.replace("strict", "lenient"))
    write_pairs(tmp_path / "p.jsonl", 4)
    done = judge(*made)
    assert done.returncode == 1 and "made with other prompts or settings" in done.stderr
    assert "name another folder: calls that are the same are taken from the cache" in done.stderr
    assert (tmp_path / "out" / "verdicts.jsonl").read_bytes() == before
    template.write_text(text)
    write_pairs(tmp_path / "p.jsonl", 4)
    assert judge(*made).returncode == 0 and len(records(tmp_path / "out")) == 4


@pytest.mark.parametrize(
    ("change", "told"),
    [({"version": "0.0.1"}, "version of depthlab"), ({"judges": ["hf:x@other"]}, "models or weights")],
)
def test_a_folder_never_mixes_versions_or_weights(judge, server, words, tmp_path, change, told):
    made = words(1, "--preset", "single")
    assert judge(*made).returncode == 0
    path = tmp_path / "out" / "verdicts.jsonl"
    record = json.loads(path.read_text())
    record["run"] |= change
    path.write_text(json.dumps(record) + "\n")
    done = judge(*made)
    assert done.returncode == 1 and f"made with other {told}" in done.stderr


def test_settings_are_whole_whenever_a_process_is_killed(judge, server, words, tmp_path, monkeypatch):
    made = words(1, "--preset", "single")
    assert judge(*made).returncode == 0
    config = tmp_path / "out" / "config.yaml"
    before = config.read_text()

    class Killed(BaseException):
        pass

    def replace(*_):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", replace)
        with pytest.raises(Killed):
            judge(*made)
    assert config.read_text() == before and yaml.safe_load(before)
    assert judge(*made).returncode == 0


def test_retry_unscored_mends_what_failed_in_part_and_reuses_the_rest(judge, server, words, tmp_path):
    server.faults = {number: {"status": 400, "message": "no"} for number in (2, 4, 9, 16, 17)}
    made = words(3, "--concurrency", 1, "--depth", 1)
    assert judge(*made).returncode == 0
    found = records(tmp_path / "out")
    holes = sum("reason" in item for record in found for layer in record["layers"] for item in layer)
    assert holes == 5 and all(record["verdict"]["scores"] for record in found)
    server.faults, before = {}, len(server.requests)
    assert judge(*made).returncode == 0 and len(server.requests) == before
    done = judge(*made, "--retry-unscored")
    assert done.returncode == 0 and len(server.requests) == before + holes
    assert all(record["verdict"]["unscored"] == 0 for record in records(tmp_path / "out"))
    assert len(records(tmp_path / "out")) == 3


def test_retry_unscored_asks_on_where_the_cache_has_an_unreadable_reply(judge, server, words, tmp_path):
    """The scored reviews of the sample come from the cache; what could not be read is asked for once more each time."""
    reply = server.reply
    made = words(1, "--depth", 1, "--reasks", 1)
    garbled = itertools.cycle([True, False])
    server.reply = lambda body: reply(body) if next(garbled) else "I will not say."
    judge(*made, "--concurrency", 1)
    found = records(tmp_path / "out")[0]
    failed = [item for layer in found["layers"] for item in layer if "reason" in item]
    server.reply = lambda body: "I will not say."
    before = len(server.requests)
    judge(*made, "--retry-unscored")
    # Attempts count on: each failed review is asked twice more, and nothing else is.
    assert failed and len(server.requests) == before + 2 * len(failed)
    server.reply, before = reply, len(server.requests)
    assert judge(*made, "--retry-unscored").returncode == 0
    assert len(server.requests) == before + len(failed)
    assert records(tmp_path / "out")[0]["verdict"]["unscored"] == 0


def test_sweep_takes_a_file_too(judge, server, words, tmp_path):
    assert judge(*words(2, "--depth", 1)).returncode == 0
    stored = tmp_path / "out" / "config.yaml"
    done = judge("sweep", "--config", stored, "--out", "sweep", "--widths", 1, "--depths", 1)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "sweep" / "sweep.json").read_text())["points"][0]["width"] == 1


def test_errors_and_ids_move_no_cursor(judge, server, words, tmp_path):
    server.faults = {-1: {"status": 401, "message": "evil \x1b[2J key"}}
    done = judge(*words(1))
    assert done.returncode == 1 and "\x1b" not in done.stderr + done.stdout
    server.faults = {}
    (tmp_path / "p.jsonl").write_text(
        json.dumps({"id": "a\x1b[31m", "query": "q", "response1": "x", "response2": "y"}) + "\n"
    )
    made = [str(word) for word in words(0, "--preset", "single", out="ids")]
    (tmp_path / "p.jsonl").write_text(
        json.dumps({"id": "a\x1b[31m", "query": "q", "response1": "x", "response2": "y"}) + "\n"
    )
    assert judge(*made).returncode == 0
    assert "\x1b" not in judge("show", "--out", "ids").stdout
