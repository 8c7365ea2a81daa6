"""Figures with their intervals, as lines for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from evaluators.showing.terminal import printable, refused_lines

BASELINES = {
    "always_1": "always 1",
    "always_2": "always 2",
    "longer": "the longer",
    "shorter": "the shorter",
    "coin": "a coin",
}
"""Names of `statistics.baselines`, as people read them."""


def figure_text(figure: Mapping[str, Any]) -> str:
    """`0.750 [0.690, 0.810]`, or why there is no value or no interval."""
    why = f": {figure['why']}" if figure.get("why") else ""
    if figure["value"] is None:
        return f"not defined{why}"
    ends = f"no interval{why}" if figure["low"] is None else f"{figure['low']:.3f}, {figure['high']:.3f}"
    return f"{figure['value']:.3f} [{ends}]"


def number(value: float | None, digits: int = 3) -> str:
    """Of a figure without an interval."""
    return "not defined" if value is None else f"{value:.{digits}f}"


def ceiling_text(found: Mapping[str, Any]) -> str:
    """What a judge without the word tie cannot exceed; nothing where people never say tie."""
    if not found["human"].get("0"):
        return ""
    best = found["ceilings"]["never_tie"]
    who = "this judge never says tie; one that never does" if found["never_ties"] else "a judge that never says tie"
    return (
        f"{who} cannot exceed accuracy {number(best['accuracy'])}, macro-F1 {number(best['macro_f1'])}, "
        f"kappa {number(best['kappa'])}"
    )


def samples_text(found: Mapping[str, Any]) -> str:
    """How many samples, of how many queries; where some have no query, in how many clusters."""
    if not found["without_query"]:
        together = "" if found["clusters"] == found["queries"] else f" in {found['clusters']:,} clusters"
        return f"{found['samples']:,} of {found['queries']:,} queries{together}"
    return (
        f"{found['samples']:,}: {found['samples'] - found['without_query']:,} on {found['queries'] - 1:,} queries and "
        f"{found['without_query']:,} without one, in {found['clusters']:,} clusters"
    )


def breakdowns(found: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Agreement by family, and by data set and language where the data name more than one."""
    parts = {"family": found["families"], "data set": found["datasets"], "language": found["languages"]}
    return {title: groups for title, groups in parts.items() if title == "family" or len(groups) > 1}


def score_text(found: Mapping[str, Any]) -> Iterator[str]:
    """For a terminal."""
    yield f"samples     {samples_text(found)}, {found['labelled']:,} labelled"
    yield from refused_lines(found["refused"] or {})
    if found["blank_responses"]:
        yield f"blank       {found['blank_responses']:,} samples with a blank response"
    if found["network"]["guessed"] is not None:
        yield f"network     not stored with this run: the preset {found['network']['guessed']}, as it is today"
    over = "queries" if found["clusters"] == found["queries"] else "clusters of queries"
    yield f"intervals   95 %, over {found['clusters']:,} {over}: samples of one count together"
    unscored = found["unscored"]
    yield (
        f"unscored    {unscored['samples']:,} samples, "
        f"{unscored['unscored_reviews']:,} of {unscored['reviews']:,} reviews; share of samples "
        + figure_text(unscored["rate"])
    )
    if found["labelled"]:
        for title, way in (("agreement", "scored"), ("as wrong", "unscored_as_wrong")):
            figures = found["agreement"][way]
            yield f"{title:<12}n = {figures['accuracy']['n']:,}: " + ", ".join(
                f"{name.replace('_', '-')} {figure_text(figure)}" for name, figure in figures.items()
            )
        for title, groups in breakdowns(found).items():
            yield f"by {title}"
            width = max(map(len, groups))
            for name, ways in groups.items():
                figures = ways["scored"]
                yield (
                    f"  {printable(name):<{width}}  n = {figures['accuracy']['n']:,}: "
                    f"accuracy {figure_text(figures['accuracy'])}, kappa {figure_text(figures['kappa'])}"
                )
        yield "to beat     without a model:"
        for name, line in found["baselines"].items():
            yield (
                f"  {BASELINES[name]:<12}accuracy {number(line['accuracy'])}, macro-F1 {number(line['macro_f1'])}, "
                f"kappa {number(line['kappa'])}"
            )
        if ceiling := ceiling_text(found):
            yield f"ceiling     {ceiling}"
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
        f"{found['only_second_right']:,}: p = {found['mcnemar_p']:.4g}, exact {found['mcnemar_exact_p']:.4g} "
        f"(the judges swapped by query, {found['queries']:,} of them)"
    )
