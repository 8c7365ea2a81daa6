from __future__ import annotations

import math

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from lab.config.presets import PRESETS
from lab.config.sections import OptimConfig
from lab.training.optim import build_optimizer, learning_rate


def rates(steps: int, **settings) -> list[float]:
    config = OptimConfig(lr=1.0, **settings)
    return [learning_rate(step, steps, config) for step in range(1, steps + 1)]


def test_cosine_is_the_published_schedule_with_the_floor_at_the_last_update():
    got = rates(100, schedule="cosine", warmup=10, floor=0.1)
    assert got[:10] == pytest.approx([step / 10 for step in range(1, 11)])
    expected = [0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * (step - 10) / 90)) for step in range(11, 101)]
    assert got[10:] == pytest.approx(expected)
    # The LNS repository makes one update too many, at 1e-7 of the rate.
    assert got[-1] == pytest.approx(0.1)
    assert len(got) == 100 and min(got) >= 0.1


def test_linear_goes_down_by_equal_amounts():
    got = rates(20, schedule="linear", warmup=0, floor=0.0)
    assert got == pytest.approx([1 - step / 20 for step in range(1, 21)])


def test_wsd_is_constant_then_linear_over_its_last_part():
    got = rates(100, schedule="wsd", warmup=0.1, decay=0.2, floor=0.0)
    assert got[9:80] == pytest.approx([1.0] * 71)
    assert got[80:] == pytest.approx([1 - step / 20 for step in range(1, 21)])


def test_constant_stays_at_the_peak_after_warmup():
    assert rates(10, schedule="constant", warmup=2)[1:] == pytest.approx([1.0] * 9)


@pytest.mark.parametrize("schedule", ["cosine", "linear", "wsd", "constant"])
@pytest.mark.parametrize("steps", [1, 2, 3])
def test_runs_of_a_few_steps_have_finite_rates_up_to_the_peak(schedule, steps):
    assert all(0 < rate <= 1 for rate in rates(steps, schedule=schedule, floor=0.1))


def test_weight_decay_leaves_out_norms_biases_and_embeddings_tied_heads_included():
    model = GPT2LMHeadModel(GPT2Config(vocab_size=50, n_embd=16, n_layer=2, n_head=2, n_positions=8))
    decayed, kept = build_optimizer(model, OptimConfig(weight_decay=0.3), torch.device("cpu")).param_groups
    assert (decayed["weight_decay"], kept["weight_decay"]) == (0.3, 0.0)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    got = {names[id(parameter)] for parameter in decayed["params"]}
    matrices = ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
    assert got == {f"transformer.h.{layer}.{matrix}.weight" for layer in range(2) for matrix in matrices}
    assert {names[id(parameter)] for parameter in kept["params"]} == set(names.values()) - got


@pytest.mark.parametrize("name", ["adamw", "adam"])
def test_updates_are_those_of_the_papers(name):
    """Adam (arXiv:1412.6980) and AdamW (arXiv:1711.05101), written out for one weight."""
    layer = torch.nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        layer.weight.fill_(2.0)
    config = OptimConfig(name=name, lr=0.1, betas=(0.9, 0.99), eps=1e-8, weight_decay=0.5)
    optimizer = build_optimizer(layer, config, torch.device("cpu"))
    weight, m, v = 2.0, 0.0, 0.0
    for step, gradient in enumerate([0.3, -0.2, 0.7], start=1):
        layer.weight.grad = torch.full_like(layer.weight, gradient)
        optimizer.step()
        if name == "adam":
            gradient += 0.5 * weight
        else:
            weight -= 0.1 * 0.5 * weight
        m, v = 0.9 * m + 0.1 * gradient, 0.99 * v + 0.01 * gradient**2
        weight -= 0.1 * (m / (1 - 0.9**step)) / (math.sqrt(v / (1 - 0.99**step)) + 1e-8)
    assert float(layer.weight.detach()) == pytest.approx(weight, rel=1e-5)


def test_the_published_sizes_are_what_they_were():
    """A change detector: runs of one name must be comparable over versions."""
    table = """
    llama_9m 4 128 352 4
    llama_20m 4 256 688 4
    llama_35m 6 384 1024 8
    llama_60m 8 512 1376 8
    llama_71m 12 512 1368 8
    llama_100m 12 640 1708 10
    llama_130m 12 768 2048 12
    llama_250m 24 768 2560 16
    llama_350m 24 1024 2736 16
    llama_1b 24 2048 5461 32
    llama_3b 32 2560 6848 32
    llama_7b 32 4096 11008 32
    """
    rows = [line.split() for line in table.strip().splitlines()]
    expected = {name: tuple(map(int, numbers)) for name, *numbers in rows}
    assert {name: (s.layers, s.width, s.mlp_width, s.heads) for name, s in PRESETS.items()} == expected


@pytest.mark.parametrize("name", PRESETS)
def test_a_size_is_named_after_its_parameters(name):
    """Embedding, head (32,000 words each), and for each layer four attention and three MLP matrices."""
    size = PRESETS[name]
    layer = 4 * size.width**2 + 3 * size.width * size.mlp_width
    parameters = 2 * 32_000 * size.width + size.layers * layer
    named = float(name.removeprefix("llama_")[:-1]) * (1e6 if name.endswith("m") else 1e9)
    assert 0.89 < parameters / named < (1.35 if name == "llama_1b" else 1.1)
    assert size.width % size.heads == 0
