"""The loop against a bare loop written here, and its figures against their definitions."""

from __future__ import annotations

import io
import json
import math
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from accelerate.state import AcceleratorState
from transformers import AutoModelForCausalLM, AutoTokenizer

import normalization
from lab.checkpoint import load_model
from lab.config.sections import RunConfig
from lab.data import load_tokenizer, prepare
from lab.data.packing import IGNORED
from lab.diagnostics import registry as diagnostics_registry
from lab.diagnostics.record import load as load_record
from lab.model.build import build_model
from lab.report.trackers import CELL
from lab.runfolder import metrics
from lab.training.optim import learning_rate
from lab.training.run import pretrain


def records(run: RunConfig, name: str) -> list[dict]:
    return [record for record in metrics.read(Path(run.run_dir)) if name in record]


def curve(run: RunConfig, name: str = "train/loss") -> list[float]:
    return [record[name] for record in records(run, name)]


def corpus_and_model(run: RunConfig):
    tokenizer = load_tokenizer(run.data, progress=False)
    corpus = prepare(run.data, tokenizer, seed=run.train.seed, progress=False)
    torch.manual_seed(run.train.seed)
    model = build_model(run, tokenizer_size=len(tokenizer), eos_token_id=tokenizer.eos_token_id)
    return corpus, model


def bare_loop(run: RunConfig) -> list[dict[str, float]]:
    """The same training without any of our loop: one batch a step, plain AdamW, norms from autograd by hand."""
    corpus, model = corpus_and_model(run)
    batches = corpus.batches(rank=0, world_size=1, micro_batch=run.train.global_batch)
    embedding = model.get_input_embeddings().weight
    matrices = [p for p in model.parameters() if p.ndim == 2 and p is not embedding]
    others = [p for p in model.parameters() if p.ndim != 2 or p is embedding]
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}],
        betas=(0.9, 0.95),
    )
    figures = []
    for step in range(1, run.steps + 1):
        batch = next(batches)
        with torch.autocast("cpu", torch.bfloat16, enabled=run.train.precision == "bf16"):
            logits = model(input_ids=batch["input_ids"], position_ids=batch.get("position_ids")).logits
        loss = F.cross_entropy(logits.float().flatten(0, 1), batch["targets"].flatten(), ignore_index=-100)
        optimizer.zero_grad()
        loss.backward()
        first = model.model.layers[0]
        before = [p.detach().clone() for p in first.parameters()]
        figure = {
            "train/loss": float(loss.detach()),
            "grad_norm/layer_01": math.sqrt(sum(float(p.grad.double().square().sum()) for p in first.parameters())),
            "weight_norm/layer_01": math.sqrt(sum(float(p.double().square().sum()) for p in before)),
            "train/grad_norm": float(torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)),
        }
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, run.steps, run.optim)
        optimizer.step()
        after = [p.detach() for p in first.parameters()]
        moved = sum(float((new - old).double().square().sum()) for new, old in zip(after, before, strict=True))
        figure["update_ratio/layer_01"] = math.sqrt(moved) / figure["weight_norm/layer_01"]
        figures.append(figure)
    return figures


@pytest.mark.parametrize(
    "overrides",
    [{}, {"train__micro_batch": 1}, {"data__isolate_documents": True, "train__micro_batch": 2}],
    ids=["one batch", "accumulated", "accumulated over unequal numbers of targets"],
)
def test_losses_norms_and_ratios_are_those_of_a_bare_loop(settings, overrides):
    run = settings(normalization__scheme="lns", **overrides)
    assert pretrain(run)
    expected = bare_loop(run)
    got = records(run, "train/loss")
    assert len(got) == len(expected) == 6
    for ours, bare in zip(got, expected, strict=True):
        for name, value in bare.items():
            assert ours[name] == pytest.approx(value, rel=2e-5), (ours["step"], name)


@torch.no_grad()
def naive_heldout(run: RunConfig, model) -> tuple[float, float]:
    """Loss in nats per token one block at a time, and bits per byte of the text that the targets decode to."""
    corpus, tokenizer = corpus_and_model(run)[0], load_tokenizer(run.data, progress=False)
    total, count, predicted = 0.0, 0, b""
    for index in range(run.eval.blocks):
        block = corpus.heldout[index]
        logits = model(block["input_ids"][None]).logits[0].double()
        for position, target in enumerate(block["targets"].tolist()):
            if target >= 0:
                total -= float(logits[position].log_softmax(-1)[target])
                count += 1
        ids = [target for target in block["targets"].tolist() if target not in (IGNORED, tokenizer.eos_token_id)]
        predicted += tokenizer.decode(ids).encode()  # ASCII: a block's edge cuts no character
    assert predicted.isascii()
    return total / count, total / math.log(2) / len(predicted)


def test_heldout_figures_are_their_definitions_whatever_the_batch(settings):
    run, other = settings(train__micro_batch=4), settings("other", train__micro_batch=1)
    assert pretrain(run) and pretrain(other)
    model = load_model(run.run_dir).eval()
    loss, bits_per_byte = naive_heldout(run, model)
    final = records(run, "eval/loss")[-1]
    assert final["eval/loss"] == pytest.approx(loss, rel=1e-6)
    assert final["eval/perplexity"] == pytest.approx(math.exp(loss), rel=1e-5)
    assert final["eval/bits_per_byte"] == pytest.approx(bits_per_byte, rel=1e-6)
    assert records(other, "eval/loss")[-1]["eval/loss"] == pytest.approx(loss, rel=1e-5)


def test_variance_is_that_of_the_residual_stream_before_the_final_norm(settings):
    run = settings(normalization__scheme="lns", normalization__final_norm=True)
    assert pretrain(run)
    model = load_model(run.run_dir).eval()
    corpus, _ = corpus_and_model(run)
    outputs: list[torch.Tensor] = []
    model.model.layers[-1].register_forward_hook(lambda module, args, output: outputs.append(output))
    with torch.no_grad():
        for index in range(16):
            model(corpus.heldout[index]["input_ids"][None])
    expected = float(torch.cat(outputs).double().var(dim=-1, correction=0).mean())
    final = records(run, "variance/layer_03")[-1]
    assert final["variance/layer_03"] == pytest.approx(expected, rel=1e-5)


def test_checkpoints_load_through_transformers_with_their_tokenizer(settings):
    run = settings(normalization__scheme="mix", normalization__post_layers=2)
    assert pretrain(run)
    folder = Path(run.run_dir) / "checkpoints" / "step-000006"
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert normalization.spec(model).options["post_layers"] == 2
    tokenizer = AutoTokenizer.from_pretrained(folder)
    text = "def f(x):\n    return x  # é"
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    assert len(tokenizer) == model.config.vocab_size
    assert model.config.pad_token_id is None


def test_activation_checkpointing_and_compile_change_no_number(settings):
    plain = settings()
    assert pretrain(plain)
    for name, overrides in {
        "recomputed": {"train__activation_checkpointing": True},
        "compiled": {"train__compile": True},
    }.items():
        run = settings(name, **overrides)
        assert pretrain(run)
        for figure in ("train/loss", "train/grad_norm", "eval/loss", "variance/layer_03"):
            assert curve(run, figure) == pytest.approx(curve(plain, figure), rel=1e-4), (name, figure)


def test_bf16_is_autocast_over_float32_weights(settings):
    plain, half = settings(), settings("bf16", train__precision="bf16")
    assert pretrain(plain)
    AcceleratorState._reset_state(reset_partial_state=True)
    assert pretrain(half)
    expected = [figure["train/loss"] for figure in bare_loop(half)]
    # Rounding of the norm that clips is later the rounding of a weight to bf16: only the first steps are the same.
    assert curve(half)[:3] == pytest.approx(expected[:3], rel=1e-6)
    assert curve(half) == pytest.approx(expected, rel=1e-4)
    assert curve(plain)[:3] != pytest.approx(expected[:3], rel=5e-6), "the products are rounded to bf16"
    assert curve(plain) == pytest.approx(expected, rel=5e-3)
    assert {parameter.dtype for parameter in load_model(half.run_dir).parameters()} == {torch.float32}


def test_a_run_from_a_checkpoint_starts_with_its_weights(settings):
    first = settings()
    assert pretrain(first)
    start = Path(first.run_dir) / "checkpoints" / "step-000006"
    second = settings("second", model__checkpoint=start, train__steps=1, optim__lr=1e-9)
    assert pretrain(second)
    assert curve(second, "eval/loss")[-1] == pytest.approx(curve(first, "eval/loss")[-1], rel=1e-5)


def test_deepnorm_gets_its_own_initialisation_and_lns_with_scaled_is_warned_about(settings, capsys):
    assert pretrain(settings(normalization__scheme="deepnorm", train__steps=1))
    assert "warning" not in capsys.readouterr().out
    assert pretrain(settings("lns", normalization__scheme="lns", model__initialization="scaled", train__steps=1))
    out = capsys.readouterr().out
    assert "warning: lns" in out and "2502.05795" in out


def test_the_run_folder_says_what_was_run(settings):
    run = settings()
    assert pretrain(run)
    folder = Path(run.run_dir)
    environment = json.loads((folder / "environment.json").read_text())
    assert {"torch", "transformers", "accelerate"} <= environment["versions"].keys()
    assert environment["seed"] == 0 and environment["derived"]["tokens_per_step"] == 64
    assert environment["derived"]["parameters"] == sum(p.numel() for p in load_model(folder).parameters())
    manifest = json.loads((folder / "checkpoints" / "step-000003" / "manifest.json").read_text())
    assert manifest["eval_loss"] == records(run, "eval/loss")[0]["eval/loss"]
    assert AutoTokenizer.from_pretrained(folder / "tokenizer").eos_token is not None
    for record in records(run, "train/loss"):
        assert {"step", "tokens", "train/lr", "train/grad_norm", "train/tokens_per_second"} <= record.keys()
        assert {f"{kind}/{place}" for kind in ("grad_norm", "weight_norm", "update_ratio") for place in PLACES} <= (
            record.keys()
        )


PLACES = ("embedding", "layer_01", "layer_02", "layer_03", "final_norm", "head")


def test_monitors_and_records_keep_to_their_interval(settings):
    run = settings(monitors__every=4, log__every=3)
    assert pretrain(run)
    assert [record["step"] for record in records(run, "train/loss")] == [1, 3, 4, 6]
    assert [record["step"] for record in records(run, "grad_norm/layer_01")] == [1, 4]


def test_tensorboard_gets_the_same_figures(settings, tmp_path):
    from PIL import Image
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = settings(log__trackers="tensorboard", checkpoint__diagnose="cheap", checkpoint__every=3, monitors__every=1)
    assert pretrain(run)
    events = EventAccumulator(str(next(Path(run.run_dir).rglob("events.out.tfevents*")).parent))
    events.Reload()

    def shown(name: str) -> dict[int, float]:
        return {event.step: event.value for event in events.Scalars(name)}

    assert list(shown("train/loss").values()) == pytest.approx(curve(run), rel=1e-6)
    steps = [3, 6]
    saved = [load_record(Path(run.run_dir) / f"diagnostics/step-{step:06d}.json") for step in steps]
    assert shown("diagnostics/checkpoint") == dict(zip(steps, steps, strict=True))
    variance = [record.figure("variance/stream_median").at(stream=1) for record in saved]
    assert list(shown("diagnostics/variance/stream_median/stream_1").values()) == pytest.approx(variance, rel=1e-6)
    assert [event.step for event in events.Images("report/angular")] == steps
    gradients = Image.open(io.BytesIO(events.Images("report/layer_gradients")[-1].encoded_image_string))
    assert gradients.size == (6 * CELL, saved[-1].model["layers"] * CELL)


def test_tensorboard_shows_no_step_twice_after_a_crash(settings, flags, start, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    tracked, run_dir = {"log__trackers": "tensorboard", "checkpoint__every": 5, "eval__every": 0}, tmp_path / "run"
    process = start("pretrain", *flags(train__steps=10_000, **tracked))
    assert any(line.startswith("step 10: checkpoint") for line in iter(process.stdout.readline, ""))
    while len(metrics.read(run_dir)) < 13:
        time.sleep(0.01)
    process.kill()
    process.wait()
    steps = 8 + max(record["step"] for record in metrics.read(run_dir))
    assert pretrain(settings(resume="latest", train__steps=steps, **tracked))
    events = EventAccumulator(str(next(run_dir.rglob("events.out.tfevents*")).parent))
    events.Reload()
    assert [event.step for event in events.Scalars("train/loss")] == list(range(1, steps + 1))


def test_checkpoints_are_diagnosed_in_the_run_or_beside_it(settings, tmp_path, monkeypatch):
    """The record of the training process is the one that `depthlab diagnose` makes of the checkpoint."""
    here = settings("here", checkpoint__diagnose="cheap", train__steps=3)
    assert pretrain(here)
    record = load_record(tmp_path / "here/diagnostics/step-000003.json")
    assert set(record.diagnostics) == set(diagnostics_registry.names(cheap=True))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # for the process beside: threads that wait for a core spin
    assert pretrain(settings("beside", checkpoint__diagnose="beside", train__steps=3))
    other = tmp_path / "beside/diagnostics/step-000003.json"
    while not other.exists():  # for as long as a busy machine needs
        time.sleep(0.2)
    everything = load_record(other)
    assert set(everything.diagnostics) > set(record.diagnostics)
    mine, theirs = (found.figure("variance/stream_mean").values for found in (record, everything))
    np.testing.assert_allclose(mine, theirs, rtol=1e-5)
