"""How long a user waits: `depthlab --help`, a subcommand's help, and the imports behind them; best of several."""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import dataclass

import tyro

from lab.runfolder.text import table

COMMANDS = {
    "python -c pass": ["-c", "pass"],
    "depthlab --help": ["-m", "lab.cli", "--help"],
    "depthlab pretrain --help": ["-m", "lab.cli", "pretrain", "--help"],
    "import transformers, torch": ["-c", "import transformers, torch"],
    "import normalization": ["-c", "import normalization"],
}


@dataclass(frozen=True)
class Benchmark:
    """Time start-up."""

    repeats: int = 5
    """Runs of each command; the shortest counts."""


def main() -> None:
    wanted = tyro.cli(Benchmark, description=__doc__)
    rows = []
    for name, words in COMMANDS.items():
        seconds = []
        for _ in range(wanted.repeats):
            begun = time.perf_counter()
            subprocess.run([sys.executable, *words], capture_output=True, check=True)
            seconds.append(time.perf_counter() - begun)
        rows.append({"command": name, "seconds": f"{min(seconds):.2f}"})
    print(table(rows))


if __name__ == "__main__":
    main()
