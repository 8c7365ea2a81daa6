"""Each diagnostic against `slow_formulas`, in every scheme and many families, on padded blocks of unequal lengths."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from torch.nn.functional import cross_entropy

from lab.diagnostics import Options, Record, measure
from lab.diagnostics.engine.processes import Processes
from lab.diagnostics.engine.session import Session
from lab.diagnostics.engine.streams import Streams
from lab.diagnostics.measures.jacobian import Jacobian
from normalization.api import family_of
from tests.lab.diagnostics import slow_formulas as slow
from tests.lab.diagnostics.models import build, each_case, each_kind, probe
from tests.normalization import tiny

DEPTH = tiny.LAYERS
PROBE = probe()


def measured(model: Any, only: str, **options: Any) -> Record:
    return measure(model, PROBE, only=only, options=Options(batch=2, **options))


@each_case
def test_variance_angular_and_rank_are_those_of_the_streams(family: str, scheme: str | None) -> None:
    model = build(family, scheme)
    record = measured(model, "variance,angular,rank")
    streams = slow.all_streams(model, PROBE)

    variances = streams.var(-1)
    assert_allclose(record.figure("variance/stream_mean").values, variances.mean(1), rtol=1e-4)
    assert_allclose(record.figure("variance/stream_median").values, np.median(variances, axis=1), rtol=1e-4)
    squares = np.sort(np.square(streams).reshape(DEPTH + 1, -1), axis=1)
    assert_allclose(record.figure("variance/largest_share").values, squares[:, -8:].sum(1) / squares.sum(1), rtol=1e-4)

    tokens = streams.shape[1]
    angles = np.array(
        [
            [[slow.angle(streams[i, t], streams[j, t]) for t in range(tokens)] for j in range(DEPTH + 1)]
            for i in range(DEPTH + 1)
        ]
    )
    assert_allclose(record.figure("angular/distance").values, angles.mean(-1), atol=2e-6)
    last = [8, 8 + 4, 8 + 4 + 7]  # blocks of 9, 4 and 7 tokens
    assert_allclose(record.figure("angular/distance_last").values, angles[:, :, last].mean(-1), atol=2e-6)
    influence = [1 - np.cos(np.pi * angles[i, i + 1]).mean() for i in range(DEPTH)]
    assert_allclose(record.figure("angular/influence").values, influence, rtol=1e-3, atol=1e-6)

    for place, stream in enumerate(streams):
        singular = np.linalg.svd(stream, compute_uv=False)
        share = singular / singular.sum()
        assert record.figure("rank/effective_rank").at(stream=place) == pytest.approx(
            np.exp(-(share * np.log(share)).sum()), rel=1e-4
        )
        unit = stream / np.linalg.norm(stream, axis=1, keepdims=True)
        cosines = unit @ unit.T
        different = cosines[~np.eye(tokens, dtype=bool)].mean()
        assert record.figure("rank/anisotropy").at(stream=place) == pytest.approx(different, abs=1e-5)


@each_case
@torch.no_grad()
def test_lens_decodes_each_stream(family: str, scheme: str | None) -> None:
    model = build(family, scheme)
    record = measured(model, "lens")
    norm, head = model.get_submodule(family_of(model).final_norm), model.get_output_embeddings()
    own, targets = slow.log_probabilities(model, PROBE)
    decoded: list[list[np.ndarray]] = [[] for _ in range(DEPTH + 1)]
    for ids, known in slow.blocks(PROBE):
        for place, stream in enumerate(slow.streams(model, ids)):
            logits = head(norm(torch.from_numpy(stream[: len(known)]).float()))
            decoded[place].append(slow.log_softmax(logits.double().numpy()))
    for place in range(DEPTH + 1):
        predictions = np.concatenate(decoded[place])
        loss = -np.mean([row[target] for row, target in zip(predictions, targets, strict=True)])
        assert record.figure("lens/loss").at(stream=place) == pytest.approx(loss, rel=1e-5)
        assert record.figure("lens/kl").at(stream=place) == pytest.approx(slow.kl(own, predictions), rel=1e-4, abs=2e-6)
        hits = np.mean(predictions.argmax(-1) == targets)
        assert record.figure("lens/top1").at(stream=place) == pytest.approx(hits)
    assert record.figure("lens/loss").at(stream=DEPTH) == pytest.approx(slow.loss(model, PROBE), rel=1e-5)


@each_case
def test_removal_is_the_model_without_the_layer(family: str, scheme: str | None) -> None:
    model = build(family, scheme)
    record = measured(model, "removal", removal_max=DEPTH)
    full = slow.loss(model, PROBE)
    own, targets = slow.log_probabilities(model, PROBE)
    assert record.figure("removal/full_loss").at() == pytest.approx(full, rel=1e-5)
    assert record.figure("removal/full_perplexity").at() == pytest.approx(np.exp(full), rel=1e-4)
    for layer in range(1, DEPTH + 1):
        predictions, _ = slow.log_probabilities(slow.deleted(model, {layer}), PROBE)
        loss = -np.mean([row[target] for row, target in zip(predictions, targets, strict=True)])
        assert record.figure("removal/loss").at(layer=layer) == pytest.approx(loss, rel=1e-5)
        assert record.figure("removal/increase").at(layer=layer) == pytest.approx(loss - full, abs=1e-5)
        assert record.figure("removal/kl").at(layer=layer) == pytest.approx(
            slow.kl(own, predictions), rel=1e-4, abs=2e-6
        )
        assert record.figure("removal/top1").at(layer=layer) == pytest.approx(
            np.mean(predictions.argmax(-1) == targets)
        )
    blocks = record.figure("removal/block_increase")
    for layer in range(1, DEPTH + 1):
        for length in range(1, DEPTH + 1):
            gone = set(range(layer, layer + length))
            if max(gone) > DEPTH:
                assert np.isnan(blocks.at(layer=layer, removed=length))
            elif length in (2, DEPTH):  # two of the lengths: the copies take time
                expected = _loss_of_streams(model) if length == DEPTH else slow.loss(slow.deleted(model, gone), PROBE)
                assert blocks.at(layer=layer, removed=length) == pytest.approx(expected - full, abs=2e-5)


@torch.no_grad()
def _loss_of_streams(model: Any) -> float:
    """Without any layer: the embeddings decoded."""
    norm, head = model.get_submodule(family_of(model).final_norm), model.get_output_embeddings()
    rows = []
    for ids, known in slow.blocks(PROBE):
        logits = head(norm(torch.from_numpy(slow.streams(model, ids)[0][: len(known)]).float()))
        predictions = slow.log_softmax(logits.double().numpy())
        rows += [-row[target] for row, target in zip(predictions, known.numpy(), strict=True)]
    return float(np.mean(rows))


@each_case
def test_gradients_are_those_of_the_mean_loss(family: str, scheme: str | None) -> None:
    model = build(family, scheme)
    record = measured(model, "gradients")
    model.zero_grad()
    rows = slow.blocks(PROBE)
    total = sum(
        cross_entropy(model(ids, use_cache=False).logits[0, : len(known)], known, reduction="sum")
        for ids, known in rows
    )
    (total / sum(len(known) for _, known in rows)).backward()
    for number, layer in enumerate(tiny.layers(model), start=1):
        squares = sum(float(p.grad.double().square().sum()) for p in layer.parameters() if p.grad is not None)
        weights = sum(float(p.detach().double().square().sum()) for p in layer.parameters())
        assert record.figure("gradients/layer").at(layer=number) == pytest.approx(squares**0.5, rel=1e-4)
        assert record.figure("gradients/layer_relative").at(layer=number) == pytest.approx(
            (squares / weights) ** 0.5, rel=1e-4
        )
        attention = layer.get_submodule(family_of(model).attention)
        without_norms = sum(float(p.grad.double().square().sum()) for p in attention.parameters())
        assert record.figure("gradients/attention").at(layer=number) >= without_norms**0.5 * (1 - 1e-5)
    parts = record.figure("gradients/attention").values ** 2 + record.figure("gradients/mlp").values ** 2
    assert_allclose(parts, record.figure("gradients/layer").values ** 2, rtol=1e-6)
    embedding = model.get_input_embeddings().weight
    others = embedding.grad.double().square().sum()
    if family == "gpt2":
        others = others + model.transformer.wpe.weight.grad.double().square().sum()
    assert record.figure("gradients/embedding").at() == pytest.approx(float(others.sqrt()), rel=1e-4)


@each_kind
def test_jacobian_is_that_of_the_full_matrix(family: str, scheme: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Along every unit vector instead of random directions the estimator is |J - I|_F^2 / (T D) itself."""
    model = build(family, scheme)
    short = probe((4, 3))

    def unit_vector(self: Any, streams: Any, sample: int) -> torch.Tensor:
        stream, real = streams.hidden[0], streams.batch.real
        unit = torch.zeros(stream.shape[1:]).flatten().index_fill(0, torch.tensor(sample), 1.0).view(stream.shape[1:])
        return unit.expand_as(stream) * real[..., None]

    monkeypatch.setattr("lab.diagnostics.measures.jacobian.Jacobian._direction", unit_vector)
    every = Options(jacobian_samples=4 * model.config.hidden_size)
    figure = measure(model, short, only="jacobian", options=every).figure("jacobian/distance")
    assert figure.error is not None
    exact = np.array([_full_jacobians(model, ids) for ids, _ in slow.blocks(short)])
    tokens = np.array([4, 3])[:, None]
    assert_allclose(figure.values, (exact * tokens).sum(0) / tokens.sum(), rtol=1e-4)


def test_directions_of_the_jacobian_are_white_and_spare_the_padding() -> None:
    """E[u u'] = I is all that Hutchinson's estimator needs: over n samples each entry is within 5 / sqrt(n) of it."""
    model, padded = build("llama", None), probe((2, 1))
    session = Session(model, padded, Options(), Processes())
    batch = next(iter(session.batches()))
    streams = Streams(session, batch, hidden=[torch.zeros(1, 2, 32)])
    drawn = torch.stack([Jacobian(session)._direction(streams, sample).flatten() for sample in range(1600)])
    covariance = drawn.T @ drawn / len(drawn)
    assert (covariance - torch.eye(64)).abs().max() < 5 * math.sqrt(2 / 1600)
    short = list(session.batches())[1]
    streams = Streams(session, short, hidden=[torch.zeros(1, 2, 32)])
    direction = Jacobian(session)._direction(streams, 0)
    assert (direction[0, 1] == 0).all() and (direction[0, 0] != 0).all()


def _full_jacobians(model: Any, ids: torch.Tensor) -> np.ndarray:
    """|J - I|_F^2 / (T D) of each layer on one block."""
    inputs: list[Any] = []

    def catch(module: Any, args: Any, kwargs: Any) -> None:
        inputs.append((args, dict(kwargs)))

    layers = tiny.layers(model)
    handles = [layer.register_forward_pre_hook(catch, with_kwargs=True) for layer in layers]
    with torch.no_grad():
        model(ids, use_cache=False)
    for handle in handles:
        handle.remove()
    distances = []
    for layer, (args, kwargs) in zip(layers, inputs, strict=True):
        stream = args[0] if args else kwargs.pop("hidden_states")
        rest = args[1:]

        def run(x: torch.Tensor, layer: Any = layer, rest: Any = rest, kwargs: Any = kwargs) -> torch.Tensor:
            output = layer(x, *rest, **kwargs)
            return output[0] if isinstance(output, tuple) else output

        matrix = torch.autograd.functional.jacobian(run, stream).reshape(stream.numel(), stream.numel()).double()
        difference = matrix - torch.eye(stream.numel(), dtype=torch.float64)
        distances.append(float(difference.square().sum() / stream.numel()))
    return np.array(distances)


@each_case
@torch.no_grad()
def test_attention_is_that_of_the_eager_weights(family: str, scheme: str | None) -> None:
    model = build(family, scheme)
    record = measured(model, "attention")
    model.set_attn_implementation("eager")
    entropies, firsts = [], []
    for ids, _ in slow.blocks(PROBE):
        caught: list[Any] = []
        handles = [
            layer.get_submodule(family_of(model).attention).register_forward_hook(
                lambda module, args, output, caught=caught: caught.append(output[1][0].double().numpy())
            )
            for layer in tiny.layers(model)
        ]
        model(ids, use_cache=False)
        for handle in handles:
            handle.remove()
        weights = np.stack(caught)[:, :, 1:]  # (L, H, queries, keys); the first token has no choice
        logs = np.log(np.where(weights > 0, weights, 1))
        entropies.append(-(weights * logs).sum(-1))
        firsts.append(weights[..., 0])
    assert_allclose(
        record.figure("attention/entropy").values, np.concatenate(entropies, -1).mean(-1), rtol=1e-4, atol=1e-6
    )
    assert_allclose(
        record.figure("attention/first_token").values, np.concatenate(firsts, -1).mean(-1), rtol=1e-4, atol=1e-6
    )


def test_standard_errors_take_blocks_as_units() -> None:
    model = build("llama", "pre")
    record = measured(model, "variance,angular,lens,removal")
    streams = slow.all_streams(model, PROBE)
    by_block = np.split(streams.var(-1), [9, 13], axis=1)
    figure = record.figure("variance/stream_mean")
    assert figure.error is not None
    for place in range(DEPTH + 1):
        expected = slow.clustered_error([block[place] for block in by_block])
        assert figure.error[place] == pytest.approx(expected, rel=1e-3)
    for name in ("angular/distance", "angular/influence", "lens/kl", "removal/increase", "variance/mlp_mean"):
        error = record.figure(name).error
        assert error is not None and np.isfinite(error).all()


def test_outputs_of_attention_and_mlp() -> None:
    model = build("gpt_neox", "parallel")
    record = measured(model, "variance")
    caught: dict[str, list[list[np.ndarray]]] = {"attention": [], "mlp": []}
    for kind, name in (("attention", "attention"), ("mlp", "mlp")):
        for layer in tiny.layers(model):
            seen: list[np.ndarray] = []
            module = layer.get_submodule(name)
            handle = module.register_forward_hook(
                lambda module, args, output, seen=seen: seen.append(
                    (output[0] if isinstance(output, tuple) else output)[0].detach().double().numpy()
                )
            )
            for ids, _ in slow.blocks(PROBE):
                model(ids, use_cache=False)
            handle.remove()
            caught[kind].append(seen)
    for kind, of_layers in caught.items():
        variances = np.stack([np.concatenate(seen).var(-1) for seen in of_layers])
        assert_allclose(record.figure(f"variance/{kind}_mean").values, variances.mean(1), rtol=1e-4)
        assert_allclose(record.figure(f"variance/{kind}_median").values, np.median(variances, 1), rtol=1e-4)
