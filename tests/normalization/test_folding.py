"""Folding a scheme into a stock model, unfolding a stock model into a scheme, and plans layer by layer."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

import normalization
from normalization import LayerPlan
from tests.normalization import oracle, tiny

FOLDABLE = tuple(family for family in tiny.FAMILIES if family not in ("olmo", "olmo2", "olmo3"))
"""Pre-LN families whose norms have weights."""
OUTPUT_NORM = ("olmo2", "olmo3")


def norms(model: Any) -> dict[str, Tensor]:
    """What each layer's own norms multiply by, and their biases, under (number of the layer from 1).(name)."""
    network = oracle.NETWORKS[tiny.family_of(model)]
    found = {}
    for number, layer in enumerate(tiny.layers(model), start=1):
        for name in (network.attention_norm, network.mlp_norm):
            for kind, value in layer.get_submodule(name).named_parameters():
                offset = 1 - network.unit if kind == "weight" else 0
                found[f"{number}.{name}.{kind}"] = (value.detach() + offset).clone()
    return found


def others(model: Any) -> dict[str, Tensor]:
    """Every other parameter."""
    network = oracle.NETWORKS[tiny.family_of(model)]
    own = {id(p) for layer in tiny.layers(model) for n in (network.attention_norm, network.mlp_norm)
           for p in layer.get_submodule(n).parameters()}  # fmt: skip
    return {name: p.detach().clone() for name, p in model.named_parameters() if id(p) not in own}


def assert_scaled(found: dict[str, Tensor], before: dict[str, Tensor], power: float) -> None:
    """Layer l's norms are those of before times l^power."""
    assert found.keys() == before.keys() and len(found) >= 2 * tiny.LAYERS
    for name, value in found.items():
        factor = int(name.split(".")[0]) ** power
        assert torch.allclose(value, before[name] * factor, atol=1e-6), name


# -- fold --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FOLDABLE)
def test_lns_folds_into_a_stock_model(tmp_path: Path, family: str) -> None:
    model = tiny.patched(family, "lns")
    expected, weights, rest = tiny.logits(model), norms(model), others(model)
    folded = normalization.fold(model)
    assert type(folded) is type(tiny.stock(family)) and type(folded.config) is type(tiny.config(family))
    assert torch.allclose(tiny.logits(folded), expected, atol=1e-4)
    assert_scaled(norms(folded), weights, -0.5)
    for name, value in others(folded).items():
        assert torch.equal(value, rest[name]), name
    assert not any(p.data_ptr() == q.data_ptr() for p in folded.parameters() for q in model.parameters())
    assert torch.equal(tiny.logits(model), expected), "the original is as it was"

    folded.save_pretrained(tmp_path)
    stored = (tmp_path / "config.json").read_text()
    assert "normalization" not in stored and "depthlab" not in stored.lower()
    again = type(folded).from_pretrained(tmp_path)
    assert torch.equal(tiny.exact_logits(again), tiny.exact_logits(folded))
    assert not torch.allclose(tiny.logits(again), tiny.logits(stock_with(model)), atol=1e-2), "unfolded it is another"


def stock_with(model: Any) -> Any:
    """A stock model with the very weights: what a stock load of a patched checkpoint would be."""
    stock = tiny.stock(tiny.family_of(model))
    stock.load_state_dict(model.state_dict())
    return stock


@pytest.mark.parametrize("family", FOLDABLE)
def test_folding_is_exact(family: str) -> None:
    with tiny.all_float64():
        model = tiny.patched(family, "lns", attention="eager").double()
        expected = tiny.logits(model)
        found = tiny.logits(normalization.fold(model))
        assert found.dtype == expected.dtype == torch.float64
        assert (found - expected).abs().max() < 1e-11 * expected.abs().max()


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_what_is_stock_already_folds_into_itself(family: str) -> None:
    model = tiny.patched(family, tiny.stock_scheme(family))
    folded = normalization.fold(model)
    assert folded is not model and type(folded) is type(model)
    assert torch.equal(tiny.exact_logits(folded), tiny.exact_logits(model))


@pytest.mark.parametrize("family", FOLDABLE)
@pytest.mark.parametrize("layers", ["2 pre, lns", [{"norm_in": True, "input_scale": 0.3, "count": 4}, "pre"]])
def test_scales_of_a_mixed_plan_fold(family: str, layers: Any) -> None:
    model = tiny.patched(family, "mixed", {"layers": layers})
    folded = normalization.fold(model)
    assert type(folded) is type(tiny.stock(family))
    assert torch.allclose(tiny.logits(folded), tiny.logits(model), atol=1e-4)


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma", "mixtral"])
@pytest.mark.parametrize(
    ("scheme", "options", "reason"),
    [
        ("mix", {"post_layers": 2}, r"layer 1 computes N\(x \+ F\(x\)\), a stock layer x \+ F\(N\(x\)\)"),
        ("post", {}, r"layer 1 computes N\(x \+ F\(x\)\)"),
        ("deepnorm", {}, r"layer 1 computes N\(1.778·x \+ F\(x\)\)"),
        ("peri", {}, r"layer 1 computes x \+ N_out\(F\(N\(x\)\)\)"),
        ("out", {}, r"layer 1 computes x \+ N\(F\(x\)\)"),
        ("mixed", {"layers": "3 lns, peri"}, r"layer 4 computes x \+ N_out"),
        ("mixed", {"layers": "4 lns, 1 deepnorm+lns"}, "layer 5 computes"),
    ],
)
def test_other_schemes_are_refused_with_the_layer_and_the_way_out(
    family: str, scheme: str, options: dict[str, Any], reason: str
) -> None:
    model = tiny.patched(family, scheme, options)
    expected = tiny.logits(model)
    with pytest.raises(
        ValueError, match=rf"{scheme!r} cannot be folded into a stock {family!r} model.*{reason}.*remote-code"
    ):
        normalization.fold(model)
    assert torch.equal(tiny.logits(model), expected)


@pytest.mark.parametrize("scheme", ["post", "deepnorm"])
def test_a_dropped_final_norm_is_refused(scheme: str) -> None:
    with pytest.raises(ValueError, match="cannot be folded"):
        normalization.fold(tiny.patched("llama", scheme, final_norm=False))


def test_norms_without_weights_are_refused() -> None:
    with pytest.raises(ValueError, match="layer 2 computes.*norms that have no weights"):
        normalization.fold(tiny.patched("olmo", "lns"))


@pytest.mark.parametrize("family", OUTPUT_NORM)
@pytest.mark.parametrize("scheme", ["pre", "lns"])
def test_input_norms_are_refused_where_stock_has_output_norms(family: str, scheme: str) -> None:
    with pytest.raises(ValueError, match=r"layer 1 computes x \+ F\(N\(x\)\), a stock layer x \+ N\(F\(x\)\)"):
        normalization.fold(tiny.patched(family, scheme))


# -- from_pre_ln -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FOLDABLE)
def test_a_pre_ln_model_becomes_lns_and_computes_the_same(tmp_path: Path, family: str) -> None:
    model = tiny.stock(family)
    expected, weights, rest = tiny.logits(model), norms(model), others(model)
    converted = normalization.from_pre_ln(model)
    assert converted is model and normalization.spec(model).scheme == "lns"
    assert [plan.input_scale for plan in normalization.plans(model)] == [1 / math.sqrt(l) for l in range(1, 6)]  # noqa: E741
    assert torch.allclose(tiny.logits(model), expected, atol=1e-4)
    assert_scaled(norms(model), weights, 0.5)
    for name, value in others(model).items():
        assert torch.equal(value, rest[name]), name
    model.save_pretrained(tmp_path)
    assert torch.equal(tiny.exact_logits(AutoModelForCausalLM.from_pretrained(tmp_path)), tiny.exact_logits(model))
    back = normalization.fold(model)
    assert_scaled(norms(back), weights, 0.0)


@pytest.mark.parametrize("family", FOLDABLE)
def test_the_conversion_is_exact(family: str) -> None:
    with tiny.all_float64():
        model = tiny.stock(family, "eager").double()
        expected = tiny.logits(model)
        found = tiny.logits(normalization.from_pre_ln(model))
        assert (found - expected).abs().max() < 1e-11 * expected.abs().max()


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (lambda: tiny.stock("olmo"), "no weights"),
        (lambda: tiny.stock("olmo2"), "not Pre-LN .its norms stand as in 'out'"),
        (lambda: tiny.stock("olmo3"), "not Pre-LN .its norms stand as in 'out'"),
        (lambda: tiny.patched("llama", "lns"), "already carries the scheme 'lns'"),
        (lambda: tiny.patched("llama", "mix"), "already carries the scheme 'mix'"),
    ],
)
def test_what_cannot_be_converted(model: Any, reason: str) -> None:
    made = model()
    before = {name: value.clone() for name, value in made.state_dict().items()}
    with pytest.raises(ValueError, match=reason):
        normalization.from_pre_ln(made)
    for name, value in made.state_dict().items():
        assert torch.equal(value, before[name])


# -- plans layer by layer ----------------------------------------------------------------------------------------------

POST, LNS = oracle.SCHEMES["post"], oracle.SCHEMES["lns"]


def three_post_then_lns(x: Tensor, F: Any, N: Any, M: Any, l: int, L: int) -> Tensor:  # noqa: E741
    return POST(x, F, N, M, l, L) if l <= 3 else LNS(x, F, N, M, l, L)


def peri_with_depth_scaling(x: Tensor, F: Any, N: Any, M: Any, l: int, L: int) -> Tensor:  # noqa: E741
    return x + M(F(N(x) / math.sqrt(l)))


def deepnorm_at_the_end(x: Tensor, F: Any, N: Any, M: Any, l: int, L: int) -> Tensor:  # noqa: E741
    return N((2 * L) ** 0.25 * x + F(x)) if l >= 4 else x + F(0.5 * N(x))


def deepnorm_with_output_norm(x: Tensor, F: Any, N: Any, M: Any, l: int, L: int) -> Tensor:  # noqa: E741
    return N((2 * L) ** 0.25 * x + M(F(x)))


def the_rest_in_the_middle(x: Tensor, F: Any, N: Any, M: Any, l: int, L: int) -> Tensor:  # noqa: E741
    return POST(x, F, N, M, l, L) if l == 1 else x + M(F(N(x))) if l == L else LNS(x, F, N, M, l, L)


PLANS: list[tuple[Any, Any]] = [
    ("3 post, lns", three_post_then_lns),
    (["3 post", "lns"], three_post_then_lns),
    ("3 post,2 lns", three_post_then_lns),
    ([{"norm_post": True, "count": 3}, "lns"], three_post_then_lns),
    (
        [LayerPlan(norm_post=True)] * 3 + [LayerPlan(norm_in=True, input_scale=n**-0.5) for n in (4, 5)],
        three_post_then_lns,
    ),
    ("peri+lns", peri_with_depth_scaling),
    ("lns + sandwich", peri_with_depth_scaling),
    ("1 post, lns, 1 peri", the_rest_in_the_middle),
    ("deepnorm+out", deepnorm_with_output_norm),
    ("out+deepnorm", deepnorm_with_output_norm),
    ([{"norm_in": True, "input_scale": 0.5, "count": 3}, "2 deepnorm"], deepnorm_at_the_end),
    ((LayerPlan(norm_in=True, input_scale=0.5), "2 lns", "deepnorm"), None),
]
each_plan = pytest.mark.parametrize(
    ("family", "layers", "rule"),
    [
        pytest.param(family, layers, rule, id=f"{family}-{number}")
        for family in ("llama", "gpt2", "gemma", "olmo2", "mixtral")
        for number, (layers, rule) in enumerate(PLANS)
        # The oracle knows no second norm after the sum for a family whose own norm is the one before it.
        if not (family == "olmo2" and rule is deepnorm_with_output_norm)
    ],
)


@each_plan
def test_a_plan_layer_by_layer(tmp_path: Path, family: str, layers: Any, rule: Any) -> None:
    if rule is not None:
        with tiny.all_float64():
            model = tiny.patched(family, "mixed", {"layers": layers}, attention="eager").double()
            ids = tiny.tokens()
            expected = oracle.logits(family, dict(model.state_dict()), model.config, ids, rule)
            assert (tiny.logits(model, ids) - expected).abs().max() < 1e-9
    model = tiny.patched(family, "mixed", {"layers": layers})
    model.save_pretrained(tmp_path)
    again = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert torch.equal(tiny.exact_logits(again), tiny.exact_logits(model))
    assert normalization.plans(again) == normalization.plans(model) and len(normalization.plans(model)) == tiny.LAYERS
    assert again.config.normalization == model.config.normalization
    if isinstance(layers, str):
        assert again.config.normalization["options"]["layers"] == layers


def test_describe_shows_the_plan() -> None:
    out = io.StringIO()
    normalization.describe(tiny.patched("llama", "mixed", {"layers": "3 post, peri+lns"}), file=out)
    lines = out.getvalue().splitlines()
    assert lines[0].startswith("mixed (layers=3 post, peri+lns)")
    assert [line.partition("<- ")[2] for line in lines[1:-1]] == [
        *["N(x + F(x))"] * 3,
        "x + N_out(F(0.5·N(x)))",
        "x + N_out(F(0.4472·N(x)))",
    ]
    assert lines[-1] == "  final norm: kept"


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ("3 post, 3 lns", "names 6 layers .* for a model of 5"),
        ("2 post, 1 lns", "names 3 layers .* for a model of 5"),
        ("post, lns", "2 items without a number"),
        ("6 post, lns", "names 6 layers"),
        ("3 pst, lns", "unknown normalization scheme 'pst' .did you mean 'post'"),
        ("3 post, peri+lsn", "'lsn' .did you mean 'lns'"),
        ("mixed", "cannot be one of its own parts"),
        ("3post, lns", "'3post' is no item"),
        ("3 post lns", "is no item"),
        ("", "is no item"),
        ([], "what each layer follows"),
        (None, "what each layer follows"),
        (5, "what each layer follows"),
        ([{"norm_inn": True, "count": 5}], "unknown field 'norm_inn' .did you mean 'norm_in'"),
        ([{"norm_in": True, "count": "x"}], "count='x'"),
        ([{"norm_in": True, "count": -1}, "lns"], "count=-1"),
        ([{"norm_in": True, "count": 2.5}, "lns"], "count=2.5"),
        ([{"norm_in": "yes", "count": 5}], "norm_in='yes' must be true or false"),
        ([{"norm_in": True, "input_scale": "half", "count": 5}], "input_scale='half' must be a number"),
        ([{"norm_in": True, "input_scale": math.nan, "count": 5}], "input_scale=nan must be a number"),
        ([LayerPlan(input_scale=0.5)] * 5, "at least one of norm_in, norm_out and norm_post"),
        ([LayerPlan(norm_in=True)] * 4, "names 4 layers"),
    ],
)
def test_an_impossible_plan_leaves_the_model_as_it_was(layers: Any, message: str) -> None:
    model = tiny.stock("llama")
    expected, kind = tiny.logits(model), type(model)
    with pytest.raises(ValueError, match=message):
        normalization.apply(model, "mixed", layers=layers)
    with pytest.raises(ValueError, match=message):
        normalization.config(model.config, "mixed", layers=layers)
    assert type(model) is kind and torch.equal(tiny.logits(model), expected)


def test_a_whole_number_is_a_scale() -> None:
    model = tiny.patched("llama", "mixed", {"layers": [{"norm_in": True, "input_scale": 2, "count": 5}]})
    assert all(type(plan.input_scale) is float for plan in normalization.plans(model))
