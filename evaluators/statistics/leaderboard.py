"""A ranking of systems from pairwise verdicts (Bradley & Terry 1952); a tie is half a win for each."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from evaluators.errors import RunError
from evaluators.statistics.bootstrap import DRAWS, Array, numbered, times_drawn
from evaluators.statistics.intervals import Interval, from_draws, share
from evaluators.statistics.strengths import Pairs

Game = tuple[str, str, int | None]
"""System 1, system 2, winner: 1, 2, 0 (tie) or None (unscored)."""
_SHARE = {1: 1.0, 2: 0.0, 0: 0.5}


@dataclass(frozen=True)
class Standing:
    """A system's place."""

    system: str
    win_rate: float
    """Wins and half the ties, over its comparisons."""
    win_rate_interval: Interval
    strength: float | None
    """s, mean 0 over the systems: P(i beats j) = 1 / (1 + exp(s_j - s_i)). None: not finite, see `strengths`."""
    strength_interval: Interval | None
    games: int
    wins: int
    ties: int
    losses: int


def leaderboard(
    games: Sequence[Game], clusters: Sequence[Hashable] | None = None, *, draws: int = DRAWS, seed: int = 0
) -> list[Standing]:
    """Systems, best first; unscored games do not count.

    Args:
        clusters: of each game, drawn together by the bootstrap; each game by itself if not given.

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
    sides = np.array([(at[one], at[other]) for (one, other, _), _ in counted])
    won = np.array([_SHARE[winner or 0] for (_, _, winner), _ in counted])
    group = numbered([group for _, group in counted])
    strengths, ends = _strengths(sides, won, group, len(names), draws, seed)
    standings = []
    for name, i in at.items():
        first, second = sides[:, 0] == i, sides[:, 1] == i
        score = np.concatenate([won[first], 1 - won[second]])
        rows = np.stack([score, np.ones_like(score)], axis=1)
        standings.append(
            Standing(
                name,
                float(score.mean()),
                share(rows, [*group[first], *group[second]]),
                None if strengths is None else float(strengths[i]),
                None if strengths is None else ends[i],
                games=len(score),
                wins=int((score == 1).sum()),
                ties=int((score == 0.5).sum()),
                losses=int((score == 0).sum()),
            )
        )
    return sorted(standings, key=lambda s: (-s.win_rate if s.strength is None else -s.strength, s.system))


def bradley_terry(wins: Array) -> Array | None:
    """Maximum-likelihood log strengths, mean 0, of one table.

    Args:
        wins: (systems, systems), wins of the row over the column.

    Returns:
        None where they are not finite: some group of systems never lost to the rest (Ford 1957).
    """
    one, other = np.nonzero(np.triu(wins + wins.T, 1))
    found = Pairs(one, other, len(wins)).strengths(np.stack([wins[one, other], wins[other, one]])[None])[0]
    return None if np.isnan(found).any() else found


def _strengths(
    sides: np.ndarray, won: Array, group: np.ndarray, systems: int, draws: int, seed: int
) -> tuple[Array | None, Sequence[Interval]]:
    """Strengths and their intervals; the games are kept sparse, as many columns as pairs that met."""
    from scipy.sparse import coo_array

    low, high = sides.min(1), sides.max(1)
    met, pair = np.unique(low * systems + high, return_inverse=True)
    pairs = Pairs(met // systems, met % systems, systems)
    score = np.where(sides[:, 0] == low, won, 1 - won)
    count = int(group.max()) + 1
    columns = np.concatenate([pair, pair + len(met)])
    shape = (count, 2 * len(met))
    sums = coo_array((np.concatenate([score, 1 - score]), (np.tile(group, 2), columns)), shape=shape).tocsr()
    total = np.asarray(sums.sum(0)).reshape(2, -1)
    found = pairs.strengths(total[None])[0]
    if np.isnan(found).any():
        return None, ()
    drawn = np.concatenate(
        [
            pairs.strengths((times @ sums).reshape(len(times), 2, -1), found)
            for times in times_drawn(count, draws=draws, seed=seed)
        ]
    )
    return found, [from_draws(float(s), drawn[:, i], count) for i, s in enumerate(found)]
