"""Properties that hold for any model: random small configs of every family, random batches."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from typing import Any

import torch
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import AutoModelForCausalLM

import normalization
from tests.normalization import tiny

FOLDABLE = tuple(family for family in tiny.FAMILIES if family not in ("olmo", "olmo2", "olmo3"))

examples = settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)


@dataclass(frozen=True)
class Example:
    """A family, changes to its tiny config, and the tokens to try it on."""

    family: str
    changes: dict[str, Any]
    seed: int
    batch: int
    length: int

    def stock(self) -> Any:
        return tiny.randomize(AutoModelForCausalLM.from_config(tiny.config(self.family, **self.changes)), self.seed)

    def patched(self, scheme: str, options: dict[str, Any]) -> Any:
        return tiny.randomize(normalization.apply(self.stock(), scheme, **options), self.seed)

    def ids(self) -> Tensor:
        return tiny.tokens(self.batch, self.length, self.seed, self.changes["vocab_size"])


@st.composite
def models(draw: st.DrawFn, families: tuple[str, ...] = tiny.FAMILIES) -> Example:
    family = draw(st.sampled_from(families))
    groups = draw(st.sampled_from([1, 2, 3]))
    shared = draw(st.sampled_from([1, 2]))
    width = draw(st.sampled_from([4, 8]))
    grouped = family not in ("gpt2", "gpt_neox")
    heads = groups * shared if grouped else draw(st.sampled_from([1, 2, 4]))
    changes: dict[str, Any] = {
        "vocab_size": draw(st.integers(11, 40)),
        "num_hidden_layers": draw(st.integers(1, 5)),
        "num_attention_heads": heads,
        "num_key_value_heads": shared if grouped else heads,
        "hidden_size": heads * width,
        "head_dim": width,
        "intermediate_size": draw(st.integers(1, 10)) * 4,  # the kernel of experts wants rows of 16 bytes
        "tie_word_embeddings": draw(st.booleans()),
    }
    if family in ("llama", "mistral", "qwen3", "smollm3", "gemma", "olmo", "olmo2", "olmo3", "gpt_neox"):
        changes["attention_bias"] = draw(st.booleans())
    if family in ("llama", "smollm3"):
        changes["mlp_bias"] = draw(st.booleans())
    if family == "qwen3_moe":
        changes["mlp_only_layers"] = draw(st.lists(st.integers(0, 4), max_size=3, unique=True))
    if family in ("mixtral", "qwen3_moe"):
        changes["num_experts_per_tok"] = draw(st.integers(1, 3))
    length = draw(st.integers(1, 12))
    return Example(family, changes, draw(st.integers(0, 2**16)), draw(st.integers(1, 3)), length)


@st.composite
def placements(draw: st.DrawFn) -> tuple[Example, str, dict[str, Any]]:
    """A model and a scheme that fits its depth."""
    example = draw(models())
    depth = example.changes["num_hidden_layers"]
    scheme = draw(st.sampled_from(tiny.SCHEMES))
    options: dict[str, Any] = {}
    if scheme == "mix":
        options = draw(
            st.one_of(
                st.fixed_dictionaries({"alpha": st.floats(0, 1)}),
                st.fixed_dictionaries({"post_layers": st.integers(0, depth)}),
            )
        )
    if scheme == "mixed":
        names = st.lists(st.sampled_from(["pre", "post", "lns", "peri", "deepnorm", "out"]), min_size=1, max_size=2)
        options = {"layers": ["1 " + "+".join(draw(names)) for _ in range(depth)]}
    return example, scheme, options


@given(models())
@examples
def test_the_stock_scheme_changes_no_bit(example: Example) -> None:
    stock, ids = example.stock(), example.ids()
    scheme = tiny.stock_scheme(example.family)
    expected = tiny.logits(stock, ids)
    assert torch.isfinite(expected).all()
    stock.train()
    loss = stock(ids, labels=ids, use_cache=False).loss
    loss.backward()
    gradients = {name: p.grad.clone() for name, p in stock.named_parameters() if p.grad is not None}

    model = example.patched(scheme, {})
    assert isinstance(tiny.layers(model)[0], normalization.layers.PatchedLayer)
    assert torch.equal(tiny.logits(model, ids), expected)
    model.train()
    patched_loss = model(ids, labels=ids, use_cache=False).loss
    assert torch.equal(patched_loss, loss) or (example.length == 1 and torch.isnan(loss))
    patched_loss.backward()
    for name, parameter in model.named_parameters():
        if name in gradients:
            assert torch.equal(parameter.grad, gradients[name]) or example.length == 1, name


@given(placements())
@examples
def test_saved_and_loaded_it_is_the_same(placement: tuple[Example, str, dict[str, Any]]) -> None:
    example, scheme, options = placement
    event(scheme)
    model, ids = example.patched(scheme, options), example.ids()
    expected = tiny.logits(model, ids)
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        again, report = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert not any(report.values()), report
    weights = again.state_dict()
    assert all(torch.equal(weights[name], value) for name, value in model.state_dict().items())
    # Weights that lie elsewhere in memory may take another kernel at such sizes: copied, they are where they were.
    for parameter in again.parameters():
        parameter.data = parameter.data.clone()
    assert torch.equal(tiny.logits(again, ids), expected)
    assert normalization.plans(again) == normalization.plans(model)


@given(placements(), st.sampled_from(["left", "right"]), st.data())
@examples
def test_a_padded_batch_equals_single_sequences(
    placement: tuple[Example, str, dict[str, Any]], side: str, data: st.DataObject
) -> None:
    example, scheme, options = placement
    event(side)
    model, ids = example.patched(scheme, options), example.ids()
    lengths = [data.draw(st.integers(1, example.length)) for _ in range(example.batch)]
    positions = torch.arange(example.length)
    mask = torch.stack(
        [positions >= example.length - length if side == "left" else positions < length for length in lengths]
    ).long()
    with torch.no_grad():
        together = model(
            ids, attention_mask=mask, position_ids=(mask.cumsum(-1) - 1).clamp(min=0), use_cache=False
        ).logits
    for row, single in enumerate(ids):
        kept = mask[row].bool()
        assert torch.allclose(together[row, kept], tiny.logits(model, single[kept][None])[0], atol=2e-4)


@given(models(FOLDABLE))
@examples
def test_folded_and_unfolded_it_computes_the_same(example: Example) -> None:
    model, ids = example.patched("lns", {}), example.ids()
    expected = tiny.logits(model, ids)
    folded = normalization.fold(model)
    assert type(folded) is type(example.stock())
    assert torch.allclose(tiny.logits(folded, ids), expected, atol=2e-4)
    again = normalization.from_pre_ln(folded)
    assert normalization.plans(again) == normalization.plans(model)
    assert torch.allclose(tiny.logits(again, ids), expected, atol=2e-4)
    for name, parameter in model.named_parameters():
        assert torch.allclose(dict(again.named_parameters())[name], parameter, atol=1e-5), name
