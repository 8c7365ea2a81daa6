"""Spectra and sparsity against numpy on copies of the weights."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from lab.diagnostics import Options, measure
from lab.diagnostics.engine.weight_pruning import pruned
from normalization.api import family_of
from tests.lab.diagnostics import slow_formulas as slow
from tests.lab.diagnostics.models import build, each_kind, probe
from tests.normalization import tiny

PROBE = probe()


@each_kind
def test_spectra_are_those_of_numpy(family: str, scheme: str | None) -> None:
    model = build(family, scheme)
    figures = measure(model, PROBE, only="spectra").diagnostics["spectra"]
    weights = figures["largest"].axes["weight"]
    for number, layer in enumerate(tiny.layers(model), start=1):
        for name, part in _parts(model, layer).items():
            singular = np.linalg.svd(part, compute_uv=False)
            assert figures["largest"].at(layer=number, weight=name) == pytest.approx(singular[0], rel=1e-6)
            stable = np.square(singular).sum() / singular[0] ** 2
            assert figures["stable_rank"].at(layer=number, weight=name) == pytest.approx(stable, rel=1e-6)
    assert set(weights) == set(_parts(model, tiny.layers(model)[0]))


def _parts(model: Any, layer: Any) -> dict[str, np.ndarray]:
    """Every matrix by hand, fused ones taken apart."""
    found: dict[str, np.ndarray] = {}

    def weight(name: str) -> np.ndarray:
        return layer.get_submodule(name).weight.detach().double().numpy()

    family = family_of(model).model_type
    if family == "gpt2":
        for role, matrix in zip(("query", "key", "value"), np.split(weight("attn.c_attn"), 3, axis=1), strict=True):
            found[f"attn.c_attn:{role}"] = matrix
        found["attn.c_proj:attention_output"] = weight("attn.c_proj")
        found["mlp.c_fc:mlp_input"], found["mlp.c_proj:mlp_output"] = weight("mlp.c_fc"), weight("mlp.c_proj")
    elif family == "gpt_neox":
        by_head = weight("attention.query_key_value").reshape(4, 3, 8, 32)
        for index, role in enumerate(("query", "key", "value")):
            found[f"attention.query_key_value:{role}"] = by_head[:, index].reshape(32, 32)
        found["attention.dense:attention_output"] = weight("attention.dense")
        found["mlp.dense_h_to_4h:mlp_input"] = weight("mlp.dense_h_to_4h")
        found["mlp.dense_4h_to_h:mlp_output"] = weight("mlp.dense_4h_to_h")
    else:
        roles = {"q": "query", "k": "key", "v": "value", "o": "attention_output"}
        found = {f"self_attn.{key}_proj:{role}": weight(f"self_attn.{key}_proj") for key, role in roles.items()}
        for key, role in {"gate": "mlp_input", "up": "mlp_input", "down": "mlp_output"}.items():
            found[f"mlp.{key}_proj:{role}"] = weight(f"mlp.{key}_proj")
    return found


@each_kind
def test_pruned_losses_are_those_of_pruned_copies(family: str, scheme: str | None) -> None:
    model = build(family, scheme)
    before = copy.deepcopy(model.state_dict())
    options = Options(sparsity_levels=("0.3", "2:4"), sparsity_levels_all=("0.6", "1:4"), sparsity_blocks=3, batch=2)
    figures = measure(model, PROBE, only="sparsity", options=options).diagnostics["sparsity"]
    full = slow.loss(model, PROBE)
    assert figures["full_loss"].at() == pytest.approx(full, rel=1e-5)
    norms = _input_norms(model)
    for method in ("magnitude", "wanda"):
        for level in ("0.3", "2:4"):
            for number in (1, 4):
                found = figures["increase"].at(layer=number, method=method, level=level)
                assert found == pytest.approx(
                    slow.loss(_copy(model, [number], method, level, norms), PROBE) - full, abs=2e-5
                )
        for level in ("0.6", "1:4"):
            everything = range(1, tiny.LAYERS + 1)
            found = figures["all_increase"].at(method=method, level=level)
            assert found == pytest.approx(
                slow.loss(_copy(model, everything, method, level, norms), PROBE) - full, abs=2e-5
            )
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, before[name]), name


def _input_norms(model: Any) -> dict[tuple[int, str], np.ndarray]:
    """|X_j| of every linear map's inputs on the real tokens."""
    rows: dict[tuple[int, str], list[np.ndarray]] = {}
    handles = []
    for number, layer in enumerate(tiny.layers(model), start=1):
        for name, module in layer.named_modules():
            if getattr(module, "weight", None) is not None and module.weight.ndim == 2:
                handles.append(
                    module.register_forward_pre_hook(
                        lambda module, args, key=(number, name): rows.setdefault(key, []).append(
                            args[0][0].detach().double().numpy()
                        )
                    )
                )
    for ids, _ in slow.blocks(PROBE):
        model(ids, use_cache=False)
    for handle in handles:
        handle.remove()
    return {key: np.linalg.norm(np.concatenate(found), axis=0) for key, found in rows.items()}


def _copy(model: Any, numbers: Any, method: str, level: str, norms: dict[tuple[int, str], np.ndarray]) -> Any:
    """A copy whose matrices are pruned by sorting."""
    smaller = copy.deepcopy(model)
    family = family_of(model).model_type
    for number in numbers:
        for name, module in tiny.layers(smaller)[number - 1].named_modules():
            if (number, name) not in norms:
                continue
            weight = module.weight.detach().double().numpy().copy()
            weight = weight.T if family == "gpt2" else weight  # (out, in)
            scores = np.abs(weight) * (norms[number, name] if method == "wanda" else 1)
            parts = [np.arange(len(weight))]
            if "c_attn" in name:
                parts = np.split(parts[0], 3)
            if "query_key_value" in name:
                parts = [parts[0].reshape(4, 3, 8)[:, index].ravel() for index in range(3)]
            for rows in parts:
                weight[rows] = np.where(_lowest(scores[rows], level, method), 0, weight[rows])
            with torch.no_grad():
                module.weight.copy_(torch.from_numpy(weight.T.copy() if family == "gpt2" else weight))
    return smaller


def _lowest(scores: np.ndarray, level: str, method: str) -> np.ndarray:
    if ":" in level:
        lose, group = map(int, level.split(":"))
        mask = np.zeros_like(scores, dtype=bool)
        for row in range(len(scores)):
            for start in range(0, scores.shape[1] - group + 1, group):
                mask[row, start + np.argsort(scores[row, start : start + group])[:lose]] = True
        return mask
    if method == "wanda":
        count = int(float(level) * scores.shape[1])
        return np.stack([np.isin(np.arange(len(row)), np.argsort(row)[:count]) for row in scores])
    count = int(float(level) * scores.size)
    return np.isin(np.arange(scores.size), np.argsort(scores.ravel())[:count]).reshape(scores.shape)


def test_experts_have_magnitude_only() -> None:
    model = build("mixtral", None)
    figures = measure(model, PROBE, only="sparsity").diagnostics["sparsity"]
    assert figures["increase"].axes["method"] == ["magnitude"]


@pytest.mark.parametrize(("level", "by_row"), [("0.25", True), ("0.25", False), ("2:4", True), ("1:3", False)])
def test_pruned_share_is_exact_with_equal_scores(level: str, by_row: bool) -> None:
    mask = pruned(torch.ones(2, 6, 8), level, by_row=by_row)
    share = {"0.25": 1 / 4, "2:4": 1 / 2, "1:3": 2 / 8}[level]  # of 8 weights in a row, two fill no group of three
    assert mask.double().mean().item() == pytest.approx(share)
    if by_row:
        assert_allclose(mask.double().mean(-1).numpy(), share)
