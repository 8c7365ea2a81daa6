"""Two checkpoints answer, a judge compares."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.evaluators.conftest import ROOT, Done
from tests.evaluators.tiny import tiny_model


def test_answers_are_generated_once_and_judged(judge: Callable[..., Done], tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    tiny_model(tmp_path / "a")
    other = tiny_model(tmp_path / "b")
    model = AutoModelForCausalLM.from_pretrained(other)
    with torch.no_grad():
        model.lm_head.weight.copy_(model.lm_head.weight.flip(0))
    model.save_pretrained(other)
    prompts = [{"id": f"p{n}", "query": f"Say {n}."} for n in range(3)]
    (tmp_path / "prompts.jsonl").write_text("\n".join(map(json.dumps, prompts)))
    words = ("pairs", "--a", "a", "--b", "b", "--prompts", "prompts.jsonl", "--max-new-tokens", 8, "--out", "o")
    own = ("--judge", "simulated:gap=1", "--depth", 1)
    done = judge(*words, *own)
    assert done.returncode == 0, done.stderr
    pairs = [json.loads(line) for line in (tmp_path / "o" / "pairs.jsonl").read_text().splitlines()]
    assert [pair["id"] for pair in pairs] == ["p0", "p1", "p2"]
    assert all(pair["response1"] != pair["response2"] for pair in pairs)
    assert len((tmp_path / "o" / "verdicts" / "verdicts.jsonl").read_text().splitlines()) == 3
    again = judge(*words, *own)
    assert again.returncode == 0 and "answers" not in again.stdout
    for changed, told in (
        (("--max-new-tokens", 9), "holds pairs of other settings"),
        (("--out", "n", "--a", "nowhere"), "--a nowhere: holds no config.json"),
        (("--out", "n", "--max-new-tokens", 5000), "more than the 4096"),
        (("--out", "n", "--data", "x"), "the pairs are made here"),
        (("--out", "n", "--depth", 0), "depth 0"),
    ):
        done = judge(*words, *own, *changed)
        assert done.returncode != 0 and told in done.stderr and "Traceback" not in done.stderr, done.stderr


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Mix-LN and an LNS run of `depthlab pretrain`, a few steps each."""
    folder = tmp_path_factory.mktemp("runs")
    texts = [path.read_text() for path in sorted(Path(json.__file__).parent.glob("*.py"))] * 4
    (folder / "text.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    sizes = ("--model.preset", "tiny-4x32", "--data.block-length", "64", "--data.heldout-fraction", "0.2")
    steps = ("--train.steps", "3", "--train.micro-batch", "4", "--train.global-batch", "4", "--eval.every", "3")
    data = ("--data.source", "text.jsonl", "--data.tokenizer", "bpe:400", "--data.cache-dir", "cache")
    child = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    for scheme in ("mix", "lns"):
        own = ("--run-dir", scheme, "--normalization.scheme", scheme, "--eval.blocks", "2", "--checkpoint.every", "3")
        words = [sys.executable, "-m", "lab.cli", "pretrain", *own, *sizes, *steps, *data]
        done = subprocess.run(words, cwd=folder, env=child, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
    return folder


def test_checkpoints_trained_here_answer_as_their_own_equations_say(judge: Callable[..., Done], runs: Path) -> None:
    """Greedy answers against a loop over the logits, without a cache of keys and values."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    queries = ["def main(", "import os", "class A:"]
    (runs / "prompts.jsonl").write_text("".join(json.dumps({"query": query}) + "\n" for query in queries))
    sides = {"1": runs / "mix" / "checkpoints" / "step-000003", "2": runs / "lns" / "checkpoints" / "step-000003"}
    words = ("--a", sides["1"], "--b", sides["2"], "--prompts", runs / "prompts.jsonl", "--max-new-tokens", 8)
    done = judge("pairs", *words, "--out", runs / "o", "--judge", "simulated:gap=1", "--depth", 1)
    assert done.returncode == 0 and "Loading weights" not in done.stderr, done.stderr
    pairs = [json.loads(line) for line in (runs / "o" / "pairs.jsonl").read_text().splitlines()]
    for side, checkpoint in sides.items():
        tokenizer = AutoTokenizer.from_pretrained(checkpoint)
        model = AutoModelForCausalLM.from_pretrained(checkpoint).eval()
        assert model.config.normalization["scheme"] == checkpoint.parents[1].name
        for query, pair in zip(queries, pairs, strict=True):
            ids = tokenizer(query)["input_ids"]
            start = len(ids)
            with torch.inference_mode():
                while len(ids) < start + 8 and (len(ids) == start or ids[-1] != tokenizer.eos_token_id):
                    ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
            assert pair[f"response{side}"] == tokenizer.decode(ids[start:], skip_special_tokens=True)
            assert pair[f"system{side}"] == str(checkpoint)
    assert any(pair["response1"] != pair["response2"] for pair in pairs)
    ranked = judge("leaderboard", runs / "o" / "verdicts", "--json", "--draws", 100)
    assert {row["system"] for row in json.loads(ranked.stdout)["standings"]} == set(map(str, sides.values()))
