"""DeepSpeed ZeRO with real processes over gloo, against one process without it."""

from __future__ import annotations

from pathlib import Path

import pytest
from safetensors.torch import load_file

from lab import metrics
from lab.run import pretrain

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


@pytest.mark.parametrize(("stage", "scheme"), [(1, "lns"), (2, "mix"), (3, "peri"), (3, "deepnorm")])
def test_losses_and_layer_norms_are_those_of_one_process(settings, flags, launch, tmp_path, stage, scheme):
    """With accumulation, clipping and unequal numbers of targets; peri has parameters of its own."""
    common = {**COMMON, "normalization__scheme": scheme}
    assert pretrain(settings("one", **common))
    done = launch(2, *flags("sharded", **common), zero_stage=stage)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 processes" in done.stdout
    clipped = [record["train/grad_norm"] for record in figures(tmp_path / "one") if "train/grad_norm" in record]
    assert max(clipped) > 0.5, "the norm before clipping is logged, and clipping is at work"
    assert_same(tmp_path / "one", tmp_path / "sharded")
    one, sharded = (
        load_file(tmp_path / name / "checkpoints/step-000006/model.safetensors") for name in ("one", "sharded")
    )
    assert one.keys() == sharded.keys()
    for name, tensor in one.items():
        assert sharded[name].sub(tensor).norm() < 1e-4 * tensor.norm(), name


@pytest.mark.parametrize("stage", [2, 3])
def test_a_sharded_run_goes_on_exactly(settings, flags, launch, tmp_path, stage):
    common = {**COMMON, "normalization__scheme": "lns"}
    assert pretrain(settings("one", **common))
    assert launch(2, *flags("sharded", **common), zero_stage=stage).returncode == 0
    (tmp_path / "sharded/checkpoints/step-000006/manifest.json").unlink()
    again = launch(2, *flags("sharded", resume="latest", **common), zero_stage=stage)
    assert again.returncode == 0, again.stdout + again.stderr
    assert "going on from" in again.stdout and "step-000003" in again.stdout
    assert_same(tmp_path / "one", tmp_path / "sharded")
