"""DeepSpeed ZeRO and FSDP2 with real processes over gloo, against one process without them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lab.monitors import moments
from lab.runfolder import metrics
from lab.training.run import pretrain
from tests.lab.parallel import more_monitors

# Adam divides by the gradient's size, so rounding in sums of another order shows in the losses of later steps.
TOLERANCE = {"rel": 3e-4, "abs": 1e-7}


def figures(run_dir: Path) -> list[dict[str, float]]:
    return [{name: value for name, value in record.items() if "second" not in name} for record in metrics.read(run_dir)]


def assert_same(one: Path, other: Path) -> None:
    ours, theirs = figures(one), figures(other)
    assert [record["step"] for record in ours] == [record["step"] for record in theirs]
    for mine, yours in zip(ours, theirs, strict=True):
        assert mine.keys() == yours.keys()
        for name, value in mine.items():
            assert yours[name] == pytest.approx(value, **TOLERANCE), (mine["step"], name)


COMMON = {
    "train__global_batch": 8,
    "train__micro_batch": 2,
    "data__isolate_documents": True,  # so that ranks have unequal numbers of targets
    "optim__clip": 0.5,
    "eval__blocks": 21,
}


@pytest.mark.parametrize(
    ("preset", "scheme"),
    [
        pytest.param("zero1", "lns", marks=pytest.mark.slow),
        ("zero2", "mix"),
        ("zero3", "peri"),
        pytest.param("zero3", "deepnorm", marks=pytest.mark.slow),
        ("fsdp2", "peri"),
    ],
)
def test_losses_and_monitors_are_those_of_one_process(settings, flags, launch, tmp_path, preset, scheme, monkeypatch):
    """With accumulation, clipping and unequal numbers of targets; peri has parameters of its own. Every monitor is on,
    and one that divides by the number of elements of a place."""
    registry = dict(moments.REGISTRY)
    monkeypatch.setattr(moments, "REGISTRY", registry)
    monkeypatch.setattr("lab.monitors.watch.REGISTRY", registry)
    more_monitors.register()
    common = {**COMMON, "normalization__scheme": scheme}
    assert pretrain(settings("one", **common))
    done = launch(2, *flags("sharded", **common), preset=preset, program=Path(more_monitors.__file__))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 processes" in done.stdout
    clipped = [record["train/grad_norm"] for record in figures(tmp_path / "one") if "train/grad_norm" in record]
    assert max(clipped) > 0.5, "the norm before clipping is logged, and clipping is at work"
    assert_same(tmp_path / "one", tmp_path / "sharded")
    measured = {name.partition("/")[0] for record in figures(tmp_path / "sharded") for name in record}
    assert {quantity.name for quantity in moments.quantities()} <= measured
    one, sharded = (
        load_file(tmp_path / name / "checkpoints/step-000006/model.safetensors") for name in ("one", "sharded")
    )
    assert one.keys() == sharded.keys()
    for name, tensor in one.items():
        assert sharded[name].sub(tensor).norm() < 1e-4 * tensor.norm(), name


@pytest.mark.slow
def test_a_run_goes_on_under_any_sharding_and_on_any_number_of_processes(settings, flags, launch, tmp_path):
    """A relay: each leg goes on from the second-last step of the one before, so that it makes two updates or more."""
    common = {**COMMON, "normalization__scheme": "peri", "train__steps": 12, "eval__every": 0}
    assert pretrain(settings("one", **common, checkpoint__every=0))
    legs = [("zero2", 2), ("zero3", 2), ("ddp", 1), ("fsdp2", 2), ("zero1", 2), ("ddp", 2)]
    for number, (preset, processes) in enumerate(legs, start=1):
        resume = {} if number == 1 else {"resume": "latest"}
        # Each leg trains to the end; all that it saved after its own two steps is taken away again.
        words = flags("relay", **common, **resume, checkpoint__every=2, checkpoint__keep_last=None)
        done = launch(processes, *words, preset=preset)
        assert done.returncode == 0, done.stdout + done.stderr
        if number > 1:
            assert f"step-{2 * number - 2:06} was written by" in done.stdout
        if number < len(legs):
            for step in range(2 * number + 2, 14, 2):
                shutil.rmtree(tmp_path / f"relay/checkpoints/step-{step:06}")
        assert_same(tmp_path / "one", tmp_path / "relay")


@pytest.mark.slow
@pytest.mark.parametrize("preset", [pytest.param("zero1", marks=pytest.mark.slow), "zero2", "zero3"])
def test_bf16_keeps_the_weights_that_the_optimizer_updates(flags, launch, tmp_path, preset):
    """DeepSpeed computes with a bf16 copy: a run that goes on must go on from the float32 weights, bit for bit."""
    common = {**COMMON, "train__precision": "bf16", "train__steps": 6, "optim__lr": 1e-4, "eval__every": 0}
    assert launch(2, *flags("whole", **common), preset=preset).returncode == 0
    shutil.copytree(tmp_path / "whole", tmp_path / "again")
    (tmp_path / "again/checkpoints/step-000006/manifest.json").unlink()
    done = launch(2, *flags("again", resume="latest", **common), preset=preset)
    assert done.returncode == 0, done.stdout + done.stderr
    whole, again = (
        load_file(tmp_path / name / "checkpoints/step-000006/model.safetensors") for name in ("whole", "again")
    )
    assert json.loads((tmp_path / "whole/checkpoints/step-000006/config.json").read_text())["dtype"] == "float32"
    assert any((tensor != tensor.bfloat16().float()).any() for tensor in whole.values())
    for name, tensor in whole.items():
        assert torch.equal(tensor, again[name]), name
