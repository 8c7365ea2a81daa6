"""Logits and residual streams against the equations of `oracle.py`."""

# ruff: noqa: E741 (layer l of L, as in the papers)
from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import AutoModelForCausalLM

import normalization
from tests.normalization import oracle, tiny


def error(model: Any, family: str, rule: Any, **options: Any) -> float:
    ids = tiny.tokens()
    expected = oracle.logits(family, model.state_dict(), model.config, ids, rule, **options)
    return (tiny.logits(model, ids).double() - expected).abs().max().item()


@tiny.each_family
@tiny.each_case
def test_float64_logits_are_the_equation(family: str, scheme: str, options: dict[str, Any]) -> None:
    with tiny.all_float64():
        model = tiny.patched(family, scheme, options, attention="eager").double()
        assert error(model, family, scheme, **options) < 1e-10


@tiny.each_family
@pytest.mark.parametrize(("scheme", "options"), oracle.ENDS_IN_NORM, ids=[s for s, _ in oracle.ENDS_IN_NORM])
def test_float64_logits_without_the_final_norm(family: str, scheme: str, options: dict[str, Any]) -> None:
    with tiny.all_float64():
        model = tiny.patched(family, scheme, options, final_norm=False, attention="eager").double()
        assert error(model, family, scheme, final_norm=False, **options) < 1e-10


@tiny.each_family_and_attention
@tiny.each_scheme
def test_float32_logits_as_shipped(family: str, scheme: str, attention: str) -> None:
    assert error(tiny.patched(family, scheme, attention=attention), family, scheme) < 1e-4


ROPE = {"rope_type": "default", "rope_theta": 100.0}
ARCHITECTURES: list[tuple[str, dict[str, Any]]] = [
    ("llama", {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True}),
    ("mistral", {"sliding_window": None}),
    ("mistral", {"head_dim": 12, "rope_parameters": ROPE}),
    ("qwen2", {"use_sliding_window": True, "sliding_window": 3, "max_window_layers": 2}),
    ("qwen3", {"use_sliding_window": True, "sliding_window": 3, "max_window_layers": 2, "attention_bias": True}),
    ("smollm3", {"no_rope_layer_interval": 2, "tie_word_embeddings": False, "attention_bias": True}),
    ("smollm3", {"use_sliding_window": True, "sliding_window": 3}),
    ("gemma", {"tie_word_embeddings": False, "num_key_value_heads": 1, "attention_bias": True}),
    ("olmo", {"attention_bias": True, "tie_word_embeddings": True}),
    ("olmo2", {"num_key_value_heads": 4, "attention_bias": True}),
    ("olmo3", {"sliding_window": 64}),
    (
        "olmo3",
        {"rope_parameters": {"full_attention": ROPE, "sliding_attention": ROPE | {"rope_theta": 7.0}}},
    ),
    ("mixtral", {"num_experts_per_tok": 1, "sliding_window": 4}),
    ("mixtral", {"num_experts_per_tok": 4}),
    ("qwen3_moe", {"norm_topk_prob": False, "decoder_sparse_step": 2}),
    ("qwen3_moe", {"mlp_only_layers": [], "use_sliding_window": True, "sliding_window": 4}),
    ("phi3", {"partial_rotary_factor": 1.0, "sliding_window": 4, "num_key_value_heads": 4}),
    ("phi3", {"num_key_value_heads": 1, "tie_word_embeddings": True}),
    ("gpt2", {"n_inner": 40, "tie_word_embeddings": False}),
    ("gpt_neox", {"rotary_pct": 1.0, "attention_bias": False, "tie_word_embeddings": True}),
]


@pytest.mark.parametrize(
    ("family", "changes"), ARCHITECTURES, ids=[" ".join([family, *changes]) for family, changes in ARCHITECTURES]
)
@pytest.mark.parametrize("scheme", ["lns", "peri", "out"])
def test_float64_logits_of_other_architectures_in_the_family(family: str, changes: dict[str, Any], scheme: str) -> None:
    with tiny.all_float64():
        model = tiny.patched(family, scheme, attention="eager", **changes).double()
        assert error(model, family, scheme) < 1e-10
    assert error(tiny.patched(family, scheme, attention="sdpa", **changes), family, scheme) < 1e-4


@pytest.mark.parametrize(
    ("family", "changes"),
    [
        ("mistral", {"sliding_window": None}),
        ("smollm3", {"no_rope_layer_interval": 3}),
        ("gemma", {"hidden_size": 31}),
        ("olmo3", {"sliding_window": 5}),
        ("mixtral", {"num_experts_per_tok": 3}),
        ("qwen3_moe", {"norm_topk_prob": False}),
        ("phi3", {"rope_parameters": ROPE | {"rope_theta": 10000.0, "partial_rotary_factor": 1.0}}),
        ("gpt_neox", {"rope_parameters": ROPE | {"rope_theta": 10000.0, "partial_rotary_factor": 1.0}}),
    ],
)
def test_another_architecture_would_be_seen(family: str, changes: dict[str, Any]) -> None:
    model = tiny.patched(family, "pre")
    for name, value in changes.items():
        setattr(model.config, name, value)  # only the oracle reads it now
    ids = tiny.tokens()
    before = tiny.logits(tiny.patched(family, "pre"), ids).double()
    expected = oracle.logits(family, model.state_dict(), model.config, ids, "pre")
    assert (before - expected).abs().max() > 1e-2


@tiny.each_family
@tiny.each_scheme
def test_a_swapped_or_lost_norm_would_be_seen(family: str, scheme: str) -> None:
    model = tiny.patched(family, scheme)
    net = oracle.NETWORKS[family]
    # A norm without weights that stands at the end of the last layer makes another one after it the identity.
    twice = family == "olmo" and (scheme, {}) in oracle.ENDS_IN_NORM
    assert (
        (error(model, family, scheme, final_norm=False) < 1e-4)
        if twice
        else (error(model, family, scheme, final_norm=False) > 1e-2)
    )
    if not list(tiny.layers(model)[0].get_submodule(net.attention_norm).parameters()):
        return
    swapped = model.state_dict()
    for l in range(tiny.LAYERS):
        at = net.layer.format(l)
        for end in (".weight", ".bias"):
            a, b = at + net.attention_norm + end, at + net.mlp_norm + end
            if a in swapped:
                swapped[a], swapped[b] = swapped[b], swapped[a]
    wrong = oracle.logits(family, swapped, model.config, tiny.tokens(), scheme)
    assert (tiny.logits(model).double() - wrong).abs().max() > 1e-2


WRONG = {
    "lns, layers counted from 0 and shifted": (
        "lns",
        lambda x, F, N, M, l, L: oracle.lns(x, F, N, M, l + 1, L),
    ),
    "lns, sublayers counted": ("lns", lambda x, F, N, M, l, L: oracle.lns(x, F, N, M, 2 * l, L)),
    "lns, 1/l": ("lns", lambda x, F, N, M, l, L: x + F(N(x) / l)),
    "lns, output scaled": ("lns", lambda x, F, N, M, l, L: x + F(N(x)) / l**0.5),
    "mix, one layer early": ("mix", lambda x, F, N, M, l, L: oracle.mix(x, F, N, M, l + 1, L)),
    "mix, one layer late": ("mix", lambda x, F, N, M, l, L: oracle.mix(x, F, N, M, l - 1, L)),
    "mix, pre first": ("mix", lambda x, F, N, M, l, L: oracle.mix(x, F, N, M, L + 1 - l, L)),
    "deepnorm, alpha of 32 layers": ("deepnorm", lambda x, F, N, M, l, L: N(2.828 * x + F(x))),
    "deepnorm, alpha without 2": ("deepnorm", lambda x, F, N, M, l, L: N(L**0.25 * x + F(x))),
    "deepnorm, alpha on the branch": ("deepnorm", lambda x, F, N, M, l, L: N(x + (2 * L) ** 0.25 * F(x))),
    "peri, norms exchanged": ("peri", lambda x, F, N, M, l, L: x + N(F(M(x)))),
    "peri, norm after the sum": ("peri", lambda x, F, N, M, l, L: M(x + F(N(x)))),
    "post, norm on the branch": ("post", lambda x, F, N, M, l, L: x + N(F(x))),
    "pre, norm on the stream": ("pre", lambda x, F, N, M, l, L: N(x) + F(N(x))),
    "out, norm before": ("out", lambda x, F, N, M, l, L: x + F(N(x))),
    "out, norm after the sum": ("out", lambda x, F, N, M, l, L: N(x + F(x))),
}


@tiny.each_representative
@pytest.mark.parametrize("mistake", WRONG)
def test_a_wrong_equation_would_be_seen(family: str, mistake: str) -> None:
    scheme, rule = WRONG[mistake]
    assert error(tiny.patched(family, scheme), family, rule) > 1e-2


@tiny.each_family
@tiny.each_scheme
def test_hidden_states_are_complete(family: str, scheme: str) -> None:
    model = tiny.patched(family, scheme)
    caught: list[Tensor] = []
    hooks = [layer.register_forward_hook(lambda _m, _i, out: caught.append(out)) for layer in tiny.layers(model)]
    with torch.no_grad():
        out = model(tiny.tokens(), output_hidden_states=True, use_cache=False)
    for hook in hooks:
        hook.remove()
    assert len(out.hidden_states) == tiny.LAYERS + 1 and all(h is not None for h in out.hidden_states)
    expected, net = oracle.streams(family, model.state_dict(), model.config, tiny.tokens(), scheme)
    assert torch.allclose(out.hidden_states[0].double(), expected[0], atol=1e-5)
    for l in range(1, tiny.LAYERS + 1):
        if l < tiny.LAYERS:
            assert torch.equal(out.hidden_states[l], caught[l - 1])
        assert torch.allclose(caught[l - 1].double(), expected[l], atol=1e-4)
    # transformers takes the last one after the final norm.
    assert torch.allclose(out.hidden_states[-1].double(), net.norm(net.final)(expected[-1]), atol=1e-4)


@tiny.each_family
def test_attention_weights_are_returned(family: str) -> None:
    out = tiny.patched(family, "peri", attention="eager")(tiny.tokens(), output_attentions=True)
    assert len(out.attentions) == tiny.LAYERS
    assert all(torch.allclose(a.sum(-1), torch.ones(())) for a in out.attentions)


@st.composite
def small_models(draw: st.DrawFn) -> tuple[str, Any, str, dict[str, Any], int, int]:
    family = draw(st.sampled_from(tiny.FAMILIES))
    groups, key_value_heads = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    layers = draw(st.integers(1, 6))
    head_dim = 4 * draw(st.integers(1, 3))
    heads = groups * key_value_heads
    width = heads * head_dim  # these three know no other
    if family not in ("gpt2", "gpt_neox", "phi3"):
        width = draw(st.integers(2, 40))
    eps = draw(st.sampled_from([1e-6, 1e-5, 1e-2]))
    config = tiny.config(
        family,
        vocab_size=draw(st.integers(2, 70)),
        hidden_size=width,
        intermediate_size=draw(st.integers(1, 50)),
        moe_intermediate_size=draw(st.integers(1, 50)),
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=key_value_heads,
        head_dim=head_dim,
        rms_norm_eps=eps,
        layer_norm_epsilon=eps,
        layer_norm_eps=eps,
        rope_theta=draw(st.sampled_from([100.0, 10000.0, 500000.0])),
        rotary_emb_base=draw(st.sampled_from([100.0, 10000.0, 500000.0])),
        attention_bias=draw(st.booleans()),
        mlp_bias=draw(st.booleans()),
        tie_word_embeddings=draw(st.booleans()),
    )
    scheme = draw(st.sampled_from(tiny.SCHEMES))
    options = oracle.NEEDED.get(scheme, {})
    if scheme == "mixed":
        assume(layers >= 2)
    if scheme == "mix":
        options = draw(
            st.one_of(
                st.just({}),
                st.builds(dict, post_layers=st.integers(0, layers)),
                st.builds(dict, alpha=st.sampled_from([0.0, 0.3, 0.5, 1.0])),
            )
        )
    return family, config, scheme, options, draw(st.integers(1, 14)), draw(st.integers(0, 99))


@settings(max_examples=100, deadline=None, database=None, derandomize=True)
@given(small_models())
def test_any_small_model_is_the_equation(case: tuple[str, Any, str, dict[str, Any], int, int]) -> None:
    family, config, scheme, options, length, seed = case
    with tiny.all_float64():
        config._experts_implementation = "eager"
        model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").double()
        model = tiny.randomize(normalization.apply(model, scheme, **options), seed)
        ids = tiny.tokens(2, length, seed, config.vocab_size)
        expected = oracle.logits(family, model.state_dict(), config, ids, scheme, **options)
        assert (tiny.logits(model, ids) - expected).abs().max() < 1e-10
