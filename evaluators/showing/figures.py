"""Figures with their intervals, as lines for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


def figure_text(figure: Mapping[str, Any]) -> str:
    """`0.750 [0.690, 0.810]`, or why there is no value or no interval."""
    why = f": {figure['why']}" if figure.get("why") else ""
    if figure["value"] is None:
        return f"not defined{why}"
    ends = f"no interval{why}" if figure["low"] is None else f"{figure['low']:.3f}, {figure['high']:.3f}"
    return f"{figure['value']:.3f} [{ends}]"


def score_text(found: Mapping[str, Any]) -> Iterator[str]:
    """For a terminal."""
    yield f"samples     {found['samples']:,} of {found['queries']:,} queries, {found['labelled']:,} labelled"
    if found["network"]["guessed"] is not None:
        yield f"network     not stored with this run: the preset {found['network']['guessed']}, as it is today"
    unscored = found["unscored"]
    yield (
        f"unscored    {unscored['samples']:,} samples, "
        f"{unscored['unscored_reviews']:,} of {unscored['reviews']:,} reviews"
    )
    if found["labelled"]:
        for title, way in (("agreement", "scored"), ("as wrong", "unscored_as_wrong")):
            figures = found["agreement"][way]
            yield f"{title:<12}n = {figures['accuracy']['n']:,}: " + ", ".join(
                f"{name.replace('_', '-')} {figure_text(figure)}" for name, figure in figures.items()
            )
        for family, ways in found["families"].items():
            figures = ways["scored"]
            yield (
                f"  {family:<10}n = {figures['accuracy']['n']:,}: accuracy {figure_text(figures['accuracy'])}, "
                f"kappa {figure_text(figures['kappa'])}"
            )
        if found["never_ties"] and found["human"].get("0"):
            best = found["ceilings"]["never_tie"]
            yield (
                f"ceiling     this judge never says tie; one that never does cannot exceed accuracy "
                f"{best['accuracy']:.3f}" + ("" if best["kappa"] is None else f", kappa {best['kappa']:.3f}")
            )
    yield from position_text(found["position"])
    lengths = found["length"]
    yield (
        f"length      the judge prefers the longer {figure_text(lengths['judge_prefers_longer'])}, people "
        + figure_text(lengths["people_prefer_longer"])
    )


def position_text(found: Mapping[str, Any]) -> Iterator[str]:
    """The judge, which layer 1 shows, and the network apart."""
    yield (
        f"position    the judge, in layer 1: same verdict in both orders {figure_text(found['consistency'])}, "
        f"first shown preferred {figure_text(found['first_preferred'])}; "
        f"{found['unscored']:,} samples not scored in both"
    )
    network = found["network"]
    if network["consistency"]["value"] is None:
        yield f"            the network: no verdict of one order, {network['consistency']['why']}"
    else:
        yield "            the network: its verdicts of one order are those of layer 1"
    yield (
        f"            its verdicts name response 1 in {figure_text(network['names_response1'])}, people in "
        f"{figure_text(network['people_name_response1'])}: difference {figure_text(network['difference'])}"
    )
    yield f"            right where the orders of layer 1 differ {figure_text(network['right_where_orders_differ'])}"


def comparison_text(found: Mapping[str, Any]) -> Iterator[str]:
    """For a terminal."""
    yield f"samples     {found['samples']:,} in both ({found['only_in_one']:,} in one alone), unscored counted as wrong"
    for name, figure in found["difference"].items():
        yield f"{name.replace('_', '-'):<12}" + figure_text({**figure, "value": figure["difference"]})
    yield (
        f"McNemar     only the first is right {found['only_first_right']:,}, only the second "
        f"{found['only_second_right']:,}: p = {found['mcnemar_p']:.4g}, "
        f"the judges swapped by query ({found['queries']:,})"
    )
