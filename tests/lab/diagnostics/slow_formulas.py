"""Every diagnostic a second time, slowly and obviously: one block at a time, one layer at a time, in float64."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lab.diagnostics import Probe
from normalization.api import family_of


def blocks(probe: Probe) -> list[tuple[Tensor, Tensor]]:
    """The real tokens of each block (1, n), and the targets (m,) of its first m."""
    found = []
    for ids, targets, real in zip(probe.input_ids, probe.targets, probe.real, strict=True):
        known = targets[targets != -100]
        found.append((torch.from_numpy(ids[real])[None], torch.from_numpy(known)))
    return found


@torch.no_grad()
def streams(model: Any, ids: Tensor) -> list[np.ndarray]:
    """h_0 .. h_L (n, D): what each layer is called with, and what the final norm is called with."""
    caught: list[np.ndarray] = []
    family = family_of(model)
    places = [*family.decoder_layers(model), model.get_submodule(family.final_norm)]

    def catch(module: Any, args: Any, kwargs: Any) -> None:
        stream = args[0] if args else kwargs["hidden_states"]
        caught.append(stream[0].double().numpy().copy())

    handles = [place.register_forward_pre_hook(catch, with_kwargs=True) for place in places]
    model(ids, use_cache=False)
    for handle in handles:
        handle.remove()
    return caught


def all_streams(model: Any, probe: Probe) -> np.ndarray:
    """(L + 1, tokens, D) over the real tokens of all blocks."""
    return np.concatenate([np.stack(streams(model, ids)) for ids, _ in blocks(probe)], axis=1)


def log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


@torch.no_grad()
def log_probabilities(model: Any, probe: Probe) -> tuple[np.ndarray, np.ndarray]:
    """(tokens, V) of all predicted tokens, and their targets (tokens,)."""
    rows = [
        (log_softmax(model(ids, use_cache=False).logits[0, : len(targets)].double().numpy()), targets.numpy())
        for ids, targets in blocks(probe)
    ]
    return np.concatenate([row for row, _ in rows]), np.concatenate([targets for _, targets in rows])


def loss(model: Any, probe: Probe) -> float:
    predictions, targets = log_probabilities(model, probe)
    return float(-np.mean([row[target] for row, target in zip(predictions, targets, strict=True)]))


def kl(p: np.ndarray, q: np.ndarray) -> float:
    return float((np.exp(p) * (p - q)).sum(-1).mean())


def deleted(model: Any, gone: set[int]) -> Any:
    """A copy of the model whose list of layers really lacks some (counted from 1)."""
    smaller = copy.deepcopy(model)
    family = family_of(smaller)
    layers = family.decoder_layers(smaller)
    kept = torch.nn.ModuleList(layer for number, layer in enumerate(layers, start=1) if number not in gone)
    # Masks that go by layer stay those that each layer had: the model picks them from its config by position.
    if getattr(smaller.config, "layer_types", None):
        types = smaller.config.layer_types
        smaller.config.layer_types = [kind for number, kind in enumerate(types, start=1) if number not in gone]
    smaller.set_submodule(family.layers, kept)
    smaller.config.num_hidden_layers = len(kept)
    return smaller


def angle(u: np.ndarray, v: np.ndarray) -> float:
    cosine = float(u @ v) / float(np.linalg.norm(u)) / float(np.linalg.norm(v))
    return float(np.arccos(np.clip(cosine, -1, 1)) / np.pi)


def clustered_error(by_block: list[np.ndarray]) -> float:
    """Standard error of a mean over the tokens of all blocks, with blocks as units, by the jackknife-free formula of
    a ratio: written from its definition."""
    total = np.concatenate(by_block)
    residuals = [values.sum() - total.mean() * len(values) for values in by_block]
    number = len(by_block)
    return float(np.sqrt(number / (number - 1) * np.sum(np.square(residuals))) / len(total))
