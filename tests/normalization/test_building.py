"""Placing a scheme: what changes, what does not, what is refused."""

from __future__ import annotations

import copy
import io
import pickle
from typing import Any

import pytest
import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel, OPTConfig, OPTForCausalLM

import normalization
from normalization import describe, families
from normalization.layers import PatchedLayer
from tests.normalization import oracle, tiny


def one(family: str, name: str, like: torch.Tensor) -> torch.Tensor:
    """What a norm's parameter of that name is at the start."""
    return torch.full_like(like, oracle.NETWORKS[family].unit if name.endswith("weight") else 0.0)


@tiny.each_family
@tiny.each_case
def test_apply_keeps_every_weight_and_new_norms_are_ones(family: str, scheme: str, options: dict[str, Any]) -> None:
    stock = tiny.stock(family)
    before = {name: (p, p.clone()) for name, p in stock.named_parameters()}
    model = normalization.apply(stock, scheme, **options)
    assert model is stock
    after = dict(model.named_parameters())
    for name, (parameter, value) in before.items():
        assert after[name] is parameter and torch.equal(parameter, value)
    own = (oracle.NETWORKS[family].attention_norm, oracle.NETWORKS[family].mlp_norm)
    for name in after.keys() - before.keys():
        assert any(norm in name for norm in own)
        assert torch.equal(after[name], one(family, name, after[name])), name
    assert dict(model.named_buffers()).keys() == dict(tiny.stock(family).named_buffers()).keys()
    assert (len(after) > len(before)) == (scheme in oracle.NEW_NORMS and family != "olmo")  # its norms have no weights
    new = {
        type(module)
        for layer in tiny.layers(model)
        for name, module in layer.named_children()
        if name.endswith(("_in", "_out"))
    }
    assert new == ({type(tiny.layers(model)[0].get_submodule(own[0]))} if scheme in oracle.NEW_NORMS else set())


@tiny.each_family
@tiny.each_scheme
def test_new_norms_are_like_the_layers_own(family: str, scheme: str) -> None:
    eps = {"rms_norm_eps": 1e-3, "layer_norm_epsilon": 1e-3, "layer_norm_eps": 1e-3}
    model = normalization.apply(tiny.stock(family, **eps).bfloat16(), scheme, **oracle.NEEDED.get(scheme, {}))
    for layer in tiny.layers(model):
        own = getattr(layer, oracle.NETWORKS[family].attention_norm)
        for child in layer.children():
            if type(child) is type(own):
                assert child.extra_repr() == own.extra_repr() and ("0.001" in child.extra_repr() or family == "olmo")
                assert all(p.dtype == torch.bfloat16 for p in child.parameters())


@tiny.each_family
@tiny.each_scheme
def test_a_model_sharing_the_config_is_untouched(family: str, scheme: str) -> None:
    model = tiny.stock(family)
    config = model.config
    other = tiny.randomize(type(model)(config))
    expected, described = tiny.logits(other), config.to_dict()
    normalization.apply(model, scheme, **oracle.NEEDED.get(scheme, {}))
    assert other.config is config and config.to_dict() == described and type(config) is type(tiny.config(family))
    assert torch.equal(tiny.logits(other), expected)
    assert not isinstance(tiny.layers(other)[0], PatchedLayer)
    assert {id(m.config) for m in model.modules() if hasattr(m, "config")} == {id(model.config)}


@tiny.each_family
@tiny.each_scheme
def test_layers_keep_their_class_name(family: str, scheme: str) -> None:
    """FSDP's wrap policy and `device_map` look for it."""
    kind = type(tiny.layers(tiny.stock(family))[0])
    model, name = tiny.patched(family, scheme), kind.__name__
    assert name in model._no_split_modules
    assert {type(layer).__name__ for layer in tiny.layers(model)} == {name}
    assert isinstance(tiny.layers(model)[0], kind)


@tiny.each_family_and_attention
@tiny.each_scheme
def test_from_config_builds_what_apply_places(family: str, scheme: str, attention: str) -> None:
    needed = oracle.NEEDED.get(scheme, {})
    built = normalization.from_config(tiny.config(family), scheme, attn_implementation=attention, **needed)
    assert built.config._attn_implementation == attention
    applied = tiny.patched(family, scheme, attention=attention)
    applied.set_experts_implementation(built.config._experts_implementation)
    assert applied.config._attn_implementation == attention
    assert built.state_dict().keys() == applied.state_dict().keys()
    assert torch.equal(tiny.exact_logits(tiny.randomize(built)), tiny.exact_logits(applied))
    assert type(built) is type(applied)


@tiny.each_family
@tiny.each_scheme
def test_from_config_starts_new_norms_at_one_and_draws_the_stock_weights(family: str, scheme: str) -> None:
    torch.manual_seed(3)
    stock = AutoModelForCausalLM.from_config(tiny.config(family))
    torch.manual_seed(3)
    built = normalization.from_config(tiny.config(family), scheme, **oracle.NEEDED.get(scheme, {}))
    weights = built.state_dict()
    assert all(torch.equal(weights.pop(name), value) for name, value in stock.state_dict().items())
    assert all(torch.equal(value, one(family, name, value)) for name, value in weights.items())


@tiny.each_family
@tiny.each_scheme
def test_materialised_from_the_meta_device(family: str, scheme: str) -> None:
    """Constants in buffers would be garbage here: that is how a known library ships LNS broken."""
    expected = tiny.patched(family, scheme)
    with torch.device("meta"):
        model = normalization.from_config(tiny.config(family), scheme, **oracle.NEEDED.get(scheme, {}))
    assert all(p.is_meta for p in model.parameters())
    model = model.to_empty(device="cpu").eval()
    stock_buffers = dict(tiny.stock(family).named_buffers())
    assert dict(model.named_buffers()).keys() == stock_buffers.keys()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(torch.nan)
        for name, buffer in model.named_buffers():
            buffer.copy_(stock_buffers[name])
    model.load_state_dict(expected.state_dict())
    model.tie_weights()
    assert torch.equal(tiny.exact_logits(model), tiny.exact_logits(expected))


@tiny.each_family
@tiny.each_scheme
def test_copied_and_pickled(family: str, scheme: str) -> None:
    model = tiny.patched(family, scheme)
    twins = copy.deepcopy(model), pickle.loads(pickle.dumps(model))
    for twin in twins:
        assert type(twin) is type(model) and type(tiny.layers(twin)[0]) is type(tiny.layers(model)[0])
        assert normalization.plans(twin) == normalization.plans(model)
        assert torch.equal(tiny.exact_logits(twin), tiny.exact_logits(model))
    assert pickle.loads(pickle.dumps(model.config)).to_dict() == model.config.to_dict()


@tiny.each_family
@tiny.each_scheme
def test_a_second_scheme_is_refused(family: str, scheme: str) -> None:
    model = tiny.patched(family, scheme)
    with pytest.raises(ValueError, match=f"already carries the scheme '{scheme}'"):
        normalization.apply(model, "lns")


@pytest.mark.parametrize("scheme", [None, "lns"])
@pytest.mark.parametrize("wrap", [nn.DataParallel, torch.compile, lambda model: model.model, nn.Sequential])
def test_a_wrapped_model_is_refused(wrap: Any, scheme: str | None) -> None:
    model = tiny.stock("llama") if scheme is None else tiny.patched("llama", scheme)
    with pytest.raises(ValueError, match=r"before wrapping or compiling|already carries"):
        normalization.apply(wrap(model), "lns")


def test_a_subclass_is_refused() -> None:
    class Mine(GPT2LMHeadModel):
        pass

    with pytest.raises(ValueError, match="not Mine"):
        normalization.apply(Mine(tiny.config("gpt2")), "lns")


def test_an_unknown_family_is_refused_with_the_way_to_add_it() -> None:
    config = OPTConfig(vocab_size=11, hidden_size=8, ffn_dim=8, num_hidden_layers=1, num_attention_heads=1)
    model = OPTForCausalLM(config)
    calls = (
        lambda: normalization.apply(model, "lns"),
        lambda: normalization.config(config, "lns"),
        lambda: normalization.from_config(config, "lns"),
        lambda: normalization.describe(model),
        lambda: normalization.initialize(model),
    )
    for call in calls:
        with pytest.raises(ValueError, match=r"'opt'.*llama.*normalization/families.py"):
            call()


@pytest.mark.parametrize("family", families.REFUSED)
def test_a_refused_family_says_why(family: str) -> None:
    config = AutoConfig.for_model(family)  # a typing error in the table's names would stop here
    for call in (lambda: normalization.config(config, "lns"), lambda: families.of_config(config)):
        with pytest.raises(ValueError, match=r"constant of its own|side by side|two norms around") as error:
            call()
        assert repr(family) in str(error.value) and "Families: llama, mistral" in str(error.value)
    assert family not in families.FAMILIES


def test_a_refused_model_says_why() -> None:
    sizes = {"vocab_size": 11, "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "pad_token_id": None}
    heads = {"num_attention_heads": 1, "num_key_value_heads": 1, "head_dim": 8}
    for family, reason in (("granite", "constant of its own"), ("cohere", "side by side"), ("gemma2", "two norms")):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **sizes, **heads))
        for call in (lambda model=model: normalization.apply(model, "lns"), lambda model=model: describe(model)):
            with pytest.raises(ValueError, match=reason):
                call()


def test_gpt_neox_with_a_parallel_residual_is_refused() -> None:
    model = tiny.stock("gpt_neox", use_parallel_residual=True)
    with pytest.raises(ValueError, match=r"side by side.*use_parallel_residual=False"):
        normalization.apply(model, "lns")
    with pytest.raises(ValueError, match=r"side by side.*use_parallel_residual=False"):
        normalization.config(model.config, "pre")
    assert AutoConfig.for_model("gpt_neox").use_parallel_residual  # as Pythia ships


def test_gpt2_with_cross_attention_is_refused() -> None:
    config = GPT2Config(vocab_size=11, n_embd=8, n_layer=1, n_head=1, add_cross_attention=True)
    with pytest.raises(ValueError, match="cross-attention"):
        normalization.apply(GPT2LMHeadModel(config), "lns")
    with pytest.raises(ValueError, match="cross-attention"):
        normalization.from_config(config, "lns")


@tiny.each_family
def test_a_refused_apply_leaves_the_model_as_it_was(family: str) -> None:
    model = tiny.stock(family)
    config, classes = model.config, [type(m) for m in model.modules()]
    for bad in (
        {"scheme": "mix", "post_layers": 9},
        {"scheme": "lns", "final_norm": False},
        {"scheme": "nope"},
    ):
        with pytest.raises(ValueError):
            normalization.apply(model, **bad)
    assert model.config is config and [type(m) for m in model.modules()] == classes


@tiny.each_family
def test_describe(family: str) -> None:
    def text(model: Any) -> str:
        out = io.StringIO()
        normalization.describe(model, file=out)
        return out.getvalue()

    assert text(tiny.patched(family, "mix", {"post_layers": 2})) == (
        "mix (post_layers=2): Mix-LN, Li et al. 2024, arXiv:2412.13795\n"
        "  layer 1  x <- N(x + F(x))\n"
        "  layer 2  x <- N(x + F(x))\n"
        "  layer 3  x <- x + F(N(x))\n"
        "  layer 4  x <- x + F(N(x))\n"
        "  layer 5  x <- x + F(N(x))\n"
        "  final norm: kept\n"
    )
    assert text(tiny.patched(family, "mix")).startswith("mix (alpha=0.25)")
    assert "x + F(0.7071·N(x))" in text(tiny.patched(family, "lns"))
    assert "N(1.778·x + F(x))" in text(tiny.patched(family, "deepnorm"))
    assert "x + N_out(F(N(x)))" in text(tiny.patched(family, "peri"))
    assert "normalised twice" in text(tiny.patched(family, "post"))
    assert "final norm: dropped" in text(tiny.patched(family, "post", final_norm=False))
    assert "layer 1  x <- x + N(F(x))" in text(tiny.patched(family, "out"))
    assert text(tiny.stock(family)) == text(tiny.patched(family, tiny.stock_scheme(family)))
    assert "N(x + F(x))" in repr(tiny.patched(family, "post"))


@tiny.each_family
def test_no_row_is_frozen_without_a_padding_token(family: str) -> None:
    """Published configs have `pad_token_id: -1`, which freezes a real token's embedding at zero."""
    model = normalization.initialize(normalization.from_config(tiny.config(family, pad_token_id=None), "lns"))
    embedding = model.get_input_embeddings()
    assert embedding.padding_idx is None
    assert embedding.weight.abs().sum(-1).min() > 0
    model(torch.arange(60)[None]).logits.sum().backward()
    assert embedding.weight.grad[:60].abs().sum(-1).min() > 0
