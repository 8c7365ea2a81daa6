from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from evaluators import command_line
from evaluators.asking.cache import Cache, default_path
from evaluators.errors import ConfigError, RunError
from evaluators.saying import say

_DAY_S = 86400.0


@dataclass(frozen=True)
class CacheCommand:
    """List the paid replies that are kept, by judge; with --prune, delete some."""

    cache: str | None = None
    """SQLite file; ~/.cache/depthlab/judge.sqlite if not given."""
    prune: bool = False
    """Delete the replies that --older-than and --judge choose (both must hold if both are given)."""
    older_than: float | None = None
    """Age in days."""
    judge: str | None = None
    """Judge's name, as listed."""

    def __post_init__(self) -> None:
        chosen = self.older_than is not None or self.judge is not None
        if self.prune and not chosen:
            raise ConfigError("--prune: say which replies, by --older-than DAYS or --judge NAME (--older-than 0: all)")
        if chosen and not self.prune:
            raise ConfigError("--older-than and --judge choose what --prune deletes; add --prune")


def main(argv: Sequence[str], *, prog: str) -> int:
    """`depthlab judge cache`. Raises UserError where there is no cache, or nothing is chosen."""
    wanted = command_line.read(CacheCommand, argv, prog=prog)
    path = default_path() if wanted.cache is None else Path(wanted.cache)
    if not path.exists():
        raise RunError(f"--cache {path}: no such file; nothing was cached yet")
    cache = Cache(path)
    try:
        if wanted.prune:
            before = None if wanted.older_than is None else time.time() - wanted.older_than * _DAY_S
            say(f"{cache.prune(before=before, judge=wanted.judge):,} replies deleted")
        rows = cache.summary()
    finally:
        cache.close()
    say(f"{path}: {path.stat().st_size / 1e6:.1f} MB, {sum(row[1] for row in rows):,} replies")
    for judge, replies, size, first_s, last_s in rows:
        dates = " to ".join(time.strftime("%Y-%m-%d", time.localtime(seconds)) for seconds in (first_s, last_s))
        say(f"  {judge}: {replies:,} replies, {size / 1e6:.1f} MB, {dates}")
    return 0
