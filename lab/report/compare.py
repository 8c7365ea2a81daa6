"""Several runs: those that differ by their seed only are pooled; what they end with, and how groups differ."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from lab.report.read import Run

CONFIDENCE = 0.95
ROUNDING = 1e-12
"""Figures that are relatively closer differ by the order of their sums only."""
SEED = "train.seed"
_NO_MATTER = ("run_dir", "resume", "log.", "checkpoint.", "data.workers", "data.cache_dir", "data.heldout_blocks")
"""Settings that say where and how often things are written; they change nothing that is computed."""

FINAL = {
    "eval/loss": ("held-out loss", "nats/token"),
    "eval/loss_se": ("its standard error over documents", "nats/token"),
    "eval/bits_per_byte": ("held-out bits", "bits/byte"),
    "train/loss": ("training loss, median of the last tenth", "nats/token"),
    "train/grad_norm": ("gradient norm, median of the last tenth", "nats/token"),
    "train/tokens_per_second": ("throughput, median of the last tenth", "tokens/s"),
}
"""Metric -> name and unit in the table of final figures; those of the diagnostics' summary follow."""


@dataclass(frozen=True)
class Interval:
    """A mean over seeds."""

    mean: float
    half_width: float | None
    """Of the 95 % interval; None for one seed, of which nothing can be told."""
    count: int


@dataclass(frozen=True)
class Group:
    """Runs that differ by seed only, or one run."""

    label: str
    runs: tuple[Run, ...]


@dataclass(frozen=True)
class Final:
    """One figure at the end of the runs, for each group."""

    name: str
    label: str
    unit: str
    values: list[Interval | None]
    differences: list[Interval | None]
    """Group minus the first group; None for the first, and where either has no value."""


def interval(values: Sequence[float]) -> Interval:
    """Mean and Student's t interval of independent values: mean +- t_(n-1, 0.975) s / sqrt(n)."""
    n, mean = len(values), float(np.mean(values))
    if n < 2:
        return Interval(mean, None, n)
    half = stats.t.ppf((1 + CONFIDENCE) / 2, n - 1) * np.std(values, ddof=1) / math.sqrt(n)
    return Interval(mean, float(half), n)


def difference(values: Sequence[float], first: Sequence[float]) -> Interval:
    """Mean of `values` minus mean of `first`, with Welch's (1947) interval for unequal variances.

    `count` is the smaller number of seeds; no interval if it is 1.
    """
    one, other, least = float(np.mean(values)), float(np.mean(first)), min(len(values), len(first))
    mean = 0.0 if math.isclose(one, other, rel_tol=ROUNDING) else one - other
    if least < 2:
        return Interval(mean, None, least)
    a, b = np.var(values, ddof=1) / len(values), np.var(first, ddof=1) / len(first)
    if a + b == 0:
        return Interval(mean, 0.0, least)
    freedom = (a + b) ** 2 / (a**2 / (len(values) - 1) + b**2 / (len(first) - 1))
    return Interval(mean, float(stats.t.ppf((1 + CONFIDENCE) / 2, freedom) * math.sqrt(a + b)), least)


def config_differences(runs: Sequence[Run]) -> dict[str, list[Any]]:
    """Setting -> its value in each run, of the settings that differ between runs; None where a run lacks it."""
    keys = list(dict.fromkeys(key for run in runs for key in run.config))
    differing = {}
    for key in keys:
        values = [run.config.get(key) for run in runs]
        if key not in ("run_dir", "resume") and any(value != values[0] for value in values):
            differing[key] = values
    return differing


def grouped(runs: Sequence[Run]) -> list[Group]:
    """Groups in the order of their first runs. Runs of one config are pooled if their seeds are all different: the same
    seed twice is no independent run."""
    pools: dict[Any, list[Run]] = {}
    for number, run in enumerate(runs):
        key: Any = _essence(run) if run.config and run.metrics and run.seed is not None else number
        if key in pools and run.seed in [other.seed for other in pools[key]]:
            key = number
        pools.setdefault(key, []).append(run)
    firsts = [pool[0] for pool in pools.values()]
    differing = [key for key in config_differences(firsts) if key != SEED and not key.startswith(_NO_MATTER)]
    groups = [Group(_label(pool, differing), tuple(pool)) for pool in pools.values()]
    labels = [group.label for group in groups]
    return [
        group if labels.count(group.label) == 1 else Group(f"{group.label}: {group.runs[0].name}", group.runs)
        for group in groups
    ]


def _essence(run: Run) -> str:
    kept = {key: value for key, value in run.config.items() if key != SEED and not key.startswith(_NO_MATTER)}
    return repr(sorted(kept.items()))


def _label(pool: list[Run], differing: list[str]) -> str:
    if len(pool) == 1:
        return pool[0].name
    values = [str(pool[0].config.get(key)) for key in differing if pool[0].config.get(key) is not None]
    return f"{', '.join(values[:3]) or pool[0].name} ({len(pool)} seeds)"


def final_figures(groups: Sequence[Group]) -> list[Final]:
    """What each group ends with, and its difference to the first group; figures that no group has are left out."""
    found = []
    summaries = {name: figure.unit for group in groups for run in group.runs for name, figure in _summary(run).items()}
    known = FINAL | {name: (name.replace("_", " "), unit) for name, unit in summaries.items()}
    for name, (label, unit) in known.items():
        samples = [[value for run in group.runs if (value := _end(run, name)) is not None] for group in groups]
        if not any(samples):
            continue
        values = [interval(sample) if sample else None for sample in samples]
        differences = [
            difference(sample, samples[0]) if number and sample and samples[0] else None
            for number, sample in enumerate(samples)
        ]
        found.append(Final(name, label, unit, values, differences))
    return found


def _summary(run: Run) -> dict[str, Any]:
    return list(run.records.values())[-1].summary if run.records else {}


def _end(run: Run, name: str) -> float | None:
    if name in FINAL:
        value = run.recent(name) if name.startswith("train/") else run.last(name)
    else:
        figure = _summary(run).get(name)
        value = None if figure is None else float(figure.values)
    return value if value is not None and math.isfinite(value) else None


def notices(groups: Sequence[Group]) -> list[str]:
    """What keeps the comparison from being one."""
    runs = [run for group in groups for run in group.runs]
    told = []
    if len(groups) > 1 and all(len(group.runs) == 1 for group in groups):
        told.append("One seed each: differences have no interval, and may be those of other seeds.")
    probes = {record.probe.id for run in runs for record in run.records.values()}
    if len(runs) > 1 and len(probes) > 1:
        told.append("The runs were diagnosed on different probes: their diagnostics differ partly by text.")
    ends = {run.metrics[-1].get("step") for run in runs if run.metrics}
    if len(ends) > 1:
        told.append(f"The runs stand at different steps ({', '.join(map(str, sorted(ends, key=str)))}).")
    return told
