"""What can be chosen about a measurement, apart from the model and the probe."""

from __future__ import annotations

import re
from dataclasses import dataclass

from lab.errors import ConfigError

PATTERN = re.compile(r"(\d+):(\d+)")


@dataclass(frozen=True)
class Options:
    """Settings of the diagnostics."""

    batch: int = 1
    """Blocks at a time: memory grows with it, and hardly with anything else of the probe."""
    seed: int = 0
    """Seed of random directions."""
    removal_max: int = 1
    """Longest run of layers that is removed together; 1 removes single layers only. All pairs (l, n) of L layers cost
    about L^3/6 layers and L^2/2 heads a block."""
    jacobian_samples: int = 1
    """Random directions a block."""
    sparsity_levels: tuple[str, ...] = ("0.5",)
    """Shares of the weights that are pruned in one layer at a time (0.1 0.5 0.9), or N:M patterns (2:4)."""
    sparsity_levels_all: tuple[str, ...] = ("0.1", "0.2", "0.3", "0.4", "0.5", "0.6", "0.7", "0.8", "0.9", "2:4")
    """The same for all layers at once."""
    sparsity_blocks: int = 2
    """Blocks of the probe, the first ones, on which pruned models are evaluated."""

    def __post_init__(self) -> None:
        for name in ("batch", "removal_max", "jacobian_samples", "sparsity_blocks"):
            if getattr(self, name) < 1:
                raise ConfigError(f"--{name.replace('_', '-')} {getattr(self, name)}: must be at least 1")
        if self.seed < 0:
            raise ConfigError(f"--seed {self.seed}: must not be negative")
        for flag in ("sparsity_levels", "sparsity_levels_all"):
            object.__setattr__(self, flag, tuple(str(level) for level in getattr(self, flag)))
            for level in getattr(self, flag):
                check_level(level, f"--{flag.replace('_', '-')}")


def check_level(level: str, flag: str) -> None:
    """A share such as 0.5, or a pattern such as 2:4.

    Raises:
        ConfigError: neither.
    """
    if match := PATTERN.fullmatch(level):
        if 0 < int(match[1]) < int(match[2]):
            return
    else:
        try:
            if 0 < float(level) < 1:
                return
        except ValueError:
            pass
    raise ConfigError(f"{flag} {level}: must be a share between 0 and 1, or a pattern N:M with 0 < N < M such as 2:4")
