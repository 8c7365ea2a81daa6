"""Pooled equals joint: over batches of any size, blocks of unequal length, documents in a block, and processes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lab.data.packing import Blocks
from lab.diagnostics import Options, Probe, Record, load, measure, names
from lab.diagnostics.engine.probe_source import of_blocks
from tests.lab.conftest import environment
from tests.lab.diagnostics.models import build, probe

TOLERANCE = {"rtol": 2e-4, "atol": 2e-6}


def assert_same(one: Record, other: Record, *, exactly: bool = False) -> None:
    assert one.diagnostics.keys() == other.diagnostics.keys()
    for diagnostic, figures in one.diagnostics.items():
        for name, figure in figures.items():
            twin = other.diagnostics[diagnostic][name]
            for mine, theirs in ((figure.values, twin.values), (figure.error, twin.error)):
                if mine is None:
                    assert theirs is None
                    continue
                tolerance = {"rtol": 1e-12, "atol": 0.0} if exactly else TOLERANCE
                np.testing.assert_allclose(mine, theirs, err_msg=f"{diagnostic}/{name}", **tolerance)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_any_batch_gives_the_same(family: str) -> None:
    model = build(family, "mix")
    options = {"removal_max": 2, "sparsity_blocks": 5}
    records = [measure(model, probe((9, 4, 7, 9, 2)), options=Options(batch=batch, **options)) for batch in (1, 2, 5)]  # type: ignore[arg-type]
    assert_same(records[0], records[1])
    assert_same(records[0], records[2])


def test_padding_changes_nothing() -> None:
    model = build("gpt_neox", "lns")
    short = probe((6, 6))
    padded = Probe.from_ids(np.pad(short.input_ids, ((0, 0), (0, 5)), constant_values=-1))
    # The Jacobian's random directions differ with the shape of a block.
    only = "variance,angular,rank,lens,attention,removal,gradients,sparsity"
    assert_same(measure(model, short, only=only), measure(model, padded, only=only))


def test_documents_in_a_block_are_as_documents_alone() -> None:
    """Two documents kept apart in one block give what two blocks of one document each give."""
    model = build("llama", "pre")
    first, second = [5, 9, 11, 13, 60], [7, 21, 33, 60]
    packed = Blocks(np.array([*first, *second]), block_length=9, end=60, isolate=True)
    together = of_blocks(packed, 1, seed=0, source="test")
    apart = Probe.from_ids(np.array([first, [*second, -1]]))
    only = ("variance", "angular", "rank", "lens", "removal", "attention")
    one, two = measure(model, together, only=only), measure(model, apart, only=only)
    assert together.position_ids is not None
    for name in (
        "variance/stream_mean",
        "variance/mlp_median",
        "angular/distance",
        "angular/distance_last",
        "rank/effective_rank",
        "lens/loss",
        "lens/kl",
        "removal/increase",
        "attention/entropy",
        "attention/first_token",
    ):
        np.testing.assert_allclose(one.figure(name).values, two.figure(name).values, rtol=1e-4, atol=1e-5, err_msg=name)


def test_two_processes_give_what_one_gives(tmp_path: Path) -> None:
    model = build("llama", "lns")
    model.save_pretrained(tmp_path / "model")
    ids = np.random.default_rng(1).integers(61, size=(5, 8))
    np.save(tmp_path / "ids.npy", ids)
    flags = ["--probe", tmp_path / "ids.npy", "--sparsity-blocks", 3, "--removal-max", 2]
    words = ["diagnose", tmp_path / "model", *flags]
    for name, launcher in (
        ("one", [sys.executable, "-m", "lab.cli"]),
        (
            "two",
            [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "lab.cli"],
        ),
    ):
        done = subprocess.run(
            [*launcher, *map(str, words), "--out", str(tmp_path / name)],
            env=environment(),
            capture_output=True,
            text=True,
            timeout=200,
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("loading") == 1
    one, two = load(tmp_path / "one" / "model.json"), load(tmp_path / "two" / "model.json")
    assert json.loads((tmp_path / "two" / "model.json").read_text())["environment"]["processes"] == 2
    assert not two.failures
    assert set(one.diagnostics) == set(names())
    assert_same(one, two, exactly=False)
    np.testing.assert_array_equal(one.figure("angular/distance").values, two.figure("angular/distance").values)
    np.testing.assert_array_equal(
        one.figure("variance/stream_median").values, two.figure("variance/stream_median").values
    )


def test_bfloat16_is_reduced_in_float32() -> None:
    model = build("llama", "pre")
    rounded = model.to(torch.bfloat16)
    record = measure(rounded, probe(), only="variance,angular,rank,lens,removal")
    exact = measure(rounded.float(), probe(), only="variance,angular,rank,lens,removal")
    assert_close: Any = np.testing.assert_allclose
    assert_close(record.figure("variance/stream_mean").values, exact.figure("variance/stream_mean").values, rtol=0.03)
    assert_close(record.figure("angular/distance").values, exact.figure("angular/distance").values, atol=0.01)
    distances = record.figure("angular/distance").values
    assert (distances.diagonal() == 0).all()
    assert np.isfinite(distances).all()
