"""The charts of `judge calibrate` as one HTML file: SVG that Jinja2 draws, each with its values in words and a table.

Two charts of a few hundred points need no plotting library; plotly, which the training reports use, would make the file
5 MB. No script runs, and nothing is asked of any server.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.resources import files
from math import floor
from typing import Any

import jinja2

_POINTS = 200
_ROWS = 20
Point = tuple[float, float]


def page(name: str, found: Mapping[str, Any]) -> str:
    """HTML of what `calibrate` found."""
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["number"] = lambda value, digits=3: "not defined" if value is None else f"{value:.{digits}f}"
    curves = [("chosen setting", found["abstain"])]
    if "abstain" in found["weights"]:
        curves.append(("fitted weights", found["weights"]["abstain"]))
    lines = [(title, [(p["coverage"], p["accuracy"]) for p in _thinned(points, _POINTS)]) for title, points in curves]
    accuracies = [accuracy for _, points in lines for _, accuracy in points]
    return environment.from_string(
        (files("evaluators.showing.report") / "calibration.html.j2").read_text("utf-8")
    ).render(
        name=name,
        found=found,
        bins=found["reliability"],
        most=max((bin_["n"] for bin_ in found["reliability"]), default=1),
        lines=lines,
        lowest=floor(10 * min(accuracies, default=0.0)) / 10,
        rows=[(title, _thinned(points, _ROWS)) for title, points in curves],
        said={"reliability": reliability_words(found), "coverage": coverage_words(curves)},
    )


def _thinned(points: Sequence[Mapping[str, float]], most: int) -> list[Mapping[str, float]]:
    """The points nearest to equal steps of coverage, the last one always."""
    if len(points) <= most:
        return list(points)
    steps = [(step + 1) / most for step in range(most)]
    at = {min(range(len(points)), key=lambda i: abs(points[i]["coverage"] - step)) for step in steps}
    return [points[index] for index in sorted({*at, len(points) - 1})]


def reliability_words(found: Mapping[str, Any]) -> str:
    """The diagram for those who do not see it."""
    bins = found["reliability"]
    if not bins:
        return "No verdict with a winner on both parts, so there is no diagram."
    worst = max(bins, key=lambda bin_: abs(bin_["right"] - bin_["predicted"]))
    return (
        f"{sum(bin_['n'] for bin_ in bins):,} held-out verdicts with a winner in {len(bins)} bins of the predicted "
        f"chance of being right. The expected calibration error is {found['calibration_error']:.3f}. The bin farthest "
        f"from the diagonal predicts {worst['predicted']:.2f}, and a share of {worst['right']:.2f} is right "
        f"(n = {worst['n']:,})."
    )


def coverage_words(curves: Sequence[tuple[str, Sequence[Mapping[str, float]]]]) -> str:
    """The curves for those who do not see them."""
    said = []
    for title, points in curves:
        if points:
            half = min(points, key=lambda point: abs(point["coverage"] - 0.5))
            said.append(
                f"With the {title}, accuracy is {half['accuracy']:.3f} when {half['coverage']:.0%} of the samples are "
                f"answered, and {points[-1]['accuracy']:.3f} at {points[-1]['coverage']:.0%}, the most there is."
            )
    return " ".join(said) or "No held-out sample has a verdict, so there is no curve."
