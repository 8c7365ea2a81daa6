"""bf16: gradients are summed over micro-batches and processes in fp32 by every engine, and weights stay fp32."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("accumulation.py")
FLAGS = {"train__global_batch": 32, "train__micro_batch": 2, "train__precision": "bf16", "model__vocab_size": 97}


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["zero1", "zero2", "zero3", "fsdp2"])
def test_gradients_of_eight_micro_batches_are_summed_in_fp32(preset, flags, launch, tmp_path):
    """Their sum is nearer to the fp32 sum of the bf16 gradients than a sum in bf16 can be."""
    done = launch(2, tmp_path / "out.json", *flags(**FLAGS), preset=preset, program=PROGRAM)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "out.json").read_text())
    assert found["bf16"] > 1e-3, "a sum in bf16 would be seen"
    assert found["ours"] < found["bf16"] / 20
    assert found["weights"] == ["torch.float32"]
    assert found["told"] == {
        "engine": preset,
        "processes": 2,
        "compute": "bf16",
        "stream": "bf16",
        "reduce": "fp32",
        "accumulate": "fp32",
        "variables": {},
    }
