"""Training under DDP, ZeRO-1, 2, 3 and FSDP2 with the same model: tokens/s, memory, monitors, checkpoints.

Each preset is started by `accelerate launch` (CPU processes over gloo where there is no GPU).
In each, turns with the layer-wise monitors at every step and turns without alternate on one trainer; then checkpoints
are written, during which training stands still. MFU is printed where the device's peak is known.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import psutil
import torch
import tyro

from lab.config.sections import CheckpointConfig, LogConfig, ModelConfig, MonitorsConfig, RunConfig, TrainConfig
from lab.data import DataConfig, load_tokenizer, prepare
from lab.model.build import build_model
from lab.monitors import Monitors
from lab.parallel.accelerator import make_accelerator
from lab.parallel.heartbeat import Heartbeat
from lab.quiet import quieten
from lab.runfolder.console import Console
from lab.runfolder.folder import create as create_run_folder
from lab.runfolder.text import table
from lab.training.loop import Trainer
from lab.training.process import Process

CHECKPOINTS = 3


@dataclass(frozen=True)
class Benchmark:
    """Compare ways to share a model among processes."""

    presets: tuple[str, ...] = ("ddp", "zero1", "zero2", "zero3", "fsdp2")
    """Of launch/presets."""
    processes: int = 2
    """How many."""
    model: str = "tiny-8x256"
    """Model size."""
    batch: int = 8
    """Sequences per process and step."""
    block_length: int = 128
    """Tokens per sequence."""
    precision: str = "fp32"
    """fp32 or bf16."""
    compile: bool = False
    """Compile the model."""
    turns: int = 8
    """Turns with and without monitors."""
    steps: int = 3
    """Steps per turn."""


def main() -> None:
    if os.environ.get("RANK") is not None or "--worker" in sys.argv:
        worker(json.loads(sys.argv[-1]))
        return
    wanted = tyro.cli(Benchmark, description=__doc__)
    rows = []
    for preset in wanted.presets:
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-m", "accelerate.commands.launch"]
            command += ["--config_file", str(Path(__file__).parents[1] / "launch" / "presets" / f"{preset}.yaml")]
            command += ["--num_processes", str(wanted.processes), __file__, "--worker"]
            done = subprocess.run(
                [*command, json.dumps({**asdict(wanted), "folder": folder})],
                stdout=subprocess.PIPE,
                text=True,
                check=True,
            )
        rows.append({"preset": preset, **json.loads(done.stdout.splitlines()[-1])})
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    print(
        f"{wanted.model}, {wanted.processes} processes x {wanted.batch} x {wanted.block_length} tokens, "
        f"{wanted.precision}{', compiled' if wanted.compile else ''}, {device}"
    )
    print(table(rows))


def worker(options: dict) -> None:
    quieten()
    folder = options.pop("folder")
    wanted = Benchmark(**options)
    run = RunConfig(
        run_dir=f"{folder}/run",
        model=ModelConfig(preset=wanted.model),
        data=DataConfig(block_length=wanted.block_length),
        train=TrainConfig(
            steps=1_000_000,
            micro_batch=wanted.batch,
            global_batch=wanted.batch * wanted.processes,
            precision=wanted.precision,  # type: ignore[arg-type]
            compile=wanted.compile,
        ),
        monitors=MonitorsConfig(every=0),
        checkpoint=CheckpointConfig(keep_last=1),
        log=LogConfig(every=1),
    )
    accelerator = make_accelerator(run)
    tokenizer = load_tokenizer(run.data, progress=False)
    corpus = prepare(run.data, tokenizer, seed=0, progress=False)
    model = build_model(run, tokenizer_size=len(tokenizer), eos_token_id=tokenizer.eos_token_id)
    process = Process(accelerator, Console(enabled=False), Heartbeat(3600))
    trainer = Trainer(run, model, corpus, tokenizer, process, None)
    if accelerator.is_main_process:
        create_run_folder(run, derived={}, data={}, world_size=wanted.processes)
    trainer.logbook.open()
    arms = {
        "plain": trainer.monitors,
        "monitored": Monitors(MonitorsConfig(every=1), model, trainer.learner.groups),
    }
    seconds: dict[str, list[float]] = {name: [] for name in arms}
    for turn in range(wanted.turns + 1):
        for name in list(arms) if turn % 2 else reversed(list(arms)):
            trainer.monitors = arms[name]
            begun = time.perf_counter()
            for _ in range(wanted.steps):
                trainer.advance()
            if turn:  # the first is warm-up
                seconds[name].append((time.perf_counter() - begun) / wanted.steps)
    saves = []
    for _ in range(CHECKPOINTS):
        begun = time.perf_counter()
        trainer.saver.save(trainer.progress, trainer.batches.state_dict, None, must_succeed=True)
        saves.append(time.perf_counter() - begun)
    if accelerator.is_main_process:
        tokens = run.tokens_per_step
        on_gpu = accelerator.device.type == "cuda"
        peak = torch.cuda.max_memory_allocated() if on_gpu else psutil.Process().memory_info().rss
        per_second = tokens / median(seconds["plain"])
        mfu = None
        if trainer.logbook.peak_flops is not None:
            mfu = per_second * trainer.logbook.flops_per_token / (trainer.logbook.peak_flops * wanted.processes)
        ratio = median(b / a for a, b in zip(seconds["plain"], seconds["monitored"], strict=True))
        figures = {
            "ms/step": f"{1000 * median(seconds['plain']):.0f}",
            "tokens/s": f"{per_second:,.0f}",
            "MFU": "" if mfu is None else f"{100 * mfu:.1f} %",
            "monitors at every step": f"{100 * (ratio - 1):+.1f} %",
            "memory/process (GiB)": f"{peak / 2**30:.2f}",
            "checkpoint (s)": f"{median(saves):.2f}",
        }
        print("\n" + json.dumps(figures), flush=True)
    trainer.close()


if __name__ == "__main__":
    main()
