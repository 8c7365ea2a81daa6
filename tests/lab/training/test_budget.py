"""How far a run goes: exactly as many tokens as it was given, whatever the batch is or was."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from lab.checkpoint import load_model
from lab.checkpoint.folder import path_of
from lab.checkpoint.progress import Progress, read_progress
from lab.config.sections import OptimConfig, RunConfig, TrainConfig
from lab.data import load_tokenizer, prepare
from lab.data.config import DataConfig
from lab.runfolder import metrics
from lab.training.budget import Budget
from lab.training.optim import learning_rate
from lab.training.run import pretrain


def steps_of(run: RunConfig) -> list[dict]:
    return [record for record in metrics.read(Path(run.run_dir)) if "train/loss" in record]


def loss_of_first(run: RunConfig, start: Path, sequences: int, targets: int) -> float:
    """Mean cross-entropy of a checkpoint's model over the first targets after so many sequences, one by one."""
    tokenizer = load_tokenizer(run.data, progress=False)
    corpus = prepare(run.data, tokenizer, seed=run.train.seed, progress=False)
    batches = corpus.batches(rank=0, world_size=1, micro_batch=1, start_sequences=sequences)
    model, losses = load_model(start).eval(), []
    with torch.no_grad():
        while len(losses) < targets:
            batch = next(batches)
            logits = model(input_ids=batch["input_ids"]).logits[0].double()
            losses += F.cross_entropy(logits, batch["targets"][0], reduction="none").tolist()
    return sum(losses[:targets]) / targets


@pytest.mark.parametrize(("tokens", "cut", "micro_batch"), [(149, 21, 2), (150, 22, 4), (177, 49, 1)])
def test_the_last_partial_step_of_a_token_budget_is_exact(settings, tokens, cut, micro_batch):
    """4 sequences of 16 tokens a step: two steps, and the first `cut` targets of a third."""
    run = settings(
        train__steps=None, train__tokens=tokens, train__micro_batch=micro_batch, checkpoint__every=2, eval__every=0
    )
    assert pretrain(run)
    assert [record["tokens"] for record in steps_of(run)] == [64, 128, tokens]
    start = path_of(Path(run.run_dir), 2)
    got = steps_of(run)[-1]["train/loss"]
    assert got == pytest.approx(loss_of_first(run, start, 8, cut), rel=1e-6)
    for other in (cut - 1, cut + 1):
        assert got != pytest.approx(loss_of_first(run, start, 8, other), rel=5e-6)


@pytest.mark.parametrize(("before", "after", "steps"), [(4, 8, [6, 7, 8]), (8, 4, [6]), (4, 2, list(range(6, 16)))])
def test_a_token_budget_is_exact_after_a_change_of_the_batch(settings, before, after, steps, capsys):
    common = {"train__steps": None, "train__tokens": 640 if (before, after) != (8, 4) else 700, "eval__every": 0}
    common |= {"train__micro_batch": 2, "checkpoint__every": 5, "monitors__every": 0}
    first = settings(train__global_batch=before, **common)
    assert pretrain(first)
    run_dir = Path(first.run_dir)
    run = settings(train__global_batch=after, resume=path_of(run_dir, 5), **common)
    capsys.readouterr()
    assert pretrain(run)
    assert f"train.global_batch: {before} -> {after}" in capsys.readouterr().out
    records = steps_of(run)
    assert [record["step"] for record in records] == list(range(1, 6)) + steps
    assert records[-1]["tokens"] == run.train.tokens
    assert records[-1]["train/lr"] == pytest.approx(run.optim.floor * run.optim.lr)
    last = read_progress(path_of(run_dir, steps[-1]), run)
    assert last.positions == run.train.tokens


def test_a_budget_of_tokens_that_is_raised_after_its_end_goes_on_to_the_very_token(settings):
    common = {"train__steps": None, "eval__every": 0, "monitors__every": 0, "train__micro_batch": 2}
    assert pretrain(settings(train__tokens=150, **common))
    run = settings(train__tokens=300, resume="latest", **common)
    assert pretrain(run)
    assert [record["tokens"] for record in steps_of(run)] == [64, 128, 150, 214, 278, 300]


OPTIM = OptimConfig(lr=1.0, warmup=0.25, decay=0.25, floor=0.1, schedule="wsd")


def budget(optim: OptimConfig, batch: int, start: Progress, **train: int) -> Budget:
    train = {"micro_batch": 1, "global_batch": batch, **train}
    return Budget(RunConfig(optim=optim, train=TrainConfig(**train), data=DataConfig(block_length=10)), start)


@pytest.mark.parametrize("schedule", ["cosine", "linear", "wsd", "constant"])
def test_tokens_and_steps_give_the_same_learning_rates_while_the_batch_stays(schedule):
    optim = OptimConfig(lr=1.0, warmup=0.25, decay=0.25, floor=0.1, schedule=schedule)
    in_tokens, in_steps = budget(optim, 4, Progress(), tokens=640), budget(optim, 4, Progress(), steps=16)
    assert in_tokens.steps == in_steps.steps == 16 and in_tokens.tokens == in_steps.tokens == 640
    for step in range(1, 17):
        expected = learning_rate(step, 16, optim)
        assert in_tokens.learning_rate(step, step * 40) == pytest.approx(expected, rel=1e-12)
        assert in_steps.learning_rate(step, step * 40) == expected


def test_the_learning_rate_at_a_token_does_not_depend_on_the_batches_before():
    small = budget(OPTIM, 2, Progress(), tokens=640)
    large = budget(OPTIM, 8, Progress(step=12, sequences=24, positions=240), tokens=640)
    assert large.steps == 12 + 5
    for step in range(1, 6):
        at = 240 + 80 * step
        assert large.learning_rate(12 + step, at) == small.learning_rate(at // 20, at)


def test_a_number_of_steps_ends_at_its_step_whatever_the_batch():
    start = Progress(step=5, sequences=20, positions=200)
    later = budget(OPTIM, 8, start, steps=16)
    assert later.steps == 16 and later.tokens == 200 + 11 * 80
    assert later.next(200 + 10 * 80) == 80
    assert later.learning_rate(9, 520) == learning_rate(9, 16, OPTIM)


def test_an_older_checkpoint_without_positions_is_read(tmp_path):
    (tmp_path / "trainer.json").write_text('{"step": 3, "tokens": 150, "sequences": 12}')
    data = DataConfig(block_length=16)
    whole = RunConfig(data=data, train=TrainConfig(steps=3, micro_batch=4, global_batch=4))
    cut = RunConfig(data=data, train=TrainConfig(tokens=150, micro_batch=4, global_batch=4))
    assert read_progress(tmp_path, whole).positions == 192
    assert read_progress(tmp_path, cut).positions == 150
