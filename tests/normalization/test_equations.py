"""Logits and residual streams against the equations of `oracle.py`."""

# ruff: noqa: E741 (layer l of L, as in the papers)
from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

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


@tiny.each_family
@tiny.each_case
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_float32_logits_as_shipped(family: str, scheme: str, options: dict[str, Any], attention: str) -> None:
    model = tiny.patched(family, scheme, options, attention=attention)
    assert error(model, family, scheme, **options) < 1e-4


@tiny.each_family
@tiny.each_scheme
def test_a_swapped_or_lost_norm_would_be_seen(family: str, scheme: str) -> None:
    model = tiny.patched(family, scheme)
    net = oracle.NETWORKS[family]
    swapped = model.state_dict()
    for l in range(tiny.LAYERS):
        at = net.layer.format(l)
        for end in (".weight", ".bias"):
            a, b = at + net.attention_norm + end, at + net.mlp_norm + end
            if a in swapped:
                swapped[a], swapped[b] = swapped[b], swapped[a]
    wrong = oracle.logits(family, swapped, model.config, tiny.tokens(), scheme)
    assert (tiny.logits(model).double() - wrong).abs().max() > 1e-2
    assert error(model, family, scheme, final_norm=False) > 1e-2


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
}


@tiny.each_family
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
    expected, net = oracle.streams(family, model.state_dict(), model.config, tiny.tokens(), oracle.SCHEMES[scheme])
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
def llama_cases(draw: st.DrawFn) -> tuple[LlamaConfig, str, dict[str, Any], int, int]:
    groups, key_value_heads = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    layers = draw(st.integers(1, 6))
    config = LlamaConfig(
        vocab_size=draw(st.integers(2, 70)),
        hidden_size=groups * key_value_heads * draw(st.integers(2, 8)),
        intermediate_size=draw(st.integers(1, 50)),
        num_hidden_layers=layers,
        num_attention_heads=groups * key_value_heads,
        num_key_value_heads=key_value_heads,
        head_dim=2 * draw(st.integers(1, 6)),
        rms_norm_eps=draw(st.sampled_from([1e-6, 1e-5, 1e-2])),
        rope_parameters={
            "rope_type": "default",
            "rope_theta": draw(st.sampled_from([100.0, 10000.0, 500000.0])),
        },
        attention_bias=draw(st.booleans()),
        mlp_bias=draw(st.booleans()),
        tie_word_embeddings=draw(st.booleans()),
        bos_token_id=None,
        eos_token_id=None,
    )
    scheme = draw(st.sampled_from(tiny.SCHEMES))
    options: dict[str, Any] = {}
    if scheme == "mix":
        options = draw(
            st.one_of(
                st.just({}),
                st.builds(dict, post_layers=st.integers(0, layers)),
                st.builds(dict, alpha=st.sampled_from([0.0, 0.3, 0.5, 1.0])),
            )
        )
    return config, scheme, options, draw(st.integers(1, 14)), draw(st.integers(0, 99))


@settings(max_examples=25, deadline=None, database=None, derandomize=True)
@given(llama_cases())
def test_any_llama_is_the_equation(case: tuple[LlamaConfig, str, dict[str, Any], int, int]) -> None:
    config, scheme, options, length, seed = case
    model = tiny.randomize(normalization.apply(LlamaForCausalLM(config), scheme, **options), seed)
    ids = tiny.tokens(2, length, seed, config.vocab_size)
    expected = oracle.logits("llama", model.state_dict(), config, ids, scheme, **options)
    assert (tiny.logits(model, ids).double() - expected).abs().max() < 1e-4
