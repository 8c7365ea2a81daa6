"""What a measurement leaves behind: nothing."""

from __future__ import annotations

import copy
import re
from typing import Any

import numpy as np
import pytest
import torch

from lab.diagnostics import Options, Probe, measure, names
from lab.diagnostics.base import NotApplicableError, Reading
from lab.diagnostics.engine.block_sums import BlockSums
from lab.diagnostics.measurement import measure as measure_now
from lab.diagnostics.measures.angular import cosines
from lab.diagnostics.values import Figure
from lab.errors import RunError, UserError
from tests.lab.diagnostics.models import build, probe
from tests.normalization import tiny

SMALL = Options(sparsity_blocks=1, sparsity_levels_all=("0.5",), removal_max=2)


class State:
    """Everything about a model that a measurement could change."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.weights = copy.deepcopy(model.state_dict())
        self.gradients = [None if p.grad is None else p.grad.clone() for p in model.parameters()]
        self.learning = [p.requires_grad for p in model.parameters()]
        self.training = [module.training for module in model.modules()]
        self.attention = model.config._attn_implementation
        self.random = torch.get_rng_state()

    def check(self) -> None:
        for name, weight in self.model.state_dict().items():
            assert torch.equal(weight, self.weights[name]), name
        for parameter, before in zip(self.model.parameters(), self.gradients, strict=True):
            assert (parameter.grad is None) if before is None else torch.equal(parameter.grad, before)
        assert [p.requires_grad for p in self.model.parameters()] == self.learning
        assert [module.training for module in self.model.modules()] == self.training
        assert self.model.config._attn_implementation == self.attention
        assert torch.equal(torch.get_rng_state(), self.random)
        for module in self.model.modules():
            assert not module._forward_hooks and not module._forward_pre_hooks and not module._backward_hooks


def training_model() -> Any:
    """A model in the middle of a training step: gradients, frozen weights, some modules in evaluation mode."""
    model = build("llama", "lns").train()
    tiny.layers(model)[1].eval()
    model.get_input_embeddings().weight.requires_grad_(False)
    ids = tiny.tokens()
    model(ids, labels=ids, use_cache=False).loss.backward()
    return model


@pytest.mark.parametrize("name", names())
def test_every_diagnostic_is_finite_deterministic_and_leaves_nothing(name: str) -> None:
    model = training_model()
    state = State(model)
    first = measure(model, probe(), only=name, options=SMALL)
    state.check()
    torch.randn(3)
    second = measure(model, probe(), only=name, options=SMALL)
    assert not first.failures
    for key, figure in first.diagnostics[name].items():
        finite = np.isfinite(figure.values)
        assert finite.any(), key
        assert finite.all() or "NaN" in figure.reduction, key
        assert figure.unit and figure.reduction
        np.testing.assert_array_equal(figure.values, second.diagnostics[name][key].values)


@pytest.mark.parametrize("error", [KeyboardInterrupt, ZeroDivisionError])
@pytest.mark.parametrize("at", ["decode", "layer", "pruned"])
def test_nothing_stays_after_an_interruption(
    error: type[BaseException], at: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = training_model()
    state = State(model)
    calls = 0

    def interrupt(*args: Any, **kwargs: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise error

    if at == "decode":
        handle = model.get_output_embeddings().register_forward_hook(interrupt)
    elif at == "layer":
        handle = tiny.layers(model)[2].register_forward_hook(interrupt)
    else:
        calls = 2  # at once, while the first layer's weights are pruned
        monkeypatch.setattr("lab.diagnostics.engine.streams.Streams.run", interrupt)
        handle = model.register_forward_hook(lambda *args: None)
    only = "sparsity" if at == "pruned" else None
    if error is ZeroDivisionError and at == "pruned":  # in an experiment of its own; else in a pass that all share
        assert "ZeroDivisionError" in " ".join(measure(model, probe(), only=only, options=SMALL).failures.values())
    else:
        with pytest.raises(error):
            measure(model, probe(), only=only, options=SMALL)
    handle.remove()
    state.check()


def test_a_diagnostic_that_does_not_apply_says_so_and_the_others_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Any) -> None:
        raise NotApplicableError("rank: not on this model, for a reason")

    monkeypatch.setattr("lab.diagnostics.measures.rank.Rank.prepare", refuse)
    record = measure(build("llama", None), probe(), only="rank,angular")
    assert record.failures == {"rank": "rank: not on this model, for a reason"}
    assert set(record.diagnostics) == {"angular"}
    with pytest.raises(KeyError, match="for a reason"):
        record.figure("rank/effective_rank")


def test_attention_without_weights_is_named_and_the_others_run(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build("llama", None)
    monkeypatch.setattr(type(model), "_can_set_attn_implementation", classmethod(lambda cls: False))
    record = measure(model, probe(), only="attention,angular,variance")
    assert "'sdpa' of attention in layer 1 returns no weights" in record.failures["attention"]
    assert set(record.diagnostics) == {"angular", "variance"}


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("DefaultCPUAllocator: can't allocate memory")]
)
def test_no_memory_names_the_setting(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any, **kwargs: Any) -> None:
        raise error

    monkeypatch.setattr("lab.diagnostics.measures.removal.decode_all", fail)
    record = measure(build("llama", None), probe(), only="removal,jacobian", options=Options(batch=3))
    assert "lower --batch (now 3) or --block-length (now 9)" in record.failures["removal"]
    assert set(record.diagnostics) == {"jacobian"}


@pytest.mark.parametrize("at", ["prepare", "update", "figures"])
@pytest.mark.parametrize("error", [RuntimeError("shapes differ"), IndexError("out of range"), AssertionError("broken")])
def test_a_broken_diagnostic_is_named_and_the_others_run(
    at: str, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: Any, *args: Any) -> None:
        raise error

    monkeypatch.setattr(f"lab.diagnostics.measures.rank.Rank.{at}", fail)
    record = measure(build("llama", None), probe(), only="rank,angular,gradients")
    assert record.failures == {"rank": f"{type(error).__name__}: {error}"}
    assert set(record.diagnostics) == {"angular", "gradients"}


def test_the_failure_of_a_broken_diagnostic_says_the_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lab.diagnostics.measures.rank.stream_axis", None)
    (reason,) = measure(build("llama", None), probe(), only="rank").failures.values()
    assert re.fullmatch(r"rank\.py:\d+: TypeError: 'NoneType' object is not callable", reason)


def test_one_pass_feeds_all_readings_and_memory_follows_the_batch() -> None:
    model = build("llama", None)
    calls: list[int] = []
    handle = model.model.register_forward_hook(lambda module, args, kwargs, output: calls.append(1), with_kwargs=True)
    measure(model, probe((5,) * 7), only="variance,angular,rank,lens,attention", options=Options(batch=2))
    handle.remove()
    assert len(calls) == 4  # batches of 7 blocks, each passed once


def test_other_vocabulary_and_length_are_refused() -> None:
    model = build("llama", None)
    beyond = Probe.from_ids(np.array([[3, 61, 2]]), "other.npy")
    with pytest.raises(RunError, match="holds token id 61, and this model's vocabulary ends at 60"):
        measure(model, beyond)
    with pytest.raises(RunError, match="blocks have 65 tokens, and this model's positions end at 64"):
        measure(model, Probe.from_ids(np.ones((1, 65), dtype=int)))


def test_unknown_family_says_what_is_missing() -> None:
    from transformers import BloomConfig, BloomForCausalLM

    model = BloomForCausalLM(BloomConfig(vocab_size=61, hidden_size=32, n_layer=2, n_head=4))
    with pytest.raises(RunError, match="'bloom' model keeps its layers: it has no entry in normalization/families.py"):
        measure(model, probe())


def test_unknown_diagnostic_names_the_nearest() -> None:
    with pytest.raises(UserError, match=r"--only anguler: no such diagnostic \(did you mean angular\?\)"):
        measure(build("llama", None), probe(), only="anguler")


def test_a_diagnostic_is_one_class(monkeypatch: pytest.MonkeyPatch) -> None:
    from lab.diagnostics import registry

    monkeypatch.setattr(registry, "_DIAGNOSTICS", dict(registry._DIAGNOSTICS))

    @registry.diagnostic("largest_norm", source="this test")
    class LargestNorm(Reading):
        def prepare(self) -> None:
            self.largest = self.total(self.session.depth + 1)

        def update(self, streams: Any) -> None:
            for place, stream in enumerate(streams.hidden):
                norm = stream[streams.batch.real].norm(dim=-1).max()
                self.largest[place] = torch.maximum(self.largest[place], norm.double())

        def figures(self) -> dict[str, Figure]:
            return {"norm": Figure(self.largest.numpy(), {"stream": range(self.session.depth + 1)}, "1", "largest")}

    record = measure_now(build("gpt2", "peri"), probe(), only="largest_norm")
    assert (record.figure("largest_norm/norm").values > 0).all()
    with pytest.raises(ValueError, match="two diagnostics are called 'angular'"):
        registry.diagnostic("angular", source="")(LargestNorm)


def test_identical_vectors_are_at_angle_zero_and_rounding_never_gives_nan() -> None:
    vectors = torch.randn(512, 1, 576, generator=torch.Generator().manual_seed(0))
    same = cosines(vectors.expand(-1, 3, -1))
    assert (same.arccos() == 0).all()
    scaled = cosines(torch.cat([vectors, 3.7 * vectors, -vectors, torch.zeros_like(vectors)], dim=1))
    assert torch.isfinite(scaled.arccos()).all()
    assert scaled[:, 0, 1].arccos().max() < 1e-6
    assert (scaled[:, 0, 2] == -1).all() or scaled[:, 0, 2].arccos().min() > 3.14159
    assert (scaled[:, 0, 3] == 0).all()
    nudged = cosines(torch.cat([vectors, vectors + 1e-4 * vectors.roll(1, -1)], dim=1))[:, 0, 1].arccos()
    assert nudged.min() > 5e-5  # a small angle is not rounded away


def test_layers_that_do_nothing_are_at_angle_zero() -> None:
    model = build("llama", None)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "o_proj" in name or "down_proj" in name:
                weight.zero_()
    record = measure(model, probe(), only="angular,jacobian,removal")
    assert (record.figure("angular/distance").values == 0).all()
    assert (record.figure("angular/influence").values == 0).all()
    assert (record.figure("jacobian/distance").values == 0).all()
    assert np.abs(record.figure("removal/increase").values).max() < 1e-6


def test_block_sums_pool_and_know_their_error() -> None:
    sums = BlockSums(4, (2,), torch.device("cpu"))
    values = [np.random.default_rng(b).normal(size=(n, 2)) for b, n in enumerate((3, 5, 2))]
    for row, block in enumerate(values):
        sums.add(slice(row, row + 1), slice(None), torch.from_numpy(block.sum(0))[None])
        sums.count(slice(row, row + 1), torch.tensor([len(block)]))
    np.testing.assert_allclose(sums.mean(), np.concatenate(values).mean(0))
    assert np.isfinite(sums.error()).all()
    one = BlockSums(1, (), torch.device("cpu"))
    one.count(slice(0, 1), torch.tensor([2]))
    assert np.isnan(one.error())
