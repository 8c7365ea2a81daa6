"""What each layer does, from the diagnostics' records. Definitions and sources: docs/diagnostics.md."""

from __future__ import annotations

from typing import Any

from lab.report.drawing import line, line_drawing, lines_over_steps, maps_over_steps, pooled
from lab.report.registry import Context, Drawing, figure

SECTION = "Layers"
STREAM = "residual stream h_l, after layer l"


@figure(
    "variance",
    section=SECTION,
    title="Variance by depth",
    shows="How the residual stream grows. A straight line here is exponential growth: deep layers then add little.",
    unit="activation²",
    definition="Variance over the features of h_l, before the final norm: median and mean over tokens.",
    source="arXiv:2502.05795; massive activations, which swamp the mean: arXiv:2402.17762",
)
def variance(context: Context) -> Drawing | None:
    """Variance of h_l over l."""
    names = {"variance/stream_median": "median", "variance/stream_mean": "mean"}
    return lines_over_steps(context, names, axis=STREAM, unit="variance, activation²", logarithmic=True)


@figure(
    "angular",
    section=SECTION,
    title="Angular distance between layers",
    shows="How far layers turn the stream. Look for a dark band: a run of layers that hardly changes it can be pruned.",
    unit="1/pi rad",
    definition="arccos(cos(h_l, h_m)) / pi of the same token, mean over tokens, for l < m; 0 is the same direction.",
    source="arXiv:2403.17887",
)
def angular(context: Context) -> Drawing | None:
    """Angle between h_l and h_m."""
    return maps_over_steps(
        context, "angular/distance", across="to h_m", down="from h_l", unit="angle / pi", triangle=True
    )


@figure(
    "removal",
    section=SECTION,
    title="Removal cost by layer",
    shows="What the model loses without a layer. Look for layers at zero (idle) or below (better without).",
    unit="nats/token",
    definition="Loss with layer l skipped, minus the loss of the whole model, on the probe.",
    source="arXiv:2403.17887, arXiv:2412.13795",
)
def removal(context: Context) -> Drawing | None:
    """Loss increase without layer l."""
    return lines_over_steps(context, {"removal/increase": "increase"}, axis="layer", unit="nats/token")


@figure(
    "removal_blocks",
    section=SECTION,
    title="Removal cost of runs of layers",
    shows="What a run of layers costs together. Look for long runs that stay dark: those can go.",
    unit="nats/token",
    definition="Loss with layers l .. l + n - 1 skipped, minus that of the whole model (--removal-max N).",
    source="arXiv:2403.17887",
)
def removal_blocks(context: Context) -> Drawing | None:
    """Loss increase without layers l .. l + n - 1."""
    return maps_over_steps(context, "removal/block_increase", across="removed", down="first layer", unit="nats/token")


@figure(
    "lens",
    section=SECTION,
    title="Logit lens: loss",
    shows="How good a guess each depth already makes. Look for where the curve falls: there the prediction is made.",
    unit="nats/token",
    definition="Loss when h_l is decoded with the final norm and the head, mean over predicted tokens.",
    source="logit lens; arXiv:2303.08112",
)
def lens(context: Context) -> Drawing | None:
    """Loss of h_l decoded."""
    return lines_over_steps(context, {"lens/loss": "loss"}, axis=STREAM, unit="nats/token")


@figure(
    "lens_kl",
    section=SECTION,
    title="Logit lens: distance to the output",
    shows="How far each depth is from the model's output. Look for a late drop: only the last layers decide.",
    unit="nats/token",
    definition="KL divergence from the model's own distribution to that decoded from h_l.",
    source="arXiv:2303.08112",
)
def lens_kl(context: Context) -> Drawing | None:
    """KL of h_l decoded."""
    return lines_over_steps(context, {"lens/kl": "KL"}, axis=STREAM, unit="nats/token")


@figure(
    "rank",
    section=SECTION,
    title="Effective rank",
    shows="How many directions the stream uses. Look for a collapse with depth.",
    unit="directions",
    definition="exp of the entropy of the normalised singular values of the matrix tokens x features, not centred.",
    source="Roy and Vetterli 2007",
)
def rank(context: Context) -> Drawing | None:
    """Effective rank of h_l."""
    return lines_over_steps(context, {"rank/effective_rank": "rank"}, axis=STREAM, unit="directions")


@figure(
    "anisotropy",
    section=SECTION,
    title="Anisotropy",
    shows="How alike different tokens are. Look for values near 1: all tokens then point the same way.",
    unit="1",
    definition="Cosine between h_l of two different tokens, mean over all pairs.",
    source="arXiv:1909.00512",
)
def anisotropy(context: Context) -> Drawing | None:
    """Mean cosine between tokens."""
    return lines_over_steps(context, {"rank/anisotropy": "cosine"}, axis=STREAM, unit="cosine")


@figure(
    "jacobian",
    section=SECTION,
    title="Jacobian distance from the identity",
    shows="How much a layer reacts to its input. Look for layers near zero: they pass the stream through.",
    unit="1",
    definition="‖J - I‖² / (T D), Frobenius, of J = dh_l / dh_(l-1) over a block of T tokens of width D.",
    source="arXiv:2502.05795; estimated from random directions, docs/diagnostics.md",
)
def jacobian(context: Context) -> Drawing | None:
    """Distance of the Jacobian of layer l from I."""
    return lines_over_steps(context, {"jacobian/distance": "distance"}, axis="layer", unit="‖J - I‖² / (T D)")


@figure(
    "gradients",
    section=SECTION,
    title="Gradient norm on the probe",
    shows="Which layers the loss would change. Look for a slope over depth: a flat line is a balanced model.",
    unit="nats/token",
    definition="L2 norm, over a layer's weights, of the gradient of the mean loss over the probe.",
    source="arXiv:2002.04745, arXiv:2412.13795",
)
def gradients(context: Context) -> Drawing | None:
    """Gradient norm of layer l."""
    return lines_over_steps(context, {"gradients/layer": "gradient"}, axis="layer", unit="nats/token", logarithmic=True)


@figure(
    "sparsity",
    section=SECTION,
    title="Sparsity: all layers pruned",
    shows="What pruning costs. Look for the level at which the curve bends: how many weights the model does without.",
    unit="nats/token",
    definition="Loss with the lowest-scoring weights of every linear map at zero, minus that of the whole model.",
    source="magnitude: arXiv:1506.02626; Wanda: arXiv:2306.11695",
)
def sparsity(context: Context) -> Drawing | None:
    """Loss increase over the level, by method."""

    def traces(step: int | None) -> list[dict[str, Any]]:
        found = []
        for number, group in enumerate(context.groups):
            figure = pooled(group, "sparsity/all_increase", step)
            if figure is None:
                continue
            prefix = f"{group.label}, " if len(context.groups) > 1 else ""
            for part, method in enumerate(figure.axes["method"]):
                spread = None if figure.spread is None else figure.spread[part]
                levels = [str(level) for level in figure.axes["level"]]
                found.append(line(f"{prefix}{method}", levels, figure.values[part], spread, number, part))
        return found

    drawing = line_drawing(context, traces, axis="share of weights at zero, or pattern", unit="nats/token")
    if drawing is not None:
        drawing.layout["xaxis"]["type"] = "category"
    return drawing


@figure(
    "sparsity_layers",
    section=SECTION,
    title="Sparsity: one layer pruned",
    shows="Which layer bears pruning. Look for layers at zero: their small weights do nothing.",
    unit="nats/token",
    definition="Loss with the lowest-scoring weights of layer l alone at zero, at the first level measured.",
    source="magnitude: arXiv:1506.02626; Wanda: arXiv:2306.11695",
)
def sparsity_layers(context: Context) -> Drawing | None:
    """Loss increase when layer l is pruned, by method."""

    def traces(step: int | None) -> list[dict[str, Any]]:
        found = []
        for number, group in enumerate(context.groups):
            figure = pooled(group, "sparsity/increase", step)
            if figure is None:
                continue
            prefix = f"{group.label}, " if len(context.groups) > 1 else ""
            for part, method in enumerate(figure.axes["method"]):
                spread = None if figure.spread is None else figure.spread[:, part, 0]
                name = f"{prefix}{method} {figure.axes['level'][0]}"
                found.append(line(name, figure.axes["layer"], figure.values[:, part, 0], spread, number, part))
        return found

    return line_drawing(context, traces, axis="layer", unit="nats/token")


@figure(
    "attention_entropy",
    section=SECTION,
    title="Attention entropy",
    shows="How widely heads look. Look for dark heads: they look at one token only.",
    unit="nats",
    definition="Entropy of a head's attention, mean over tokens that have a choice.",
    source="docs/diagnostics.md",
)
def attention_entropy(context: Context) -> Drawing | None:
    """Entropy by layer and head."""
    return maps_over_steps(context, "attention/entropy", across="head", down="layer", unit="nats")


@figure(
    "attention_first",
    section=SECTION,
    title="Attention on the first token",
    shows="Attention sinks. Look for bright heads: they rest on the first token and do little else.",
    unit="1",
    definition="Share of a head's attention on the first token of the document, mean over the other tokens.",
    source="arXiv:2309.17453",
)
def attention_first(context: Context) -> Drawing | None:
    """Mass on the first token by layer and head."""
    return maps_over_steps(context, "attention/first_token", across="head", down="layer", unit="share")


@figure(
    "stable_rank",
    section=SECTION,
    title="Stable rank of the weights",
    shows="How many directions each weight matrix uses. Look for matrices that lose rank as training goes on.",
    unit="directions",
    definition="‖W‖_F² / σ_1² of each weight matrix of each layer.",
    source="Rudelson and Vershynin 2007, arXiv:math/0503442",
)
def stable_rank(context: Context) -> Drawing | None:
    """Stable rank by layer and weight."""
    return maps_over_steps(
        context, "spectra/stable_rank", across="weight", down="layer", unit="directions", shown=_short
    )


def _short(weights: list[str]) -> list[str]:
    """`self_attn.q_proj:q` -> `q_proj`, or `q_proj:q` where that tells maps in one weight apart."""
    last = [weight.partition(":")[0].rpartition(".")[2] for weight in weights]
    if len(set(last)) == len(last):
        return last
    with_role = [weight.rpartition(".")[2] for weight in weights]
    return with_role if len(set(with_role)) == len(with_role) else weights
