"""What happened in training, from `metrics.jsonl`."""

from __future__ import annotations

from typing import Any

import numpy as np

from lab.report.compare import Group, interval
from lab.report.drawing import Map, line, line_drawing, map_drawing
from lab.report.registry import Context, Drawing, figure

POINTS = 1000
"""A longer curve is drawn with the smallest and the largest value of each of half as many stretches: spikes stay."""
COLUMNS = 200
"""A longer heat map is drawn with every k-th measurement."""
NORMAL_95 = 1.96
"""Half of a 95 % interval in standard errors."""


def thinned(steps: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """At most `POINTS` points of a curve, its ends and extremes among them."""
    if len(steps) <= POINTS:
        return steps, values
    kept = {0, len(steps) - 1}
    for stretch in np.array_split(np.arange(len(steps)), POINTS // 2 - 1):
        if np.isfinite(values[stretch]).any():
            kept |= {int(stretch[np.nanargmin(values[stretch])]), int(stretch[np.nanargmax(values[stretch])])}
    index = sorted(kept)
    return steps[index], values[index]


def _curve(group: Group, name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Steps, values, and half of the 95 % interval at the steps that all runs have: over seeds, or of one run by the
    standard error that it wrote beside the metric."""
    series = [dict(zip(*run.series(name), strict=True)) for run in group.runs]
    series = [values for values in series if values]
    if not series:
        return np.array([]), np.array([]), None
    common = sorted(set.intersection(*(set(values) for values in series)))
    steps = np.array(common)
    if len(series) == 1:
        errors = {step: error for run in group.runs for step, error in zip(*run.series(f"{name}_se"), strict=True)}
        spread = np.array([NORMAL_95 * errors.get(step, np.nan) for step in common]) if errors else None
        return steps, np.array([series[0][step] for step in common]), spread
    found = [interval([values[step] for values in series]) for step in common]
    return steps, np.array([one.mean for one in found]), np.array([one.half_width for one in found], dtype=np.float64)


def curves(context: Context, name: str, unit: str, *, logarithmic: bool = False) -> Drawing | None:
    """A metric over steps, a line for each group."""

    def traces(step: int | None) -> list[dict[str, Any]]:
        found = []
        for number, group in enumerate(context.groups):
            steps, values, spread = _curve(group, name)
            if not len(steps):
                continue
            x, y = thinned(steps, values)
            shown = None if spread is None or len(steps) > 60 else spread
            found.append(line(group.label, x.tolist(), y, shown, number))
        return found

    return line_drawing(context, traces, axis="step", unit=unit, logarithmic=logarithmic, once=True)


def by_layer(context: Context, name: str, unit: str, *, logarithmic: bool = False) -> Drawing | None:
    """A metric by layer over steps, such as `grad_norm`, or its log10: a heat map for each group."""

    def maps(step: int | None) -> list[Map | None]:
        return [_layers_over_steps(group, f"{name}/layer_", logarithmic) for group in context.groups]

    return map_drawing(context, maps, across="step", down="layer", unit=unit, once=True)


def _layers_over_steps(group: Group, prefix: str, logarithmic: bool) -> Map | None:
    """The mean over the runs of a group, at the steps that all of them have."""
    names = sorted({name for run in group.runs for entry in run.metrics for name in entry if name.startswith(prefix)})
    runs = [[dict(zip(*run.series(name), strict=True)) for name in names] for run in group.runs]
    runs = [layers for layers in runs if all(layers)]
    if not names or not runs:
        return None
    steps = sorted(set.intersection(*(set(layer) for layers in runs for layer in layers)))
    steps = steps[:: -(-len(steps) // COLUMNS)] if steps else steps
    values = np.array([[[layer[step] for step in steps] for layer in layers] for layers in runs])
    with np.errstate(divide="ignore", invalid="ignore"):
        values = (np.log10(values) if logarithmic else values).mean(0)
    values = np.where(np.isfinite(values), values, np.nan)
    return group.label, steps, [int(name.removeprefix(prefix)) for name in names], values


@figure(
    "loss",
    section="Training",
    title="Training loss",
    shows="Loss of each step. Look for spikes, and for a slope that has not flattened yet.",
    unit="nats/token",
    definition="Cross-entropy summed over the step's targets on all processes, divided by their number.",
    source="metrics.jsonl, train/loss",
)
def loss(context: Context) -> Drawing | None:
    """Training loss over steps."""
    return curves(context, "train/loss", "nats/token")


@figure(
    "heldout_loss",
    section="Training",
    title="Held-out loss",
    shows="Loss on text that is not trained on. Look for a curve that turns up while the training loss falls.",
    unit="nats/token",
    definition="Cross-entropy over all targets of the held-out blocks, divided by their number. Bars: 95 % interval "
    "over seeds; of a single run over held-out documents (1.96 standard errors).",
    source="metrics.jsonl, eval/loss and eval/loss_se",
)
def heldout_loss(context: Context) -> Drawing | None:
    """Held-out loss over steps."""
    return curves(context, "eval/loss", "nats/token")


@figure(
    "grad_norm",
    section="Training",
    title="Gradient norm",
    shows="Size of the whole gradient before clipping. Look for spikes: they come before a loss that diverges.",
    unit="nats/token",
    definition="L2 norm of the gradient of the step's mean loss over all parameters, before clipping.",
    source="metrics.jsonl, train/grad_norm",
)
def grad_norm(context: Context) -> Drawing | None:
    """Gradient norm over steps."""
    return curves(context, "train/grad_norm", "nats/token", logarithmic=True)


@figure(
    "learning_rate",
    section="Training",
    title="Learning rate",
    shows="The schedule that was run. Look whether the curves above change where it does.",
    unit="1",
    definition="Learning rate of the step.",
    source="metrics.jsonl, train/lr",
)
def learning_rate(context: Context) -> Drawing | None:
    """Learning rate over steps."""
    return curves(context, "train/lr", "learning rate")


@figure(
    "throughput",
    section="Training",
    title="Throughput",
    shows="Tokens trained on in a second. Look for dips: data that is waited for, checkpoints, other users.",
    unit="tokens/s",
    definition="Targets of the step over all processes, divided by the seconds that it took.",
    source="metrics.jsonl, train/tokens_per_second",
)
def throughput(context: Context) -> Drawing | None:
    """Throughput over steps."""
    return curves(context, "train/tokens_per_second", "tokens/s")


@figure(
    "aux_loss",
    section="Training",
    title="Load-balancing loss",
    shows="How unevenly tokens are sent to experts. Look for a curve that rises: experts die.",
    unit="1",
    definition="E times the sum over experts of (share of the tokens) x (mean probability), over all layers together.",
    source="metrics.jsonl, train/aux_loss; arXiv:2101.03961",
)
def aux_loss(context: Context) -> Drawing | None:
    """Load-balancing loss over steps."""
    return curves(context, "train/aux_loss", "1")


@figure(
    "router_load",
    section="Training",
    title="Busiest expert by layer",
    shows="How many tokens the busiest expert gets. Look for layers far from 1: most of their experts are idle.",
    unit="times the even share",
    definition="Tokens of a layer's busiest expert, in times its even share.",
    source="metrics.jsonl, router_load/layer_*; arXiv:2101.03961",
)
def router_load(context: Context) -> Drawing | None:
    """Load of the busiest expert by layer and step."""
    return by_layer(context, "router_load", "times the even share")
