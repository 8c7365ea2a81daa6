"""Studies whose truth is known: how often intervals hold it, and tests find what is there, or is not.

`python -m tests.evaluators.statistics.study` prints the tables of docs/trusting_the_judge.md. Nothing here is computed
with the project's code but the figures under test.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evaluators.statistics.compare import paired
from evaluators.statistics.figures import of_verdicts
from evaluators.statistics.intervals import LOG, Interval, draw, share, smooth
from evaluators.statistics.leaderboard import Game, leaderboard

Labels = NDArray[np.int64]
COMMON = (0.2, 0.45, 0.35)
"""Shares of ties, of 1 and of 2 among people's labels."""
RARE = (0.02, 0.53, 0.45)


@dataclass(frozen=True)
class Design:
    """So many queries with so many samples each; a query has a chance of being judged right of its own."""

    queries: int
    samples: int
    alike: float = 1.0
    """Correlation of being right of two samples of a query: 0 for unrelated ones, 1 for all right or all wrong."""
    people: tuple[float, float, float] = COMMON

    @property
    def clusters(self) -> list[str]:
        """Of each sample."""
        return [f"q{number // self.samples}" for number in range(self.queries * self.samples)]

    def right(self, random: np.random.Generator, accuracy: float) -> NDArray[np.bool_]:
        """Which samples a judge has right, (queries, samples): beta-binomial."""
        if self.alike == 0 or accuracy in (0, 1):
            chance = np.full(self.queries, accuracy)
        elif self.alike == 1:
            chance = (random.random(self.queries) < accuracy).astype(float)
        else:
            size = (1 - self.alike) / self.alike
            chance = random.beta(accuracy * size, (1 - accuracy) * size, self.queries)
        return random.random((self.queries, self.samples)) < chance[:, None]

    def labels(self, random: np.random.Generator) -> Labels:
        """What people say, (queries, samples)."""
        return random.choice(3, (self.queries, self.samples), p=self.people)

    def verdicts(self, random: np.random.Generator, human: Labels, right: NDArray[np.bool_]) -> list[int]:
        """The label where right, one of the other two where not."""
        wrong = (human + random.integers(1, 3, human.shape)) % 3
        return np.where(right, human, wrong).ravel().tolist()

    def true_kappa(self, accuracy: float) -> float:
        """Of infinitely many samples."""
        people = np.array(self.people)
        said = accuracy * people + (1 - accuracy) / 2 * (1 - people)
        expected = float(people @ said)
        return (accuracy - expected) / (1 - expected)

    def true_macro_f1(self, accuracy: float) -> float:
        """Of infinitely many samples."""
        people = np.array(self.people)
        said = accuracy * people + (1 - accuracy) / 2 * (1 - people)
        return float((2 * accuracy * people / (people + said)).mean())


@dataclass
class Seen:
    """Of so many intervals, how many held the truth; and how many were withheld beside them."""

    given: int = 0
    held: int = 0
    withheld: int = 0

    def add(self, low: float | None, high: float | None, truth: float) -> None:
        """Count one."""
        if low is None or high is None:
            self.withheld += 1
            return
        self.given += 1
        self.held += low - 1e-12 <= truth <= high + 1e-12

    @property
    def coverage(self) -> float:
        """NaN where none was given."""
        return self.held / self.given if self.given else float("nan")


def shares(design: Design, accuracy: float, studies: int, seed: int = 11) -> Seen:
    """Coverage of a share's interval."""
    random, seen, clusters = np.random.default_rng(seed), Seen(), design.clusters
    for _ in range(studies):
        right = design.right(random, accuracy).ravel().astype(float)
        found = share(np.stack([right, np.ones_like(right)], axis=1), clusters)
        seen.add(found.low, found.high, accuracy)
    return seen


def agreement(design: Design, accuracy: float, studies: int, *, draws: int = 300, seed: int = 0) -> dict[str, Seen]:
    """Coverage of the intervals of accuracy, macro-F1 and kappa."""
    random, clusters = np.random.default_rng(seed), design.clusters
    truth = {"accuracy": accuracy, "macro_f1": design.true_macro_f1(accuracy), "kappa": design.true_kappa(accuracy)}
    seen = {name: Seen() for name in truth}
    for study in range(studies):
        human = design.labels(random)
        said = design.verdicts(random, human, design.right(random, accuracy))
        for name, figure in of_verdicts(human.ravel().tolist(), said, clusters, draws, study).items():
            seen[name].add(figure["low"], figure["high"], truth[name])
    return seen


@dataclass
class Compared:
    """Coverage of differences, and how often p <= 0.05, by the sign of the difference."""

    accuracy: Seen
    macro_f1: Seen
    kappa: Seen
    significant: Counter[bool]
    studies: int

    @property
    def rejected(self) -> float:
        """Share of the studies with a significant difference."""
        return self.significant.total() / self.studies

    @property
    def found(self) -> float:
        """Share of the studies that find the second judge better."""
        return self.significant[True] / self.studies


def compared(
    design: Design,
    accuracies: tuple[float, float],
    studies: int,
    *,
    copied: float = 0.5,
    draws: int = 300,
    seed: int = 0,
) -> Compared:
    """Two judges on the same samples.

    Args:
        copied: share of the queries in which an equally good second judge is right where the first is.
    """
    random, clusters = np.random.default_rng(seed), design.clusters
    first, second = accuracies
    truth = {
        "accuracy": second - first,
        "macro_f1": design.true_macro_f1(second) - design.true_macro_f1(first),
        "kappa": design.true_kappa(second) - design.true_kappa(first),
    }
    seen = {name: Seen() for name in truth}
    significant: Counter[bool] = Counter()
    for study in range(studies):
        human = design.labels(random)
        right = [design.right(random, accuracy) for accuracy in accuracies]
        if first == second:
            same = random.random((design.queries, 1)) < copied
            right[1] = np.where(same, right[0], right[1])
        said = [design.verdicts(random, human, side) for side in right]
        found = paired(human.ravel().tolist(), said[0], said[1], clusters, draws=draws, seed=study)
        for name, figure in found["difference"].items():
            seen[name].add(figure["low"], figure["high"], truth[name])
        if found["mcnemar_p"] <= 0.05:
            significant[found["difference"]["accuracy"]["difference"] > 0] += 1
    return Compared(**seen, significant=significant, studies=studies)


def strengths(queries: int, votes: int, studies: int, *, draws: int = 200, seed: int = 0) -> dict[str, Seen]:
    """Coverage of strengths and win rates of three systems: a query has a game of each pair, and all voters agree."""
    random, seen = np.random.default_rng(seed), {"strength": Seen(), "win rate": Seen()}
    true = {"a": 0.7, "b": 0.0, "c": -0.7}
    beats = {pair: 1 / (1 + np.exp(true[pair[1]] - true[pair[0]])) for pair in itertools.permutations(true, 2)}
    pairs = list(itertools.combinations(true, 2))
    clusters = [query for query in range(queries) for _ in range(votes * len(pairs))]
    for study in range(studies):
        games: list[Game] = []
        for _ in range(queries):
            for one, other in pairs:
                games += [(one, other, 1 if random.random() < beats[one, other] else 2)] * votes
        for item in leaderboard(games, clusters, draws=draws, seed=study):
            own = item.strength_interval or Interval()
            seen["strength"].add(own.low, own.high, true[item.system])
            rate = float(np.mean([beats[item.system, other] for other in true if other != item.system]))
            seen["win rate"].add(item.win_rate_interval.low, item.win_rate_interval.high, rate)
    return seen


def times_faster(queries: int, samples: int, studies: int, *, draws: int = 300, seed: int = 0) -> Seen:
    """Coverage of a ratio of mean seconds, 2 in truth: gamma times, a query's all longer or shorter together."""
    random, seen = np.random.default_rng(seed), Seen()
    clusters = [query for query in range(queries) for _ in range(2 * samples)]
    for study in range(studies):
        hard = np.repeat(random.gamma(4, 1 / 4, queries), 2 * samples)
        assisted = np.tile(np.repeat([1.0, 0.0], samples), queries)
        seconds = hard * random.gamma(2, np.where(assisted, 5.0, 10.0))
        rows = np.stack([seconds * assisted, assisted, seconds * (1 - assisted), 1 - assisted], axis=1)
        found = smooth(draw(rows, clusters, draws=draws, seed=study), _ratio, LOG)
        seen.add(found.low, found.high, 2.0)
    return seen


def _ratio(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(sums[..., 2] / sums[..., 3] * sums[..., 1] / sums[..., 0])


def _percent(value: float) -> str:
    return "-" if np.isnan(value) else f"{100 * value:.1f}"


def _rows(title: Sequence[str], rows: Iterator[Sequence[str]]) -> None:
    print("| " + " | ".join(title) + " |\n|" + "---|" * len(title))
    for row in rows:
        print("| " + " | ".join(row) + " |", flush=True)


def _named(design: Design) -> tuple[str, str, str]:
    return f"{design.queries} x {design.samples}", f"{design.alike:g}", "rare" if design.people == RARE else "common"


DESIGNS = (Design(20, 1, 0), Design(20, 4), Design(20, 10, 0.3), Design(80, 4), Design(80, 10, 0.3), Design(500, 1, 0))


def main() -> None:
    """All tables."""
    studies = {20: 2000, 80: 1000, 500: 500}
    of_shares = {20: 4000, 80: 4000, 500: 3000}
    _rows(
        ("queries x samples", "alike", *(f"share {p}" for p in (0.02, 0.1, 0.5, 0.9, 0.98))),
        (
            (
                *_named(design)[:2],
                *(_percent(shares(design, p, of_shares[design.queries]).coverage) for p in (0.02, 0.1, 0.5, 0.9, 0.98)),
            )
            for design in (*DESIGNS, Design(500, 4, 0.3), Design(500, 10))
        ),
    )
    _rows(
        ("queries x samples", "alike", "ties", "accuracy", "macro-F1", "kappa", "macro-F1 withheld"),
        (
            (
                *_named(design),
                *(_percent(seen.coverage) for seen in (found["accuracy"], found["macro_f1"], found["kappa"])),
                _percent(found["macro_f1"].withheld / studies[design.queries]),
            )
            for design in (*DESIGNS, Design(80, 4, 0.3, RARE), Design(500, 4, 1, RARE))
            for found in [agreement(design, 0.7, studies[design.queries])]
        ),
    )
    _rows(
        ("queries x samples", "alike", "ties", "accuracy", "macro-F1", "kappa", "false alarms", "power"),
        (
            (
                *_named(design),
                *(_percent(seen.coverage) for seen in (equal.accuracy, equal.macro_f1, equal.kappa)),
                _percent(equal.rejected),
                _percent(compared(design, (0.6, 0.75), studies[design.queries]).found),
            )
            for design in (*DESIGNS, Design(80, 4, 0.3, RARE), Design(500, 4))
            for equal in [compared(design, (0.7, 0.7), studies[design.queries])]
        ),
    )
    _rows(
        ("queries x votes", "strength", "win rate", "times faster"),
        (
            (
                f"{queries} x {votes}",
                *(_percent(seen.coverage) for seen in strengths(queries, votes, many).values()),
                _percent(times_faster(queries, votes, many).coverage),
            )
            for queries, votes, many in ((20, 1, 1000), (20, 4, 1000), (80, 4, 500), (500, 1, 300))
        ),
    )


if __name__ == "__main__":
    main()
