"""The registry and the options of schemes."""

from __future__ import annotations

import math
from typing import Any

import pytest

from normalization import LayerPlan, NormalizationSpec, schemes
from normalization.initialization import NAMES
from tests.normalization import oracle, tiny

PRE, POST = LayerPlan(norm_in=True), LayerPlan(norm_post=True)


def plans(scheme: str, depth: int, **options: Any) -> list[LayerPlan]:
    return NormalizationSpec.make(scheme, **options).plans(depth)


def test_every_scheme_has_an_oracle() -> None:
    assert set(oracle.SCHEMES) == set(schemes.names())
    assert set(oracle.NETWORKS) == set(tiny.FAMILIES)


@tiny.each_scheme
def test_every_scheme_says_what_it_is(scheme: str) -> None:
    found = schemes.get(scheme)
    assert found.name == scheme and found.summary and found.source
    assert found.initialization in NAMES and set(found.discouraged) <= set(NAMES)
    assert all(option.help for option in found.options.values())
    assert set(found.either) <= set(found.options)


@tiny.each_case
@pytest.mark.parametrize("depth", [1, 2, 7, 24])
def test_a_plan_is_pure_and_its_scales_are_floats(scheme: str, options: dict[str, Any], depth: int) -> None:
    if options.get("post_layers", 2 if scheme == "mixed" else 0) > depth:
        with pytest.raises(ValueError):
            plans(scheme, depth, **options)
        return
    made = plans(scheme, depth, **options)
    assert made == plans(scheme, depth, **options) and len(made) == depth
    assert all(type(p.input_scale) is float and type(p.residual_scale) is float for p in made)
    assert all(p.slots for p in made)


@pytest.mark.parametrize(
    ("depth", "options", "post_layers"),
    [
        (12, {}, 3),
        (24, {}, 6),
        (5, {}, 1),
        (3, {}, 0),
        (7, {"alpha": 0.5}, 3),
        (100, {"alpha": 0.29}, 29),  # 0.29 * 100 is 28.999... in binary
        (10, {"alpha": 0.3}, 3),
        (10, {"alpha": 0.7}, 7),
        (10, {"alpha": 0.69}, 6),
        (4, {"alpha": 0.0}, 0),
        (4, {"alpha": 1.0}, 4),
        (4, {"alpha": 1}, 4),
        (6, {"post_layers": 0}, 0),
        (6, {"post_layers": 4}, 4),
        (6, {"post_layers": 6}, 6),
        (6, {"post_layers": 4, "alpha": None}, 4),
        (6, {"alpha": 0.5, "post_layers": None}, 3),
    ],
)
def test_mix_counts_post_layers(depth: int, options: dict[str, Any], post_layers: int) -> None:
    assert plans("mix", depth, **options) == [POST] * post_layers + [PRE] * (depth - post_layers)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alpha": 0.5, "post_layers": 2}, "not both"),
        ({"alpha": 0.25, "post_layers": 2}, "not both"),
        ({"alpha": -0.1}, "0 <= alpha <= 1"),
        ({"alpha": 1.01}, "0 <= alpha <= 1"),
        ({"alpha": math.nan}, "0 <= alpha <= 1"),
        ({"post_layers": -1}, "0 <= post_layers <= 6"),
        ({"post_layers": 7}, "0 <= post_layers <= 6"),
        ({"post_layers": 2.5}, "0 <= post_layers <= 6"),
        ({"alpha": None}, "post_layers=None"),
        ({"post_layer": 2}, "no option 'post_layer'; its options: alpha, post_layers"),
    ],
)
def test_mix_refuses(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        plans("mix", 6, **options)


def test_lns_scales_by_one_over_root_l() -> None:
    assert [p.input_scale for p in plans("lns", 4)] == [1, 1 / math.sqrt(2), 1 / math.sqrt(3), 0.5]


@pytest.mark.parametrize("depth", [1, 5, 12, 32])
def test_deepnorm_alpha_follows_the_depth(depth: int) -> None:
    """The constant 2.828 of published code is right for 32 layers only."""
    assert {p.residual_scale for p in plans("deepnorm", depth)} == {(2 * depth) ** (1 / 4)}
    assert math.isclose((2 * 32) ** (1 / 4), 2.828, abs_tol=1e-3)


def test_aliases() -> None:
    assert NormalizationSpec.make("sandwich") == NormalizationSpec.make("peri")
    assert "sandwich" in schemes.names(aliases=True) and "sandwich" not in schemes.names()


@pytest.mark.parametrize(("name", "nearest"), [("lsn", "lns"), ("sandwhich", "sandwich"), ("deep_norm", "deepnorm")])
def test_an_unknown_scheme_names_the_nearest(name: str, nearest: str) -> None:
    with pytest.raises(ValueError, match=f"{name!r} .did you mean {nearest!r}.*choose from deepnorm, lns, mix"):
        schemes.get(name)


@pytest.mark.parametrize("name", ["", "LayerNorm", "LNS!", 3, None])
def test_nothing_near_is_still_a_clear_error(name: Any) -> None:
    with pytest.raises(ValueError, match="unknown normalization scheme"):
        schemes.get(name)


@tiny.each_scheme
def test_an_unknown_option(scheme: str) -> None:
    with pytest.raises(ValueError, match="no option 'strength'"):
        NormalizationSpec.make(scheme, strength=2)


def test_a_name_is_taken_once() -> None:
    for taken in ("mix", "sandwich"):
        with pytest.raises(ValueError, match=f"called '{taken}'"):
            schemes.scheme(taken, source="arXiv:0000.00000")(lambda layer, depth: PRE)


@tiny.each_case
@pytest.mark.parametrize("depth", [5, 12])
def test_the_final_norm_goes_only_where_the_last_layer_ends_in_one(
    scheme: str, options: dict[str, Any], depth: int
) -> None:
    spec = NormalizationSpec.make(scheme, final_norm=False, **options)
    if (scheme, options) in oracle.ENDS_IN_NORM:
        spec.plans(depth)
    else:
        with pytest.raises(ValueError, match="final_norm=False"):
            spec.plans(depth)


@tiny.each_case
def test_a_spec_round_trips(scheme: str, options: dict[str, Any]) -> None:
    spec = NormalizationSpec.make(scheme, **options)
    assert NormalizationSpec.from_dict(spec.to_dict()) == spec
    assert NormalizationSpec.make(scheme, **spec.options) == spec
