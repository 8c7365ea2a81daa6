"""What a launcher's variables say of this process: which of how many it is, and where they meet."""

from __future__ import annotations

import os
import re

from lab.errors import ConfigError

_NUMBERS = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_PORT")
_TO_MEET = ("RANK", "MASTER_ADDR", "MASTER_PORT")
_REMEDY = "start several processes with depthlab launch or accelerate launch, or unset it for a single one"


def check() -> None:
    """Refuse variables that no launcher sets, before a library reads them.

    Raises:
        ConfigError: no number, a rank that is not one of the processes, or no place to meet; names the variable.
    """
    for name in _NUMBERS:
        if (value := os.environ.get(name)) is not None and not re.fullmatch(r"-?\d+", value, re.ASCII):
            raise ConfigError(f"{name} {value!r} (environment): must be a whole number; {_REMEDY}")
    world, rank = (int(os.environ.get(name, default)) for name, default in (("WORLD_SIZE", "1"), ("RANK", "0")))
    if world < 1:
        raise ConfigError(f"WORLD_SIZE {world} (environment): must be at least 1; {_REMEDY}")
    if world > 1 and (missing := [name for name in _TO_MEET if name not in os.environ]):
        raise ConfigError(f"WORLD_SIZE {world} (environment): needs {', '.join(missing)} beside it; {_REMEDY}")
    if not 0 <= rank < world:
        raise ConfigError(
            f"RANK {rank} (environment): must be from 0 to WORLD_SIZE - 1, which is {world - 1}; {_REMEDY}"
        )
