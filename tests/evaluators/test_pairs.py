"""Two checkpoints answer, a judge compares."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from tests.evaluators.conftest import Done
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
