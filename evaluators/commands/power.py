from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from evaluators import command_line
from evaluators.errors import ConfigError
from evaluators.saying import say

if TYPE_CHECKING:
    from evaluators.statistics.planning import Discordant


@dataclass(frozen=True)
class PowerCommand:
    """How many labelled samples tell two judges apart (McNemar's test), before money is spent.

    Give both accuracies with the correlation of errors; or --pilot, two runs in which they are measured; or
    --population, a simulated one (as in --judge simulated:...) at two --widths.
    """

    accuracies: tuple[float, float] | None = None
    """Of the two judges, each between 0 and 1."""
    correlation: float | None = None
    """Of their errors (phi); 0 for unrelated ones, which needs most samples. 0.5 if not given."""
    pilot: tuple[str, str] | None = None
    """Folders of two runs on the same labelled samples."""
    population: str | None = None
    """Such as gap=1,sample=0.7,role=1,review=1."""
    widths: tuple[int, int] = (1, 8)
    """Of --population: neurons of the two networks."""
    power: float = 0.8
    """Chance of finding the difference."""
    level: float = 0.05
    """Chance of finding one where there is none, at most."""

    def __post_init__(self) -> None:
        given = [name for name in ("accuracies", "pilot", "population") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ConfigError(f"give one of --accuracies, --pilot and --population; {len(given)} given")
        if self.correlation is not None and self.accuracies is None:
            raise ConfigError("--correlation: belongs to --accuracies; the others find it themselves")
        for value in self.accuracies or ():
            if not 0 < value < 1:
                raise ConfigError(f"--accuracies {value:g}: must be between 0 and 1")
        for name in ("power", "level"):
            if not 0 < getattr(self, name) < 1:
                raise ConfigError(f"--{name} {getattr(self, name):g}: must be between 0 and 1")
        if min(self.widths) < 1:
            raise ConfigError(f"--widths {min(self.widths)}: must be at least 1")


def main(argv: Sequence[str], *, prog: str) -> int:
    """`depthlab judge power`. Raises UserError for impossible judges."""
    wanted = command_line.read(PowerCommand, argv, prog=prog)
    from evaluators.statistics.planning import rejections, samples_needed

    shares, effect = _pilot(wanted.pilot) if wanted.pilot is not None else (_shares(wanted), None)
    needed = samples_needed(shares, wanted=wanted.power, level=wanted.level)
    say(f"apart       only the first right {shares.only_first:.2%}, only the second {shares.only_second:.2%}")
    say("power       chance of finding the better judge better; in brackets, of finding the worse one better")
    for samples in (50, 200, 500, 1000, 2553):
        found = rejections(shares, samples, level=wanted.level)
        say(f"  {samples:>6,} samples: {found.right:.3f} ({found.wrong:.4f})")
    told = f"for power {wanted.power:g} at level {wanted.level:g}"
    say(f"needed      {needed:,} samples, each of a query of its own, {told}")
    if effect is not None and effect > 1:
        more = f"{math.ceil(needed * effect):,}"
        say(f"            {more} where queries have samples as in the pilot (design effect {effect:.2f})")
    return 0


def _pilot(folders: tuple[str, str]) -> tuple[Discordant, float | None]:
    """The shares of samples that one judge alone has right, and the design effect of their difference."""
    from evaluators.running.judged import read_run
    from evaluators.statistics.compare import compare
    from evaluators.statistics.planning import Discordant

    found = compare(*(read_run(name, flag="--pilot") for name in folders), draws=100)
    first, second, n = found["only_first_right"], found["only_second_right"], found["samples"]
    if first == second:
        raise ConfigError(
            f"--pilot {' '.join(folders)}: of {n:,} samples, the first alone has {first:,} right and the second as "
            "many: nothing to plan a difference from; judge more samples, or give --accuracies"
        )
    say(
        f"pilot       {n:,} samples of {found['queries']:,} queries: the first alone has {first:,} right, the second "
        f"{second:,}; what follows takes these shares for exact"
    )
    return Discordant(first / n, second / n), found["design_effect"]


def _shares(wanted: PowerCommand) -> Discordant:
    from evaluators.statistics.planning import discordant, error_correlation, expected_accuracy

    if wanted.accuracies is not None:
        first, second = wanted.accuracies
        correlation = 0.5 if wanted.correlation is None else wanted.correlation
    else:
        from evaluators.judges.simulated import parse_population

        population = parse_population(wanted.population or "", flag="--population ")
        first, second = (expected_accuracy(population, width) for width in wanted.widths)
        correlation = error_correlation(population, wanted.widths)
    shares = discordant(first, second, correlation)
    say(f"judges      accuracy {first:.4f} and {second:.4f}, errors correlated {correlation:.3f}")
    return shares
