"""`accelerate launch lab/pretrain.py` with real processes over gloo, against one process."""

from __future__ import annotations

from pathlib import Path

import pytest
from safetensors.torch import load_file

from lab.runfolder import metrics
from lab.training.run import pretrain


def figures(run_dir: Path) -> list[dict[str, float]]:
    return [{name: value for name, value in record.items() if "second" not in name} for record in metrics.read(run_dir)]


@pytest.mark.parametrize("processes", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_every_figure_is_that_of_one_process(settings, flags, launch, tmp_path, processes):
    """With unequal numbers of predicted tokens per rank, accumulation and clipping."""
    common = {
        "train__steps": None,
        "train__tokens": 1500,  # the last step ends in the middle of a rank's part
        "train__global_batch": 16,
        "train__micro_batch": 2,
        "data__isolate_documents": True,
        "optim__clip": 0.5,
        "normalization__scheme": "peri",
    }
    assert pretrain(settings("one", **common))
    done = launch(processes, *flags("several", **common))
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{processes} processes" in done.stdout
    one, several = figures(tmp_path / "one"), figures(tmp_path / "several")
    assert len(one) == len(several) and len(one) > 6
    for ours, theirs in zip(one, several, strict=True):
        assert ours.keys() == theirs.keys()
        for name, value in ours.items():
            # The spread of nearly equal losses: what rounding changes in each counts for more in it.
            rounding = 1e-3 if name.endswith("_se") else 2e-5
            assert theirs[name] == pytest.approx(value, rel=rounding, abs=1e-9), (ours["step"], name)
    weights, shared = (
        load_file(tmp_path / name / "checkpoints/step-000006/model.safetensors") for name in ("one", "several")
    )
    for name, tensor in weights.items():
        # Adam divides by the gradient's size, so a single weight with hardly any gradient may differ by more.
        assert shared[name].sub(tensor).norm() < 1e-5 * tensor.norm(), name


def test_two_processes_go_on_exactly_and_one_goes_on_from_two(settings, flags, launch, tmp_path):
    common = {"train__steps": 8, "train__global_batch": 8, "train__micro_batch": 2, "checkpoint__every": 4}
    assert pretrain(settings("whole", **common))
    first = launch(2, *flags("parts", **{**common, "train__steps": 8}))
    assert first.returncode == 0, first.stderr
    last = tmp_path / "parts/checkpoints/step-000008"
    (last / "manifest.json").unlink()
    again = launch(2, *flags("parts", resume="latest", **common))
    assert again.returncode == 0, again.stderr
    assert "passing over a checkpoint" in again.stdout
    (last / "manifest.json").unlink()
    assert pretrain(settings("parts", resume="latest", **common))
    whole, parts = figures(tmp_path / "whole"), figures(tmp_path / "parts")
    assert [record["step"] for record in whole] == [record["step"] for record in parts]
    for ours, theirs in zip(whole, parts, strict=True):
        for name, value in ours.items():
            assert theirs[name] == pytest.approx(value, rel=2e-5, abs=1e-9), (ours["step"], name)


def test_an_impossible_batch_is_told_once_with_the_arithmetic(flags, launch):
    done = launch(2, *flags(train__global_batch=6, train__micro_batch=2))
    assert done.returncode != 0
    assert done.stderr.count("--train.global-batch 6: must be a multiple") == 1
    assert "2 x 2 = 4" in done.stderr
