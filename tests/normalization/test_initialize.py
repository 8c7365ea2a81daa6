"""Initialisation against `oracle.std`: every sample standard deviation within five standard errors."""

# ruff: noqa: E741 (layer l of L, as in the papers)
from __future__ import annotations

import math
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor

import normalization
from normalization.initialization import NAMES
from tests.normalization import oracle, tiny

DEPTH = 4
WIDE: dict[str, Any] = {
    "vocab_size": 211,
    "hidden_size": 96,
    "intermediate_size": 160,
    "num_hidden_layers": DEPTH,
    "head_dim": 24,
    "tie_word_embeddings": False,
}


def assert_std(values: Tensor, expected: float, what: str) -> None:
    n = values.numel()
    assert abs(values.std().item() - expected) < 5 * expected / math.sqrt(2 * n), what
    assert abs(values.mean().item()) < 5 * expected / math.sqrt(n), what


@tiny.each_family
@pytest.mark.parametrize("initialization", NAMES)
@pytest.mark.parametrize("scheme", ["pre", "peri", "deepnorm"])
def test_every_tensor_follows_the_table(family: str, initialization: str, scheme: str) -> None:
    model = tiny.patched(family, scheme, **WIDE)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(torch.nan)
    assert normalization.initialize(model, initialization, std=0.03, embedding_std=0.5) is model

    weights = {name: value.detach() for name, value in model.named_parameters()}
    net = oracle.NETWORKS[family](weights, model.config)
    in_layers = 0
    for l in range(1, DEPTH + 1):
        for name, (weight, _) in net.maps(l).items():
            std = oracle.std(initialization, name.split()[-1], DEPTH, *weight.T.shape, s=0.03)
            assert_std(weight, std, f"layer {l} {name}")
            in_layers += weight.numel()
    for name in net.embeddings:
        assert_std(weights.pop(name), 0.5, name)
    assert_std(weights.pop("lm_head.weight"), 0.03, "head")
    assert in_layers == sum(value.numel() for value in weights.values() if value.ndim > 1)
    for name, value in weights.items():  # norms and biases, q_norm and k_norm too
        if value.ndim == 1:
            unit = net.unit if name.endswith("weight") else 0.0
            assert torch.equal(value, torch.full_like(value, unit)), name


@pytest.mark.parametrize(
    ("family", "path", "heads", "shared"),
    [
        ("gpt2", "transformer.h.0.attn.c_attn.weight", 4, 4),
        ("phi3", "model.layers.0.self_attn.qkv_proj.weight", 4, 2),
        ("gpt_neox", "gpt_neox.layers.0.attention.query_key_value.weight", 4, 4),
    ],
)
def test_the_value_part_of_a_fused_projection_differs(family: str, path: str, heads: int, shared: int) -> None:
    weight = normalization.initialize(tiny.stock(family, **WIDE), "deepnorm").get_parameter(path)
    rows = weight.T if family == "gpt2" else weight
    std = rows.detach().unflatten(0, (heads + 2 * shared, -1)).flatten(1).std(1)  # head by head
    values = [2, 5, 8, 11] if family == "gpt_neox" else list(range(heads + shared, heads + 2 * shared))
    others = [i for i in range(heads + 2 * shared) if i not in values]
    # The size of the map enters Xavier's formula, so the ratio is beta only where the parts are equally large.
    beta = (8 * DEPTH) ** -0.25 * ((96 + 24 * heads) / (96 + 24 * shared)) ** 0.5
    queries = [i for i in others if i < heads] if family == "phi3" else others
    assert (std[values] / std[queries].mean() - beta).abs().max() < 0.06


def test_the_norm_of_gemma_adds_one() -> None:
    model = normalization.initialize(tiny.patched("gemma", "peri"))
    for name, parameter in model.named_parameters():
        if "norm" in name:
            assert not parameter.count_nonzero(), name
    norm = tiny.layers(model)[0].input_layernorm_out
    x = 3 * torch.randn(5, 32)
    assert torch.allclose(norm(x).square().mean(-1), torch.ones(5), atol=1e-3)


@tiny.each_family
@tiny.each_scheme
def test_every_parameter_is_drawn_anew(family: str, scheme: str) -> None:
    model = tiny.patched(family, scheme, attention_bias=True, mlp_bias=True)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(torch.nan)
    normalization.initialize(model)
    assert all(p.isfinite().all() for p in model.parameters())
    assert all(p.requires_grad for p in model.parameters())


@tiny.each_family
def test_a_tied_head_is_drawn_once_as_the_embedding(family: str) -> None:
    model = normalization.initialize(tiny.stock(family, **WIDE | {"tie_word_embeddings": True}), embedding_std=0.5)
    assert model.lm_head.weight is model.get_input_embeddings().weight
    assert_std(model.lm_head.weight, 0.5, "tied head")
    assert_std(next(iter(tiny.layers(model)[0].mlp.parameters())), 0.02, "std")


@tiny.each_representative
@tiny.each_scheme
def test_seeded(family: str, scheme: str) -> None:
    def drawn(seed: int) -> Tensor:
        model = tiny.patched(family, scheme)
        torch.manual_seed(seed)
        return torch.cat([p.flatten() for p in normalization.initialize(model).parameters()])

    assert torch.equal(drawn(1), drawn(1)) and not torch.equal(drawn(1), drawn(2))


@tiny.each_scheme
def test_the_default_is_the_papers(scheme: str) -> None:
    def drawn(initialization: str | None) -> Tensor:
        model = tiny.patched("llama", scheme)
        torch.manual_seed(0)
        return torch.cat([p.flatten() for p in normalization.initialize(model, initialization).parameters()])

    assert torch.equal(drawn(None), drawn("deepnorm" if scheme == "deepnorm" else "normal"))


@tiny.each_scheme
@pytest.mark.parametrize("initialization", NAMES)
def test_only_lns_with_scaled_warns(scheme: str, initialization: str) -> None:
    model = tiny.patched("llama", scheme)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        normalization.initialize(model, initialization)
    assert len(caught) == ((scheme, initialization) == ("lns", "scaled"))
    if caught:
        assert "2502.05795" in str(caught[0].message) and caught[0].filename == __file__


def test_deepnorm_beta() -> None:
    """The gain is (8L)^(-1/4), 0.32 at 12 layers, not 3.13 as in published code."""
    assert math.isclose(oracle.std("deepnorm", "value", 12, 1, 1, 0), 0.3195, abs_tol=1e-4)


def test_an_unknown_initialization_names_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"'scale' .did you mean 'scaled'.*normal, scaled, deepnorm"):
        normalization.initialize(tiny.stock("llama"), "scale")


@tiny.each_family
def test_parameters_without_memory_are_refused_before_anything_is_drawn(family: str) -> None:
    model = tiny.stock(family)
    for parameter in model.parameters():
        parameter.data = torch.empty(0)
    with pytest.raises(ValueError, match="has no memory to draw into"):
        normalization.initialize(model)


@tiny.each_family
def test_a_model_on_the_meta_device_of_any_family_is_refused(family: str) -> None:
    with torch.device("meta"):
        model = normalization.from_config(tiny.config(family), "peri")
    with pytest.raises(ValueError, match="to_empty"):
        normalization.initialize(model)


def test_a_weight_that_the_family_does_not_name_is_refused() -> None:
    model = tiny.stock("llama")
    model.model.layers[0].adapter = torch.nn.Linear(4, 4, bias=False)
    with pytest.raises(ValueError, match=r"Linear.weight of shape \(4, 4\) has no distribution"):
        normalization.initialize(model)
