"""What surrounds a command: variables of launchers and keys, a narrow terminal, a plain locale, servers of any kind."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.evaluators.server import Answer, Server
from tests.wrong_inputs.world import FLAGS

MEETING = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29511"}
ALONE = "judge run --data pairs.jsonl --out n --no-cache --judge openai:m"
VARIABLES = [
    # what a person thinks; words; variables; exit code; what the line must say, parts between bars
    ("a rank in letters", "pretrain $RUN --run-dir n", {"RANK": "abc"}, 2, "RANK 'abc' | depthlab launch"),
    ("a rank and no launcher", "pretrain $RUN --run-dir n", {"RANK": "1"}, 2, "RANK 1 | from 0 to WORLD_SIZE - 1"),
    ("a number of processes alone", "pretrain $RUN --run-dir n", {"WORLD_SIZE": "2"}, 2, "needs RANK, MASTER_ADDR"),
    ("and no address", "pretrain $RUN --run-dir n", {"WORLD_SIZE": "2", "RANK": "0"},
     2, "needs MASTER_ADDR, MASTER_PORT"),
    ("in words", "pretrain $RUN --run-dir n", {"WORLD_SIZE": "two"} | MEETING, 2, "WORLD_SIZE 'two' | whole number"),
    ("none", "pretrain $RUN --run-dir n", {"WORLD_SIZE": "0"}, 2, "WORLD_SIZE 0 | at least 1"),
    ("a rank past the last", "pretrain $RUN --run-dir n", {"WORLD_SIZE": "2", "RANK": "5"} | MEETING,
     2, "RANK 5 | is 1"),
    ("a place in letters", "pretrain $RUN --run-dir n", {"LOCAL_RANK": "x"}, 2, "LOCAL_RANK 'x' | whole number"),
    ("a port in letters", "pretrain $RUN --run-dir n", {"MASTER_PORT": "x"}, 2, "MASTER_PORT 'x' | whole number"),
    ("a rank in full width", "pretrain $RUN --run-dir n", {"RANK": "１"}, 2, "RANK '１' | whole number"),
    ("diagnose by two, alone", "diagnose run --out n", {"WORLD_SIZE": "2"}, 2, "needs RANK, MASTER_ADDR"),
    ("diagnose, a rank in letters", "diagnose run --out n", {"RANK": "abc"}, 2, "RANK 'abc' | unset it"),
    ("a node in letters", "launch --nodes 2 --main-address a -- $RUN --run-dir n --train.global-batch 4",
     {"SLURM_NODEID": "x"}, 2, "SLURM_NODEID 'x' | --machine-rank"),
    ("a node past the last", "launch --nodes 2 --main-address a -- $RUN --run-dir n --train.global-batch 4",
     {"SLURM_NODEID": "7"}, 2, "SLURM_NODEID '7' | from 0 to 1"),
    ("a terminal of five columns", "pretrain --optim.lrr 3", {"COLUMNS": "5"}, 2, "did you mean --optim.lr?"),
    ("one of no number", "describe jrun", {"COLUMNS": "x"}, 1, "jrun holds no checkpoint"),
    ("no programs", "pretrain $RUN --run-dir file", {"PATH": ""}, 1, "--run-dir file"),
    ("no temporary folder", "pretrain $RUN --run-dir file", {"TMPDIR": "/nowhere"}, 1, "--run-dir file"),
    ("no key", ALONE, {"OPENAI_API_KEY": ""}, 2, "set OPENAI_API_KEY to your key, or name a --base-url"),
    ("a key in a second line", ALONE, {"OPENAI_API_KEY": "sk-1\nx"},
     2, "OPENAI_API_KEY: character 5 | copy the key again"),
    ("a key with a quote", ALONE, {"OPENAI_API_KEY": "“sk-1”"}, 2, "OPENAI_API_KEY: character 1 | copy the key again"),
    ("an address that is none", ALONE, {"OPENAI_BASE_URL": "nonsense"},
     2, "OPENAI_BASE_URL nonsense | http://nonsense/v1"),
    ("a port in letters at the end", ALONE, {"OPENAI_BASE_URL": "http://a:x/v1"},
     2, "OPENAI_BASE_URL | write http(s)://"),
    ("files by FTP", ALONE, {"OPENAI_BASE_URL": "ftp://a/v1"}, 2, "OPENAI_BASE_URL ftp://a/v1: write http(s)://"),
    ("a proxy that is none", f"{ALONE} --base-url http://127.0.0.1:9/v1", {"ALL_PROXY": "socks://x"}, 2,
     "ALL_PROXY | write proxies as http://HOST:PORT"),
    ("certificates that are gone", f"{ALONE} --base-url https://127.0.0.1:9/v1", {"SSL_CERT_FILE": "/nowhere.pem"}, 2,
     "SSL_CERT_FILE: the certificates cannot be read"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("thought", "words", "variables", "code", "told"), VARIABLES, ids=[row[0] for row in VARIABLES]
)
def test_wrong_variables_are_told_in_one_line(thought, words, variables, code, told, refused):
    refused(words, code, told, **{"OPENAI_API_KEY": "sk-1"} | variables)


SERVERS: list[tuple[str, Callable[..., Answer], str]] = [
    # what a person thinks; what the server answers; what the line must say, parts between bars
    ("a page of a web server", lambda *_: Answer("<html>hello</html>", kind="text/html"), "127.0.0.1"),
    ("no permission", lambda *_: Answer({"error": {"message": "Incorrect API key"}}, status=401),
     "401 | OPENAI_API_KEY"),
    ("a model it does not have", lambda *_: Answer({"error": {"message": "no model m"}}, status=404),
     "404 | no model m"),
    ("elsewhere", lambda *_: Answer("", status=302, headers={"Location": "http://127.0.0.1:9/"}), "127.0.0.1"),
    ("half an answer", lambda *_: Answer('{"id": "c", "choi'), "the reply cannot be read | --retry-unscored"),
]  # fmt: skip
LITTLE = "--limit 1 --width 1 --min-roles 1 --roles Accuracy --depth 1 --reasks 0 --retries 0 --backoff 0 --give-up 0"


@pytest.mark.parametrize(("thought", "manner", "told"), SERVERS, ids=[row[0] for row in SERVERS])
def test_a_wrong_server_is_told_in_one_line(thought, manner, told, world, tmp_path, monkeypatch):
    with Server() as server:
        server.manner = manner
        _ask(server.url, told, world, tmp_path, monkeypatch)


def test_a_server_that_is_not_there_is_told_in_one_line(world, tmp_path, monkeypatch):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    _ask(f"http://127.0.0.1:{port}/v1", f"127.0.0.1:{port} | does not answer", world, tmp_path, monkeypatch)


def test_a_plain_server_asked_in_secret_is_told_in_one_line(world, tmp_path, monkeypatch):
    with Server() as server:
        _ask(server.url.replace("http:", "https:"), "127.0.0.1 | does not answer", world, tmp_path, monkeypatch)


def _ask(url: str, told: str, world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.wrong_inputs.conftest import answer

    monkeypatch.setenv("OPENAI_API_KEY", "sk-1")
    words = f"judge run --data {world}/pairs.jsonl --judge openai:m --base-url {url} --no-cache {LITTLE}".split()
    found = answer([*words, "--out", str(tmp_path / "n")])
    errors = [line for line in found.errors if line.startswith("error:")]
    assert found.code == 1 and len(errors) == 1 and "Traceback" not in "".join(found.errors), found
    for text in told.split(" | "):
        assert text in errors[0]


PROCESSES = [
    # what a person thinks; how it is started; words; variables; what the line must say
    ("another locale", ["-m", "lab.cli"], "describe 🐈", {"LC_ALL": "C", "PYTHONUTF8": "0"}, "is no folder here"),
    ("the script itself", ["{root}/lab/pretrain.py"], f"{FLAGS} --run-dir file", {}, "--run-dir file"),
    ("by its module", ["-m", "lab.pretrain"], "--config gone.yaml", {"RANK": "0"}, "gone.yaml"),
    ("a rank in letters", ["-m", "lab.pretrain"], FLAGS, {"RANK": "abc"}, "RANK 'abc'"),
]


@pytest.mark.parametrize(("thought", "program", "words", "variables", "told"), PROCESSES, ids=[r[0] for r in PROCESSES])
def test_a_process_of_its_own_ends_with_one_line(thought, program, words, variables, told, world):
    root = Path(__file__).parents[2]
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"} | variables
    command = [sys.executable, *(part.format(root=root) for part in program), *words.split()]
    done = subprocess.run(command, cwd=world, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode in (1, 2)
    assert len(done.stderr.splitlines()) == 1 and done.stderr.startswith("error: ") and told in done.stderr
