"""Settings of the bootstrap, which several commands have."""

from __future__ import annotations

from evaluators.errors import ConfigError

LEAST_DRAWS, MOST_DRAWS = 100, 1_000_000


def check_bootstrap(draws: int, seed: int) -> None:
    """Raises ConfigError for too few or too many draws, or a negative seed."""
    if not LEAST_DRAWS <= draws <= MOST_DRAWS:
        raise ConfigError(f"--draws {draws}: must be at least {LEAST_DRAWS}, and at most {MOST_DRAWS}")
    if seed < 0:
        raise ConfigError(f"--seed {seed}: must be at least 0")
