from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import tyro

from evaluators.errors import ConfigError


@dataclass(frozen=True)
class PowerCommand:
    """How many labelled samples tell two judges apart (McNemar's exact test), before money is spent.

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
    wanted = tyro.cli(PowerCommand, args=list(argv), prog=prog)
    from evaluators.statistics.planning import discordant, power, samples_needed

    first, second, correlation = _judges(wanted)
    shares = discordant(first, second, correlation)
    needed = samples_needed(shares, wanted=wanted.power, level=wanted.level)
    print(f"judges      accuracy {first:.4f} and {second:.4f}, errors correlated {correlation:.3f}")
    print(f"apart       only the first right {shares.only_first:.2%}, only the second {shares.only_second:.2%}")
    for samples in sorted({50, 200, 500, 1000, 2553}):
        print(f"  {samples:>6,} samples: power {power(shares, samples, level=wanted.level):.3f}")
    print(f"needed      {needed:,} samples for power {wanted.power:g} at level {wanted.level:g}")
    return 0


def _judges(wanted: PowerCommand) -> tuple[float, float, float]:
    from evaluators.statistics.planning import error_correlation, expected_accuracy

    if wanted.accuracies is not None:
        return (*wanted.accuracies, 0.5 if wanted.correlation is None else wanted.correlation)
    if wanted.pilot is not None:
        from evaluators.running.judged import read_run
        from evaluators.statistics.compare import compare

        found = compare(*(read_run(name, flag="--pilot") for name in wanted.pilot), draws=100)
        if found["error_correlation"] is None:
            raise ConfigError("--pilot: one of the judges is always right or always wrong; judge more samples")
        accuracy = found["difference"]["accuracy"]
        return accuracy["first"], accuracy["second"], found["error_correlation"]
    from evaluators.judges.simulated import parse_population

    population = parse_population(wanted.population or "", flag="--population ")
    first, second = (expected_accuracy(population, width) for width in wanted.widths)
    return first, second, error_correlation(population, wanted.widths)
