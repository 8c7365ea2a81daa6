"""A patched model trains as a stock one does: gradients, checkpointing, compilation, autocast."""

# ruff: noqa: E741 (layer l of L, as in the papers)
from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import normalization
from tests.normalization import oracle, tiny


def backward(model: Any) -> tuple[Tensor, dict[str, Tensor]]:
    model.zero_grad()
    ids = tiny.tokens()
    loss = model(ids, labels=ids, use_cache=False).loss
    loss.backward()
    return loss.detach(), {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def assert_same_gradients(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


@tiny.each_family
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_the_stock_scheme_is_the_stock_model_bit_for_bit(family: str, attention: str) -> None:
    stock = tiny.stock(family, attention)
    patched = tiny.patched(family, tiny.stock_scheme(family), attention=attention)
    assert type(tiny.layers(patched)[0]) is not type(tiny.layers(stock)[0])
    assert torch.equal(tiny.logits(stock), tiny.logits(patched))
    (loss, gradients), (patched_loss, patched_gradients) = backward(stock), backward(patched)
    assert torch.equal(loss, patched_loss)
    assert_same_gradients(gradients, patched_gradients)


@tiny.each_family
@pytest.mark.parametrize(
    ("scheme", "options", "final_norm"),
    [(*case, True) for case in tiny.CASES] + [(*case, False) for case in oracle.ENDS_IN_NORM],
)
def test_every_parameter_gets_a_gradient(family: str, scheme: str, options: dict[str, Any], final_norm: bool) -> None:
    model = tiny.patched(family, scheme, options, final_norm=final_norm)
    _, gradients = backward(model)
    for name, parameter in model.named_parameters():
        assert name in gradients, name
        if parameter.ndim == 3:  # experts: each of them got tokens
            assert gradients[name].flatten(1).count_nonzero(1).min() > 0.3 * parameter[0].numel(), name
        if parameter is model.get_input_embeddings().weight or "wpe" in name:  # rows of the tokens that were there
            assert gradients[name].count_nonzero(), name
        elif name.endswith("c_attn.bias"):  # the key's bias adds the same to all scores of a query: no gradient
            query, _, value = gradients[name].chunk(3)
            assert query.count_nonzero() and value.count_nonzero(), name
        else:
            assert gradients[name].count_nonzero() > 0.3 * parameter.numel(), name


@tiny.each_family
@tiny.each_scheme
@pytest.mark.parametrize("reentrant", [False, True])
def test_gradient_checkpointing_is_active_and_changes_nothing(family: str, scheme: str, reentrant: bool) -> None:
    model = tiny.patched(family, scheme).train()
    # Counted on entry: recomputation stops inside the last sublayer, as soon as it has what it needs.
    calls: list[str] = []
    for name, module in model.named_modules():
        if name.endswith(".mlp"):
            module.register_forward_pre_hook(lambda *_, name=name: calls.append(name))
    loss, gradients = backward(model)
    assert len(calls) == tiny.LAYERS
    calls.clear()
    model.activation_checkpointing_enable({"use_reentrant": reentrant})
    checkpointed_loss, checkpointed_gradients = backward(model)
    assert len(calls) == 2 * tiny.LAYERS and len(set(calls)) == tiny.LAYERS
    assert torch.equal(loss, checkpointed_loss)
    assert_same_gradients(gradients, checkpointed_gradients)


COMPILED = [("llama", scheme) for scheme in ("mix", "lns", "deepnorm", "peri")] + [
    (family, "peri") for family in tiny.FAMILIES[1:]
]


@pytest.mark.parametrize(("family", "scheme"), COMPILED)
def test_compiles_in_one_graph(family: str, scheme: str) -> None:
    model = tiny.patched(family, scheme, num_hidden_layers=2)
    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    assert torch.allclose(tiny.logits(compiled), tiny.logits(model), atol=1e-5)


@tiny.each_family
@tiny.each_scheme
def test_autocast_bfloat16(family: str, scheme: str) -> None:
    # Every token to every expert: rounding would send some to other ones.
    model = tiny.patched(family, scheme, num_experts_per_tok=4)
    loss, exact = backward(model)
    with torch.autocast("cpu", torch.bfloat16):
        low_loss, low = backward(model)
    assert abs(low_loss - loss) < 0.05 * loss
    # Without a norm before attention its scores can be large, and rounding shows.
    bound = 0.6 if scheme == "out" else 0.2
    for name, gradient in low.items():
        assert gradient.dtype == torch.float32 and gradient.isfinite().all(), name
        assert (gradient - exact[name]).norm() < bound * exact[name].norm() or "c_attn.bias" in name, name


@tiny.each_family
def test_dropout_is_where_the_stock_model_has_it(family: str) -> None:
    dropouts = {"resid_pdrop": 0.3, "hidden_dropout": 0.3, "attention_dropout": 0.3}
    stock = tiny.stock(family, **dropouts).train()
    patched = tiny.patched(family, tiny.stock_scheme(family), **dropouts).train()
    outputs = []
    for model in (stock, patched):
        torch.manual_seed(1)
        outputs.append(tiny.logits(model))
    assert torch.equal(*outputs) and not torch.allclose(outputs[0], tiny.logits(stock.eval()))


@pytest.mark.parametrize(("family", "dropout"), [("phi3", "resid_pdrop"), ("gpt_neox", "hidden_dropout")])
@tiny.each_scheme
def test_dropout_of_the_branch_is_part_of_the_sublayer(family: str, dropout: str, scheme: str) -> None:
    """With all of the branch dropped F is zero, and the stream runs through what the scheme puts around it."""
    model = tiny.patched(family, scheme, **{dropout: 1.0}).train()
    caught: list[Tensor] = []
    for layer in tiny.layers(model):
        layer.register_forward_hook(lambda _m, _i, out: caught.append(out.detach().double()))
    embeddings = torch.randn(2, 3, 32)
    model(inputs_embeds=embeddings, use_cache=False)
    net = oracle.NETWORKS[family](model.state_dict(), model.config)
    x = torch.zeros(2, 3, 32).double() if family == "gpt_neox" else embeddings.double()  # neox drops embeddings too
    for l in range(1, tiny.LAYERS + 1):
        for own in (net.attention_norm, net.mlp_norm):
            N, M = net.norms(net.at(l) + own)
            x = oracle.SCHEMES[scheme](x, torch.zeros_like, N, M, l, tiny.LAYERS, **oracle.NEEDED.get(scheme, {}))
        assert torch.allclose(caught[l - 1], x, atol=1e-4)


@pytest.mark.parametrize("family", ["mixtral", "qwen3_moe"])
@tiny.each_scheme
def test_the_routers_balancing_loss_is_kept(family: str, scheme: str) -> None:
    model, ids = tiny.patched(family, scheme), tiny.tokens()
    out = model(ids, labels=ids, output_router_logits=True, use_cache=False)
    sparse = [layer for layer in tiny.layers(model) if hasattr(layer.mlp, "experts")]
    assert len(out.router_logits) == len(sparse) == tiny.LAYERS - (family == "qwen3_moe")
    assert out.aux_loss > 0
    plain = model(ids, labels=ids, use_cache=False).loss
    assert torch.allclose(out.loss, plain + model.config.router_aux_loss_coef * out.aux_loss)
    if scheme == "pre":
        stock_out = tiny.stock(family)(ids, labels=ids, output_router_logits=True, use_cache=False)
        assert torch.equal(out.aux_loss, stock_out.aux_loss) and torch.equal(out.loss, stock_out.loss)


@tiny.each_scheme
def test_no_sublayer_writes_into_the_stream(scheme: str) -> None:
    """Mixtral's jitter multiplies the input of its MLP in place: where no norm stands before it, that is the stream."""
    with pytest.raises(ValueError, match="router_jitter_noise"):
        tiny.patched("mixtral", scheme, router_jitter_noise=0.5)


@tiny.each_family
@tiny.each_scheme
def test_a_step_with_one_token_each_is_finite(family: str, scheme: str) -> None:
    model = tiny.patched(family, scheme)
    logits = model(tiny.tokens(1, 1)).logits
    logits.sum().backward()
    assert logits.isfinite().all() and all(p.grad.isfinite().all() for p in model.parameters())


def test_a_model_compiled_in_place_follows_the_scheme_placed_afterwards() -> None:
    torch._dynamo.reset()
    model = tiny.stock("llama", num_hidden_layers=2)
    model.compile(backend="eager")
    tiny.logits(model)
    normalization.apply(model, "lns")
    assert torch.allclose(tiny.logits(model), tiny.logits(tiny.patched("llama", "lns", num_hidden_layers=2)), atol=1e-5)
