"""How far a run goes: a number of updates, or of tokens, which is exact whatever the global batch is or was."""

from __future__ import annotations

from lab.checkpoint.progress import Progress
from lab.config.sections import RunConfig
from lab.training.optim import learning_rate, schedule


class Budget:
    """What a run has before it, from where it stands when it starts or goes on.

    With `--train.steps` updates are counted, with `--train.tokens` positions (sequences x block length): each drives
    the end of the run and the learning rate. Another global batch from some step on changes neither.

    Args:
        run: its settings.
        start: where it stands; positions are those of the steps before, of whatever size they were.
    """

    def __init__(self, run: RunConfig, start: Progress) -> None:
        self._run = run
        per_step = run.tokens_per_step
        if run.train.tokens is None:
            self.steps = run.steps
            self.tokens = start.positions + max(run.steps - start.step, 0) * per_step
        else:
            self.tokens = run.train.tokens
            self.steps = start.step + -(-max(self.tokens - start.positions, 0) // per_step)

    steps: int
    """Number of the last update."""
    tokens: int
    """Positions at the end of the run."""

    def next(self, positions: int) -> int:
        """Positions of the step that begins after so many: a whole step's, or what is left."""
        return max(min(self._run.tokens_per_step, self.tokens - positions), 0)

    def learning_rate(self, step: int, positions: int) -> float:
        """Of update `step`, with which the run has seen `positions`."""
        optim, per_step = self._run.optim, self._run.tokens_per_step
        if self._run.train.tokens is None:
            return learning_rate(step, self.steps, optim)
        warmup, decay = (length * (self.tokens if length < 1 else per_step) for length in (optim.warmup, optim.decay))
        return schedule(positions, self.tokens, warmup=warmup, decay=decay, config=optim)
