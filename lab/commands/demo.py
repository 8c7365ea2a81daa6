"""`depthlab demo`: the default run with three schemes, one after the other, and a table of what was measured."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from evaluators import command_line
from lab.errors import ConfigError, UserError, tell
from lab.modes import check_place

SCHEMES = ("pre", "mix", "lns")
RECENT = 10
"""Measurements over which gradient norms are summarised."""


@dataclass(frozen=True)
class Demo:
    """Train a small deep model (16 layers of width 128) on the source text of the Python standard library with Pre-LN,
    Mix-LN and LayerNorm Scaling, one after the other, and compare. About 10 minutes on 2 cores.
    """

    out: str = "runs/demo"
    """Folder for the three runs; a number is added if it exists."""
    steps: int = 300
    """Length of each run, in steps of 2,048 tokens."""
    lr: float = 1e-3
    """Peak learning rate."""
    embedding_std: float = 0.02
    """Standard deviation of the new embeddings."""
    seed: int = 0
    """Seed of weights and data order."""


def main(argv: Sequence[str], *, prog: str) -> int:
    """Exit code 0; that of the first run that failed; 1 where nothing can be written; 2 for an impossible setting."""
    demo = command_line.read(Demo, argv, prog=prog)
    folder = _fresh(Path(demo.out))
    try:
        _check(demo)
        check_place("--out", folder)
    except UserError as error:
        return tell(error)
    rows = []
    for number, scheme in enumerate(SCHEMES, start=1):
        run_dir = folder / scheme
        print(f"\n=== {number} of {len(SCHEMES)}: {scheme} ===", flush=True)
        code = subprocess.run(
            [sys.executable, "-m", "lab.cli", "pretrain", *_flags(demo, scheme, run_dir)], check=False
        ).returncode
        if code:
            return code
        rows.append(summarise(scheme, run_dir))

    from lab.report.command import write
    from lab.runfolder.text import table

    print(f"\n{table(rows)}\n")
    print(
        f"Held-out loss in nats per token after {demo.steps} steps. Variance: of the last layer's output over that of\n"
        f"the first layer's. Gradient norms: median of the last {RECENT} measurements. Checkpoints load with\n"
        "transformers.AutoModelForCausalLM.from_pretrained(CHECKPOINT) after `import normalization`.\n"
        "\n"
        f"One seed ({demo.seed}) at one setting is no comparison of schemes: their order changes with choices that\n"
        f"papers leave unsaid. Here: learning rate {demo.lr:g} (--lr), embedding std {demo.embedding_std:g} "
        f"(--embedding-std), {demo.steps} steps\n"
        "(--steps), normal initialisation, 10 % warm-up, cosine to 10 %, clipping at 1. Try --lr 3e-3, with and\n"
        "without --embedding-std 0.63 (that of the Mix-LN code)."
    )
    report = write([str(folder / scheme) for scheme in SCHEMES], out=str(folder / "report.html"))
    print(f"\nThe three runs compared, to open in a browser: {report}")
    print(f"next: depthlab compare {' '.join(str(folder / scheme) for scheme in SCHEMES)}")
    return 0


def _check(demo: Demo) -> None:
    """Raises ConfigError for what every run would refuse under a name that the demo's flags do not have."""
    for flag, value in (("steps", demo.steps), ("lr", demo.lr), ("embedding-std", demo.embedding_std)):
        if not 0 < value < math.inf:
            raise ConfigError(f"--{flag} {value}: must be positive")
    if not 0 <= demo.seed < 2**32:
        raise ConfigError(f"--seed {demo.seed}: must be at least 0 and below 2^32")


def _flags(demo: Demo, scheme: str, run_dir: Path) -> list[str]:
    settings = {
        "run-dir": run_dir,
        "model.preset": "tiny-16x128",
        "model.embedding-std": demo.embedding_std,
        "normalization.scheme": scheme,
        "data.source": "builtin",
        "data.block-length": 128,
        "train.micro-batch": 16,
        "train.global-batch": 16,
        "train.steps": demo.steps,
        "train.seed": demo.seed,
        "optim.lr": demo.lr,
        # The report's layers are then shown at several checkpoints.
        "checkpoint.every": max(1, demo.steps // 3),
        "checkpoint.diagnose": "cheap",
    }
    return [word for name, value in settings.items() for word in (f"--{name}", str(value))]


def summarise(scheme: str, run_dir: Path) -> dict[str, Any]:
    """One row of the table, from a run's metrics.jsonl."""
    from lab.checkpoint import find
    from lab.runfolder import metrics

    records = metrics.read(run_dir)
    final = [record for record in records if "eval/loss" in record][-1]
    variances = [value for name, value in final.items() if name.startswith("variance/")]
    measured = [record for record in records if "grad_norm/layer_01" in record][-RECENT:]
    layers = sorted(name for name in measured[-1] if name.startswith("grad_norm/layer_")) if measured else []

    def gradient_norm(name: str) -> str:
        return f"{median(record[name] for record in measured):.4f}"

    return {
        "scheme": scheme,
        "held-out loss": f"{final['eval/loss']:.3f}",
        "variance last/first": f"{variances[-1] / variances[0]:.3g}",
        "grad norm first layer": gradient_norm(layers[0]) if layers else "not measured",
        "grad norm last layer": gradient_norm(layers[-1]) if layers else "not measured",
        "checkpoint": str(find(run_dir, "latest", say=print)),
    }


def _fresh(folder: Path) -> Path:
    candidate, number = folder, 1
    while candidate.exists():
        number += 1
        candidate = folder.with_name(f"{folder.name}-{number}")
    return candidate
