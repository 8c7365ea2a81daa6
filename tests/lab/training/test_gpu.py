"""What only a GPU can show: loss scaling, flash attention, fused kernels, copies to the device."""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from accelerate.state import AcceleratorState

from lab.checkpoint import load_model
from lab.config.sections import OptimConfig, RunConfig
from lab.data.packing import IGNORED
from lab.parallel.heartbeat import Heartbeat
from lab.runfolder import metrics
from lab.runfolder.console import Console
from lab.training.batches import MicroBatches
from lab.training.optim import build_optimizer
from lab.training.process import Process
from lab.training.run import pretrain

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU"),
]


def records(run: RunConfig) -> list[dict[str, Any]]:
    """Train, and read the records of its steps."""
    AcceleratorState._reset_state(reset_partial_state=True)
    assert pretrain(run)
    return [record for record in metrics.read(Path(run.run_dir)) if "train/loss" in record]


def column(found: list[dict[str, Any]], name: str) -> list[float]:
    return [record[name] for record in found]


def test_loss_scaling_changes_neither_losses_nor_norms_nor_clipping(settings) -> None:
    """Norms and clipping are of the unscaled gradients; weights stay in float32."""
    common = {"optim__clip": 0.5, "train__micro_batch": 2, "train__steps": 20}
    plain = records(settings("fp32", **common))
    run = settings("fp16", train__precision="fp16", **common)
    half = records(run)
    for name in ("train/loss", "train/grad_norm", "grad_norm/layer_01", "activation_variance/layer_03"):
        assert column(half, name) == pytest.approx(column(plain, name), rel=3e-2), name
    assert {parameter.dtype for parameter in load_model(run.run_dir).parameters()} == {torch.float32}


def test_an_overflow_while_the_scale_is_sought_skips_the_update_and_the_run_goes_on(settings, monkeypatch) -> None:
    made = torch.amp.GradScaler.__init__

    def large(self: Any, *args: Any, **options: Any) -> None:
        made(self, *args, **(options | {"init_scale": 2.0**40}))

    monkeypatch.setattr(torch.amp.GradScaler, "__init__", large)
    found = records(settings(train__precision="fp16", train__steps=60, eval__every=0))
    norms = torch.tensor(column(found, "train/grad_norm"))
    assert not norms[0].isfinite() and norms[-1].isfinite()
    assert found[0]["update_ratio/layer_01"] == 0
    assert found[-1]["train/loss"] < found[0]["train/loss"]


@pytest.mark.skipif(find_spec("flash_attn") is None, reason="needs a CUDA GPU and pip install flash-attn")
def test_isolated_documents_are_those_of_sdpa_under_flash_attention(settings) -> None:
    common = {"train__precision": "bf16", "data__isolate_documents": True, "train__micro_batch": 4}
    sdpa = records(settings("sdpa", **common))
    flash = records(settings("flash", **common, model__attention="flash_attention_2"))
    apart = column(records(settings("joined", train__precision="bf16")), "train/loss")
    assert column(flash, "train/loss") == pytest.approx(column(sdpa, "train/loss"), rel=2e-3)
    assert column(flash, "train/loss") != pytest.approx(apart, rel=2e-3)


@pytest.mark.parametrize("name", ["adamw", "adam"])
def test_the_fused_optimizer_makes_the_updates_of_the_plain_one(name) -> None:
    device, config = torch.device("cuda"), OptimConfig(name=name, lr=1e-2)
    torch.manual_seed(0)
    fused = torch.nn.Sequential(torch.nn.Embedding(7, 16), torch.nn.Linear(16, 16)).to(device)
    plain = torch.nn.Sequential(torch.nn.Embedding(7, 16), torch.nn.Linear(16, 16)).to(device)
    plain.load_state_dict(fused.state_dict())
    optimizers = [build_optimizer(model, config, device) for model in (fused, plain)]
    assert all(group["fused"] for group in optimizers[0].param_groups)
    for group in optimizers[1].param_groups:
        group["fused"] = False
    ids = torch.arange(7, device=device)
    for _ in range(5):
        for model, optimizer in zip((fused, plain), optimizers, strict=True):
            optimizer.zero_grad()
            model(ids).square().sum().backward()
            optimizer.step()
    for one, other in zip(fused.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-7)


def test_batches_come_to_the_device_whole_and_are_counted_before(settings) -> None:
    run = replace(settings(train__micro_batch=2, train__global_batch=8))
    batches = [{"input_ids": torch.arange(6).view(2, 3) + n, "targets": torch.tensor([[1, 2, IGNORED]] * 2)}
               for n in range(4)]  # fmt: skip
    accelerator = SimpleNamespace(device=torch.device("cuda"), num_processes=1)
    process = Process(accelerator, Console(enabled=False), Heartbeat(60))  # type: ignore[arg-type]
    taken = MicroBatches(iter(batches), run, process).take(1)  # type: ignore[arg-type]
    torch.cuda.synchronize()
    assert taken.targets == 16
    for sent, there in zip(batches, taken.batches, strict=True):
        for key, tensor in sent.items():
            assert there[key].device.type == "cuda" and torch.equal(there[key].cpu(), tensor)


def test_float32_losses_and_monitors_are_those_of_the_cpu(settings, monkeypatch) -> None:
    torch.backends.cuda.matmul.allow_tf32 = False
    gpu = records(settings("gpu"))
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    cpu = records(settings("cpu"))
    for ours, theirs in zip(gpu, cpu, strict=True):
        for name in theirs:
            if "second" not in name and name != "train/mfu":
                assert ours[name] == pytest.approx(theirs[name], rel=1e-3), name
