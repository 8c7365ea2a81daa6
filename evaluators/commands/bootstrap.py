"""Settings of the bootstrap, which several commands have."""

from __future__ import annotations

from evaluators.errors import ConfigError

LEAST_DRAWS = 100


def check_bootstrap(draws: int, seed: int) -> None:
    """Raises ConfigError for too few draws, or a negative seed."""
    if draws < LEAST_DRAWS:
        raise ConfigError(f"--draws {draws}: must be at least {LEAST_DRAWS}")
    if seed < 0:
        raise ConfigError(f"--seed {seed}: must be at least 0")
