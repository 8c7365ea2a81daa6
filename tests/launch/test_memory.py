"""The memory estimate against what autograd and DeepSpeed really keep."""

from __future__ import annotations

import json
import platform
import shutil
import subprocess
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch

from lab.config.read import parse
from lab.model.build import build_model
from lab.model.loss import token_loss_sum
from launch import presets
from launch.memory import BUCKET, MAX_LIVE, PREFETCH, activation_bytes, estimate, measure, state_bytes
from tests.launch.conftest import ENVIRONMENT, run


def settings(*words: str, preset: str = "tiny-4x96", scheme: str = "pre"):
    ours = ["--model.preset", preset, "--data.tokenizer", "bpe:500", "--normalization.scheme", scheme]
    return parse(
        [*ours, "--data.block-length", "64", "--train.micro-batch", "3", "--train.global-batch", "12", *words], prog="t"
    )


@pytest.mark.parametrize(
    ("scheme", "attention", "checkpointing"),
    [
        ("pre", "sdpa", False),
        ("mix", "sdpa", False),
        ("deepnorm", "sdpa", False),
        ("peri", "sdpa", False),
        ("pre", "eager", False),
        ("peri", "eager", True),
    ],
)
@pytest.mark.parametrize("way", ["fp32", "autocast", "bf16 weights"])
def test_activations_are_what_autograd_keeps(scheme, way, checkpointing, attention):
    """Counted by storages: of the layers as they run forward, without weights and their bf16 copies."""
    words = ["--train.precision", "fp32" if way == "fp32" else "bf16", "--model.attention", attention]
    kept = {}
    for depth in (4, 8):
        asked = settings(*words, preset=f"tiny-{depth}x96", scheme=scheme)
        model = build_model(asked, tokenizer_size=500, eos_token_id=None).train()
        if way == "bf16 weights":
            model.bfloat16()
        if checkpointing:
            model.activation_checkpointing_enable({"use_reentrant": False})
        weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
        seen: dict[int, torch.Tensor] = {}

        def pack(tensor: torch.Tensor, seen=seen, weights=weights) -> torch.Tensor:
            if tensor.untyped_storage().data_ptr() not in weights:
                seen[tensor.untyped_storage().data_ptr()] = tensor
            return tensor

        tokens = torch.randint(0, 500, (3, 64))
        autocast = torch.autocast("cpu", torch.bfloat16) if way == "autocast" else nullcontext()
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            with autocast:
                logits = model(input_ids=tokens, use_cache=False).logits
            token_loss_sum(logits, tokens)
        kept[depth] = sum(tensor.untyped_storage().nbytes() for tensor in seen.values())
        if way == "autocast" and not checkpointing:
            layers = model.get_decoder().layers
            kept[depth] -= 2 * sum(p.numel() for p in layers.parameters() if p.ndim > 1)
    estimated = {}
    for depth in (4, 8):
        flags = [*words, "--train.activation-checkpointing"] if checkpointing else words
        asked = settings(*flags, preset=f"tiny-{depth}x96", scheme=scheme)
        shape, _ = measure(asked)
        estimated[depth] = activation_bytes(asked, shape, half_weights=way == "bf16 weights")["activations"]
    # Besides: one number per token of each norm, one per token and head of SDPA.
    assert estimated[8] - estimated[4] == pytest.approx(kept[8] - kept[4], rel=0.01)


STATES = """
import gc, json, sys, torch, deepspeed
from torch import nn
torch.distributed.init_process_group("gloo")
stage, bf16, offload, out = int(sys.argv[1]), sys.argv[2] == "bf16", sys.argv[3] == "True", sys.argv[4]
zero = {"stage": stage}
if offload:
    zero |= {"offload_optimizer": {"device": "cpu"}, "offload_param": {"device": "cpu"}}
config = {"train_micro_batch_size_per_gpu": 2, "gradient_accumulation_steps": 2, "zero_optimization": zero,
          "zero_allow_untested_optimizer": True, "bf16": {"enabled": bf16},
          "data_types": {"grad_accum_dtype": "fp32"}, "communication_data_type": "fp32"}
model = nn.Sequential(*[nn.Linear(512, 512, bias=False) for _ in range(16)])
optimizer = torch.optim.AdamW(model.parameters())
if offload:
    from deepspeed.ops.adam import DeepSpeedCPUAdam
    optimizer = DeepSpeedCPUAdam(model.parameters())
engine = deepspeed.initialize(model=model, optimizer=optimizer, config=config)[0]
for number in range(3):  # the second step's first micro-batch: Adam's averages are there, gradients accumulate
    loss = engine(torch.randn(2, 512, dtype=torch.bfloat16 if bf16 else torch.float32)).float().square().mean()
    engine.backward(loss)
    del loss
    if number == 2:
        gc.collect()
        sizes = {}
        for found in gc.get_objects():
            if isinstance(found, torch.Tensor):
                for tensor in (found, found.grad):
                    if tensor is not None:
                        sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        if torch.distributed.get_rank() == 0:
            total = sum(size for size in sizes.values() if size < 9e8)  # without the bucket of 5e8 elements
            open(out, "w").write(json.dumps(total / (16 * 512 * 512)))
    engine.step()
"""


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", ["zero1", "zero2", "zero3", "zero3-offload"])
def test_bytes_per_parameter_are_what_deepspeed_holds(name, precision, tmp_path):
    """All tensors of one of two processes, in the middle of an accumulated step."""
    preset = presets.get(name)
    (tmp_path / "states.py").write_text(STATES)
    words = [str(preset.zero_stage), precision, str(preset.offload), tmp_path / "bytes.json"]
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = run(*launcher, tmp_path / "states.py", *words)
    assert done.returncode == 0, done.stderr
    shape, _ = measure(settings())
    states = state_bytes(preset, shape, bf16=precision == "bf16", processes=2)
    if (name, precision) != ("zero1", "bf16"):  # there the buffers are the bf16 gradients, which stay
        del states["buffers"]
    states.pop("prefetched", None)
    # A layer or two of sixteen is on its way at any moment.
    measured = json.loads((tmp_path / "bytes.json").read_text())
    assert measured == pytest.approx(sum(states.values()) / shape.parameters, abs=0.55)


PEAK = {
    "--model.preset": "tiny-6x384",
    "--model.vocab-size": "3000",
    "--data.block-length": "64",
    "--train.steps": "2",
    "--train.micro-batch": "2",
    "--train.global-batch": "8",
    "--eval.every": "0",
    "--eval.blocks": "1",
    "--checkpoint.every": "0",
    "--monitors.every": "1",
}
"""States, activations, logits and the monitors' copy weigh alike; the micro-batches are accumulated."""
BUCKETS = {("zero1", "bf16"): 0, ("zero2", "bf16"): 2}
"""Bytes of an element of DeepSpeed's bucket, where not 4; whole at any size of model, it would hide all else."""


@pytest.fixture(scope="session")
def counter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("cc")
    if compiler is None or platform.libc_ver()[0] != "glibc":
        pytest.skip("counting what libc allocates needs a C compiler and glibc")
    library = tmp_path_factory.mktemp("counter") / "allocations.so"
    source = Path(__file__).with_name("allocations.c")
    subprocess.run([compiler, "-O2", "-shared", "-fPIC", "-fno-builtin", "-o", library, source], check=True)
    return library


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize(
    "name",
    [name if name == "single" else pytest.param(name, marks=pytest.mark.slow) for name in presets.NAMES],
)
def test_the_estimate_is_within_a_tenth_of_the_peak_of_a_real_process(name, precision, flags, counter, tmp_path):
    preset, processes = presets.get(name), 1 if name == "single" else 2
    words = [
        *flags(tmp_path / "run"),
        *(word for pair in PEAK.items() for word in pair),
        "--train.precision",
        precision,
    ]
    launcher = ["-m", "accelerate.commands.launch", "--config_file", preset.file(nodes=1)]
    program = Path(__file__).with_name("peak.py")
    # oneDNN keeps 256 KiB for each kernel that it compiled for bf16, which is much beside a model that is so small.
    preloaded = {**ENVIRONMENT, "LD_PRELOAD": str(counter), "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "0"}
    done = run(*launcher, "--num_processes", processes, program, tmp_path / "peak", *words, env=preloaded)
    assert done.returncode == 0, done.stderr
    measured = int((tmp_path / "peak").read_text())
    asked = parse([str(word) for word in words], prog="t")
    shape, _ = measure(asked)
    found = estimate(asked, preset, shape, nodes=1, processes_per_node=processes)
    bucket = BUCKET * (BUCKETS.get((name, precision), 4) if preset.zero_stage else 0)
    # Offloaded, the states are in the memory of the machine, which on CPU processes is the GPU's as well.
    assert found.total + found.machine / processes - bucket == pytest.approx(measured - bucket, rel=0.1)


def test_shares_and_buffers_by_hand():
    """7B on 8 GPUs in bf16, against the arithmetic of the presets' third line."""
    asked = settings("--train.precision", "bf16", preset="llama_7b")
    shape, _ = measure(asked)
    n = shape.parameters
    assert n == 32 * (4 * 4096**2 + 3 * 4096 * 11008 + 2 * 4096) + 2 * 500 * 4096 + 4096
    zero3 = state_bytes(presets.get("zero3"), shape, bf16=True, processes=8)
    assert sum(zero3.values()) == pytest.approx(18 * n / 8 + 4 * BUCKET + 2 * MAX_LIVE + 2 * PREFETCH)
    assert sum(state_bytes(presets.get("ddp"), shape, bf16=True, processes=8).values()) == 18 * n
    assert (
        sum(state_bytes(presets.get("zero1"), shape, bf16=False, processes=8).values()) == 8 * n + 1.5 * n + 4 * BUCKET
    )
    found = estimate(asked, presets.get("zero3-offload"), shape, nodes=2, processes_per_node=4)
    assert found.machine == pytest.approx(22 * n / 8 * 4)


def test_the_libraries_own_figures_are_shown():
    shape, _ = measure(settings())
    figures = {
        name: estimate(settings(), presets.get(name), shape, nodes=1, processes_per_node=2).theirs
        for name in presets.NAMES
    }
    assert figures["ddp"].startswith("Accelerate estimates") and figures["zero2"].startswith("DeepSpeed estimates")
    assert "16-bit weights where this run has fp32" in figures["zero3"] and "it knows no sharding" in figures["fsdp2"]


def test_no_weights_are_made():
    shape, told = measure(settings(preset="llama_7b"))
    assert shape.parameters > 6e9 and not told
