"""A ranking of systems from pairwise verdicts (Bradley & Terry 1952); a tie is half a win for each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from evaluators.errors import RunError

_ROUNDS = 10_000
_CLOSE = 1e-10


@dataclass(frozen=True)
class Standing:
    """A system's place."""

    system: str
    win_rate: float
    """Wins and half the ties, over its comparisons."""
    games: int
    strength: float | None
    """s, mean 0 over the systems: P(i beats j) = 1 / (1 + exp(s_j - s_i)). None: not finite, see `bradley_terry`."""


def leaderboard(games: Sequence[tuple[str, str, int | None]]) -> list[Standing]:
    """Systems, best first, from (system 1, system 2, winner 1, 2 or 0); unscored games (None) do not count.

    Raises:
        RunError: no game with a verdict, or a system plays against itself.
    """
    counted = [game for game in games if game[2] is not None]
    if not counted:
        raise RunError("no comparison of two systems has a verdict")
    if own := [one for one, other, _ in counted if one == other]:
        raise RunError(f"system {own[0]!r} is compared with itself")
    names = sorted({name for one, other, _ in counted for name in (one, other)})
    at = {name: index for index, name in enumerate(names)}
    wins = np.zeros((len(names), len(names)))
    for one, other, winner in counted:
        share = {1: 1.0, 2: 0.0, 0: 0.5}[winner or 0]
        wins[at[one], at[other]] += share
        wins[at[other], at[one]] += 1 - share
    played = (wins + wins.T).sum(1)
    strengths = bradley_terry(wins)
    standings = [
        Standing(
            name,
            float(wins[i].sum() / played[i]),
            int(played[i]),
            None if strengths is None else float(strengths[i]),
        )
        for name, i in at.items()
    ]
    return sorted(standings, key=lambda s: (-s.win_rate if s.strength is None else -s.strength, s.system))


def bradley_terry(wins: np.ndarray) -> np.ndarray | None:
    """Maximum-likelihood log strengths, mean 0, by Hunter's MM algorithm (2004, eq. 3).

    Args:
        wins: (systems, systems), wins of the row over the column.

    Returns:
        None where they are not finite: some group of systems never lost to the rest (Ford 1957).
    """
    from scipy.sparse.csgraph import connected_components

    if connected_components(wins > 0, directed=True, connection="strong")[0] > 1:
        return None
    played = wins + wins.T
    total = wins.sum(1)
    p = np.ones(len(wins))
    for _ in range(_ROUNDS):
        new = total / (played / (p[:, None] + p)).sum(1)
        new /= np.exp(np.log(new).mean())
        done = np.abs(np.log(new / p)).max() < _CLOSE
        p = new
        if done:
            break
    return np.log(p)
