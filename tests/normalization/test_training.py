"""A patched model trains as a stock one does: gradients, checkpointing, compilation, autocast."""

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
def test_pre_is_the_stock_model_bit_for_bit(family: str, attention: str) -> None:
    stock, patched = tiny.stock(family, attention), tiny.patched(family, "pre", attention=attention)
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


@tiny.each_family
@tiny.each_scheme
def test_compiles_in_one_graph(family: str, scheme: str) -> None:
    model = tiny.patched(family, scheme, num_hidden_layers=2)
    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    assert torch.allclose(tiny.logits(compiled), tiny.logits(model), atol=1e-5)


@tiny.each_family
@tiny.each_scheme
def test_autocast_bfloat16(family: str, scheme: str) -> None:
    model = tiny.patched(family, scheme)
    loss, exact = backward(model)
    with torch.autocast("cpu", torch.bfloat16):
        low_loss, low = backward(model)
    assert abs(low_loss - loss) < 0.05 * loss
    for name, gradient in low.items():
        assert gradient.dtype == torch.float32 and gradient.isfinite().all(), name
        assert (gradient - exact[name]).norm() < 0.2 * exact[name].norm() or "c_attn.bias" in name, name


@tiny.each_family
def test_dropout_is_where_the_stock_model_has_it(family: str) -> None:
    stock = tiny.stock(family, resid_pdrop=0.3, attention_dropout=0.3).train()
    patched = tiny.patched(family, "pre", resid_pdrop=0.3, attention_dropout=0.3).train()
    outputs = []
    for model in (stock, patched):
        torch.manual_seed(1)
        outputs.append(tiny.logits(model))
    assert torch.equal(*outputs) and not torch.allclose(outputs[0], tiny.logits(stock.eval()))


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
