"""`lab/pretrain.py` with a SIGTERM to one rank in the forward pass of a step: RANK STEP RUN FLAGS."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3]))

from lab import pretrain
from lab.training import run
from tests.lab.training.test_stopping import signal_in_forward

if __name__ == "__main__":
    rank, step = sys.argv[1:3]
    if os.environ["RANK"] == rank:
        run.build_model = signal_in_forward(run.build_model, int(step), signal.SIGTERM)
    sys.exit(pretrain.main(sys.argv[3:]))
