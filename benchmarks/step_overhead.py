"""Our training step against a bare loop over the same model and batches, and monitors on against off.

Three arms take turns, block by block, in one process: `bare` (forward, loss, backward, clip, AdamW, and nothing else),
`ours` (the whole loop: data, counts, finite checks, clipping, records, progress line) and `monitored` (ours, with the
layer-wise monitors at every step). Printed: tokens/s of each arm and the ratios, from the median over blocks.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch
import torch.nn.functional as F
import tyro

from lab.config.sections import LogConfig, ModelConfig, MonitorsConfig, OptimConfig, RunConfig, TrainConfig
from lab.data import Corpus, DataConfig, load_tokenizer, prepare
from lab.model.build import build_model
from lab.parallel.accelerator import make_accelerator
from lab.parallel.heartbeat import Heartbeat
from lab.quiet import quieten
from lab.runfolder.console import Console
from lab.runfolder.text import table
from lab.training.loop import Trainer
from lab.training.optim import build_optimizer
from lab.training.process import Process


@dataclass(frozen=True)
class Benchmark:
    """Time our training step against a bare loop."""

    preset: str = "tiny-16x128"
    """Model size."""
    batch: int = 16
    """Sequences per step."""
    block_length: int = 128
    """Tokens per sequence."""
    precision: str = "fp32"
    """fp32 or bf16."""
    compile: bool = False
    """Compile model and loss, in both loops."""
    blocks: int = 15
    """How often the arms take turns."""
    steps: int = 4
    """Steps per turn."""


def main() -> None:
    wanted = tyro.cli(Benchmark, description=__doc__)
    quieten()
    with tempfile.TemporaryDirectory() as folder:
        arms = {
            "bare": Bare(run_config(wanted, f"{folder}/bare", monitors=0)),
            "ours": Ours(run_config(wanted, f"{folder}/ours", monitors=0)),
            "monitored": Ours(run_config(wanted, f"{folder}/monitored", monitors=1)),
        }
        seconds: dict[str, list[float]] = {name: [] for name in arms}
        for arm in arms.values():
            arm.steps(2)
        for turn in range(wanted.blocks):
            order = list(arms) if turn % 2 else list(reversed(arms))
            for name in order:
                begun = time.perf_counter()
                arms[name].steps(wanted.steps)
                seconds[name].append((time.perf_counter() - begun) / wanted.steps)
        tokens = wanted.batch * wanted.block_length
        device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
        print(f"{wanted.preset}, {wanted.batch} x {wanted.block_length} tokens, {wanted.precision}, {device}")
        print(table([row(name, seconds, tokens) for name in arms]))


def row(name: str, seconds: dict[str, list[float]], tokens: int) -> dict[str, str]:
    def ratio(other: str) -> str:
        return f"{median(b / a for a, b in zip(seconds[name], seconds[other], strict=True)):.3f}"

    return {
        "arm": name,
        "ms/step (median)": f"{1000 * median(seconds[name]):.1f}",
        "tokens/s": f"{tokens / median(seconds[name]):,.0f}",
        "speed / bare": ratio("bare"),
        "speed / ours": ratio("ours"),
    }


def run_config(wanted: Benchmark, folder: str, *, monitors: int) -> RunConfig:
    return RunConfig(
        run_dir=folder,
        model=ModelConfig(preset=wanted.preset),
        data=DataConfig(block_length=wanted.block_length),
        optim=OptimConfig(),
        train=TrainConfig(
            steps=1_000_000,
            micro_batch=wanted.batch,
            global_batch=wanted.batch,
            precision=wanted.precision,  # type: ignore[arg-type]
            compile=wanted.compile,
        ),
        monitors=MonitorsConfig(every=monitors),
        log=LogConfig(every=1),
    )


class Ours:
    def __init__(self, run: RunConfig) -> None:
        Path(run.run_dir).mkdir()
        corpus, model, tokenizer = parts(run)
        accelerator = make_accelerator(run)
        process = Process(accelerator, Console(enabled=False), Heartbeat(3600))
        self.trainer = Trainer(run, model, corpus, tokenizer, process, None)
        self.trainer.logbook.open()

    def steps(self, number: int) -> None:
        for _ in range(number):
            self.trainer.advance()


class Bare:
    def __init__(self, run: RunConfig) -> None:
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        corpus, model, _ = parts(run)
        self.model = model.to(self.device).train()
        self.loss = F.cross_entropy
        if run.train.compile:
            self.model.compile()
            self.loss = torch.compile(F.cross_entropy)
        self.optimizer = build_optimizer(self.model, run.optim, self.device)
        self.batches = corpus.batches(rank=0, world_size=1, micro_batch=run.train.micro_batch)
        self.autocast = torch.autocast(self.device.type, torch.bfloat16, enabled=run.train.precision == "bf16")

    def steps(self, number: int) -> None:
        for _ in range(number):
            batch = next(self.batches)
            with self.autocast:
                logits = self.model(input_ids=batch["input_ids"].to(self.device), use_cache=False).logits
            loss = self.loss(logits.float().flatten(0, 1), batch["targets"].to(self.device).flatten())
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
            self.optimizer.step()
            self.optimizer.zero_grad()
        if self.device.type == "cuda":
            torch.cuda.synchronize()


def parts(run: RunConfig) -> tuple[Corpus, torch.nn.Module, object]:
    tokenizer = load_tokenizer(run.data, progress=False)
    corpus = prepare(run.data, tokenizer, seed=0, progress=False)
    model = build_model(run, tokenizer_size=len(tokenizer), eos_token_id=tokenizer.eos_token_id)
    return corpus, model, tokenizer


if __name__ == "__main__":
    main()
