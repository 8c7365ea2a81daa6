"""A ranking of systems from pairwise verdicts (Bradley & Terry 1952); a tie is half a win for each."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evaluators.errors import RunError
from evaluators.statistics.bootstrap import Array, Interval, cluster_sums, interval, resampled

_ROUNDS = 10_000
_CLOSE = 1e-10
_CLOSE_DRAW = 1e-6
_AT_ONCE = 2**20

Game = tuple[str, str, int | None]
"""System 1, system 2, winner: 1, 2, 0 (tie) or None (unscored)."""


@dataclass(frozen=True)
class Standing:
    """A system's place."""

    system: str
    win_rate: float
    """Wins and half the ties, over its comparisons."""
    games: int
    strength: float | None
    """s, mean 0 over the systems: P(i beats j) = 1 / (1 + exp(s_j - s_i)). None: not finite, see `bradley_terry`."""
    wins: int = 0
    ties: int = 0
    losses: int = 0
    win_rate_interval: Interval | None = None
    strength_interval: Interval | None = None
    """None also where the strength is not finite in more than 5 % of the draws."""


def leaderboard(
    games: Sequence[Game], clusters: Sequence[Hashable] | None = None, *, draws: int = 0, seed: int = 0
) -> list[Standing]:
    """Systems, best first; unscored games do not count.

    Args:
        clusters: of each game, drawn together by the bootstrap; each game by itself if not given.
        draws: of the bootstrap; 0: no intervals.

    Raises:
        RunError: no game with a verdict, or a system plays against itself.
    """
    groups = range(len(games)) if clusters is None else clusters
    counted = [(game, group) for game, group in zip(games, groups, strict=True) if game[2] is not None]
    if not counted:
        raise RunError("no comparison of two systems has a verdict")
    if own := [one for (one, other, _), _ in counted if one == other]:
        raise RunError(f"system {own[0]!r} is compared with itself")
    names = sorted({name for (one, other, _), _ in counted for name in (one, other)})
    at = {name: index for index, name in enumerate(names)}
    size = len(names)
    rows = np.zeros((len(counted), size, size))
    for row, ((one, other, winner), _) in zip(rows, counted, strict=True):
        share = {1: 1.0, 2: 0.0, 0: 0.5}[winner or 0]
        row[at[one], at[other]] = share
        row[at[other], at[one]] = 1 - share
    total = rows.sum(0)
    strengths, rates = bradley_terry(total), win_rates(total)
    ends = _intervals(cluster_sums(rows.reshape(len(rows), -1), [group for _, group in counted]), size, draws, seed)
    ties = (rows == 0.5).any(2).sum(0)
    decided = (rows == 1).any(2).sum(0)
    standings = [
        Standing(
            name,
            float(rates[i]),
            games=int((total + total.T)[i].sum()),
            strength=None if strengths is None else float(strengths[i]),
            wins=int(decided[i]),
            ties=int(ties[i]),
            losses=int((rows[:, :, i] == 1).any(1).sum()),
            win_rate_interval=ends[0][i],
            strength_interval=None if strengths is None else ends[1][i],
        )
        for name, i in at.items()
    ]
    return sorted(standings, key=lambda s: (-s.win_rate if s.strength is None else -s.strength, s.system))


def win_rates(wins: Array) -> Array:
    """(..., systems, systems) -> (..., systems); NaN where a system has no comparison."""
    won, played = wins.sum(-1), (wins + wins.swapaxes(-1, -2)).sum(-1)
    return np.divide(won, played, out=np.full(won.shape, np.nan), where=played > 0)


def bradley_terry(wins: Array) -> Array | None:
    """Maximum-likelihood log strengths, mean 0, by Hunter's MM algorithm (2004, eq. 3).

    Args:
        wins: (systems, systems), wins of the row over the column.

    Returns:
        None where they are not finite: some group of systems never lost to the rest (Ford 1957).
    """
    found = _strengths(wins[None], _CLOSE)[0]
    return None if np.isnan(found).any() else found


def _strengths(wins: Array, close: float) -> Array:
    """`bradley_terry` of many tables at once, (tables, systems, systems) -> (tables, systems); NaN: not finite."""
    found = np.full(wins.shape[:2], np.nan)
    left = np.flatnonzero(_connected(wins))
    played, total = (wins + wins.swapaxes(1, 2))[left], wins[left].sum(2)
    p = np.ones(total.shape)
    for _ in range(_ROUNDS):
        if not len(left):
            break
        new = total / (played / (p[:, :, None] + p[:, None, :])).sum(2)
        new /= np.exp(np.log(new).mean(1, keepdims=True))
        done = np.abs(np.log(new / p)).max(1) < close
        found[left] = np.log(new)
        left, played, total, p = left[~done], played[~done], total[~done], new[~done]
    return found


def _connected(wins: Array) -> NDArray[np.bool_]:
    """Whether from each system a chain of wins leads to every other, (tables, systems, systems) -> (tables,)."""
    size = wins.shape[-1]
    reached = (wins > 0) | np.eye(size, dtype=bool)
    for _ in range(size.bit_length()):
        reached = reached @ reached
    return np.asarray(reached.all((1, 2)))


def _intervals(
    sums: Array, size: int, draws: int, seed: int
) -> tuple[Sequence[Interval | None], Sequence[Interval | None]]:
    """Of win rates and of strengths."""
    if not draws or len(sums) < 2:
        return [None] * size, [None] * size
    drawn = resampled(sums, draws=draws, seed=seed).reshape(-1, size, size)
    step = max(1, _AT_ONCE // size**2)
    parts = [_strengths(drawn[start : start + step], _CLOSE_DRAW) for start in range(0, len(drawn), step)]
    rates, strengths = win_rates(drawn), np.concatenate(parts)
    return [interval(rates[:, i]) for i in range(size)], [interval(strengths[:, i]) for i in range(size)]
