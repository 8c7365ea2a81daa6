"""The curse of depth in a few figures. `docs/diagnostics.md` says why these."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from lab.diagnostics.values import Figure

IDLE_NATS = 0.01
"""A layer whose removal raises the loss by less than this many nats a token counts as idle."""

Figures = Mapping[str, Mapping[str, Figure]]


def summarize(figures: Figures) -> dict[str, Figure]:
    """What the diagnostics at hand allow to say; every figure is a number.

    `variance_growth`, `variance_rate`, `variance_rate_r2`: of the median over tokens of Var h_l: h_L / h_1, and the
    slope and R^2 of a straight line through ln Var h_l against l; `variance_growth_mean` of the mean over tokens;
    `idle_layers`: share of layers whose removal costs less than `IDLE_NATS`;
    `deep_angle`: mean angle between h_(l-1) and h_l over pi, over the deeper half of the layers;
    `gradient_ratio`: gradient norm of layer 1 over that of layer L;
    `layers_used`: `depth_utilisation` of the removal costs; `layers_used_share`: the same over L.
    """
    found: dict[str, Figure] = {}

    def put(name: str, value: float, unit: str, reduction: str) -> None:
        found[name] = Figure(np.asarray(value), {}, unit, reduction)

    if "variance" in figures:
        median, mean = figures["variance"]["stream_median"].values, figures["variance"]["stream_mean"].values
        rate, fit = fitted_rate(median[1:])
        put("variance_growth", median[-1] / median[1], "1", "Var h_L / Var h_1, each the median over tokens")
        put("variance_growth_mean", mean[-1] / mean[1], "1", "Var h_L / Var h_1, each the mean over tokens")
        put("variance_rate", rate, "1/layer", "least-squares slope of ln(median Var h_l) against l = 1..L")
        put("variance_rate_r2", fit, "1", "share of the variance of ln(median Var h_l) that the line explains")
    if "removal" in figures:
        costs = figures["removal"]["increase"].values
        used = depth_utilisation(costs)
        put(
            "idle_layers", float((costs < IDLE_NATS).mean()), "1", f"share of layers that cost < {IDLE_NATS} nats/token"
        )
        put("layers_used", used, "layers", "exp(entropy of the shares of the removal costs 1 - exp(-increase))")
        put("layers_used_share", used / len(costs), "1", "layers_used / L")
    if "angular" in figures:
        steps = figures["angular"]["step"].values
        deep = steps[len(steps) // 2 :]
        put("deep_angle", deep.mean(), "1/pi rad", "angle between h_(l-1) and h_l over pi, mean over l = L/2 + 1 .. L")
    if "gradients" in figures:
        norms = figures["gradients"]["layer"].values
        put(
            "gradient_ratio", norms[0] / norms[-1] if norms[-1] else math.nan, "1", "gradient norm of layer 1 / layer L"
        )
    return found


def fitted_rate(variances: np.ndarray) -> tuple[float, float]:
    """Slope per layer and R^2 of a least-squares line through ln(variance) against the layer; NaN for one layer."""
    logs, layers = np.log(variances), np.arange(len(variances), dtype=np.float64)
    if len(logs) < 2:
        return math.nan, math.nan
    slope, intercept = np.polyfit(layers, logs, 1)
    spread = np.square(logs - logs.mean()).sum()
    rest = np.square(logs - slope * layers - intercept).sum()
    return float(slope), float(1 - rest / spread) if spread > 0 else math.nan


def depth_utilisation(increases: np.ndarray) -> float:
    """How many layers the model really uses, from the loss increase (nats/token) when each is removed.

    A layer's cost is c_l = 1 - exp(-increase), the share by which the (geometric mean) probability of the next token
    falls without it: 0 for a layer that is not missed or is better gone, at most 1. The score is the effective number
    exp(-sum p ln p) of the shares p_l = c_l / sum c (Hill 1973, order 1): L if all layers cost the same, 1 if one
    bears all, n if n cost the same and the rest nothing; 0 if none costs anything.
    """
    costs = -np.expm1(-np.clip(increases, 0, None))
    if costs.sum() == 0:
        return 0.0
    shares = costs[costs > 0] / costs.sum()
    return float(np.exp(-(shares * np.log(shares)).sum()))
