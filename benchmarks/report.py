"""Build the report of 4 runs x 20 checkpoints of 12 layers: seconds and size. `python benchmarks/report.py`."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import yaml

from lab.diagnostics.engine.probe import Probe
from lab.diagnostics.record import Record
from lab.diagnostics.summary import summarize
from lab.diagnostics.values import Figure, layer_axis, stream_axis

RUNS, CHECKPOINTS, LAYERS, HEADS = 4, 20, 12, 8
SCHEMES = ("pre", "post", "mix", "lns")


def record(step: int, layers: int, *, shift: float = 0.0, probe: Probe | None = None) -> Record:
    """A record with every figure that a report draws, of values that any report can be checked against."""
    rng = np.random.default_rng([step, layers])
    layer, stream = layer_axis(layers), stream_axis(layers)
    depth = np.arange(layers + 1)
    grown = np.exp(0.02 * depth * (1 + step / 500)) * (1 + shift)
    angles = np.abs(depth[:, None] - depth[None]) / (2 * layers) * (1 + shift)

    def by(axis: dict, values: np.ndarray, unit: str) -> Figure:
        return Figure(values, axis, unit, "made up", np.abs(values) * 0.05)

    noise = rng.random(layers) * 0.1
    methods = {"method": ["magnitude", "wanda"]}
    heads = layer | {"head": range(1, HEADS + 1)}
    weights = layer | {
        "weight": [f"self_attn.{x}_proj:{x}" for x in "qkvo"] + [f"mlp.{x}_proj:{x}" for x in ("gate", "up", "down")]
    }
    diagnostics = {
        "variance": {
            "stream_median": by(stream, grown, "activation^2"),
            "stream_mean": by(stream, grown * 1.2, "activation^2"),
        },
        "angular": {
            "distance": by({"from": stream["stream"], "to": stream["stream"]}, angles, "1/pi rad"),
            "step": by(layer, np.diagonal(angles, 1), "1/pi rad"),
        },
        "removal": {
            "increase": by(layer, noise + shift, "nats/token"),
            "block_increase": by(layer | {"length": range(1, 5)}, rng.random((layers, 4)), "nats/token"),
        },
        "lens": {
            "loss": by(stream, 8 - depth * 0.1, "nats/token"),
            "kl": by(stream, 3 - depth * 3 / layers, "nats/token"),
        },
        "rank": {
            "effective_rank": by(stream, 100 / (1 + depth), "directions"),
            "anisotropy": by(stream, depth / layers, "1"),
        },
        "jacobian": {"distance": by(layer, noise, "1")},
        "gradients": {"layer": by(layer, noise + 0.1, "nats/token")},
        "sparsity": {
            "all_increase": by(methods | {"level": ["0.1", "0.5", "0.9"]}, rng.random((2, 3)), "nats/token"),
            "increase": by(layer | methods | {"level": ["0.5"]}, rng.random((layers, 2, 1)), "nats/token"),
        },
        "attention": {
            "entropy": by(heads, rng.random((layers, HEADS)), "nats"),
            "first_token": by(heads, rng.random((layers, HEADS)), "1"),
        },
        "spectra": {"stable_rank": by(weights, rng.random((layers, 7)) * 20, "directions")},
    }
    model = {"source": "made up", "model_type": "llama", "scheme": "pre", "layers": layers, "parameters": 1000}
    model |= {"step": step, "tokens": step * 100, "name": f"step-{step:06}"}
    probe = probe or Probe.from_ids(np.arange(32).reshape(2, 16), "made up")
    return Record(model, probe, {}, diagnostics, {}, summarize(diagnostics), {"device": "cpu"})


def run(
    folder: Path, *, scheme: str = "pre", seed: int = 0, layers: int = 3, checkpoints: int = 2, shift: float = 0.0
) -> Path:
    """A run folder as `depthlab pretrain` and `depthlab diagnose` leave it."""
    folder.mkdir(parents=True)
    config = {"normalization": {"scheme": scheme}, "train": {"seed": seed, "steps": checkpoints * 10}}
    (folder / "config.yaml").write_text(yaml.safe_dump(config | {"run_dir": str(folder)}))
    derived = {"parameters": 1000, "steps": checkpoints * 10}
    (folder / "environment.json").write_text(json.dumps({"versions": {"torch": "2"}, "derived": derived}))
    with (folder / "metrics.jsonl").open("w") as file:
        for step in range(1, checkpoints * 10 + 1):
            entry = {"step": step, "tokens": step * 100, "train/loss": 8 - step / 100 + shift, "train/lr": 1e-3}
            entry |= {"train/grad_norm": 1 / step, "train/tokens_per_second": 5000.0}
            if step % 10 == 0:
                entry |= {"eval/loss": 7.9 - step / 100 + shift, "eval/bits_per_byte": 3 - step / 100}
                for number in range(1, layers + 1):
                    entry |= {
                        f"grad_norm/layer_{number:02}": number / step,
                        f"update_ratio/layer_{number:02}": 1 / step,
                    }
            file.write(json.dumps(entry) + "\n")
    probe = Probe.from_ids(np.arange(32).reshape(2, 16), "made up")
    for number in range(1, checkpoints + 1):
        made = record(number * 10, layers, shift=shift, probe=probe)
        made.save(folder / "diagnostics" / f"step-{number * 10:06}.json")
    return folder


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folders = []
        for scheme in SCHEMES[:RUNS]:
            folders.append(run(Path(name) / scheme, scheme=scheme, layers=LAYERS, checkpoints=CHECKPOINTS))
        target = Path(name) / "report.html"
        command = [sys.executable, "-m", "lab.cli", "report", *map(str, folders), "--out", str(target)]
        begun = time.perf_counter()
        subprocess.run([sys.executable, "-c", "import lab.diagnostics.record"], check=True)
        start = time.perf_counter() - begun
        begun = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        whole = time.perf_counter() - begun
        megabytes = target.stat().st_size / 1e6
        print(f"report of {RUNS} runs x {CHECKPOINTS} checkpoints x {LAYERS} layers, whole command: {whole:.1f} s")
        print(f"of which starting Python with torch and transformers: {start:.1f} s; ratio {whole / start:.2f}")
        print(f"size of the page: {megabytes:.2f} MB")


if __name__ == "__main__":
    main()
