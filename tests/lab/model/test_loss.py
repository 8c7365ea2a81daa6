"""The objective of models with experts, against the equations of the Switch Transformer and transformers' own loss."""

from __future__ import annotations

import copy
import json
import math

import pytest
import torch
import torch.nn.functional as F
from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig, MixtralConfig, Qwen3MoeConfig
from transformers.models.mixtral.modeling_mixtral import load_balancing_loss_func

import normalization
from lab.data.packing import IGNORED
from lab.errors import ConfigError
from lab.model.loss import Objective, count_targets, token_loss_sum
from lab.runfolder import metrics
from lab.training.run import pretrain

SIZE = {
    "vocab_size": 97,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "max_position_embeddings": 64,
    "num_experts_per_tok": 2,
    "router_aux_loss_coef": 0.3,
}
CONFIGS = {
    "mixtral": (MixtralConfig(**SIZE, num_local_experts=5), ["layer_01", "layer_02", "layer_03"]),
    # Its middle layer has no experts.
    "qwen3_moe": (
        Qwen3MoeConfig(**SIZE, num_experts=5, moe_intermediate_size=24, mlp_only_layers=[1]),
        ["layer_01", "layer_03"],
    ),
}


def by_hand(router_logits, experts=5, active=2):
    """E sum over experts of f P; f and P are means over all layers' tokens."""
    probabilities = torch.cat([F.softmax(logits.double(), -1) for logits in router_logits])
    chosen = torch.zeros_like(probabilities)
    for row, best in zip(chosen, probabilities.argsort(-1, descending=True)[:, :active], strict=True):
        row[best] = 1
    return experts * (chosen.mean(0) * probabilities.mean(0)).sum()


@pytest.mark.parametrize("scheme", ["pre", "peri"])
@pytest.mark.parametrize("family", CONFIGS)
def test_gradient_and_figures_are_those_of_the_equation_over_micro_batches(family, scheme):
    torch.manual_seed(0)
    config, layers = CONFIGS[family]
    wanted = normalization.config(copy.deepcopy(config), scheme)
    model = AutoModelForCausalLM.from_config(wanted).train()
    tokens = torch.randint(0, 97, (4, 12))
    targets = torch.randint(0, 97, (4, 12))
    targets[2:, 5:] = IGNORED  # the second micro-batch has fewer
    objective, sums = Objective(model), []
    total = count_targets(targets)
    for rows in (slice(0, 2), slice(2, 4)):
        loss, found, _ = objective(model, {"input_ids": tokens[rows]}, targets[rows])
        (loss / total).backward()
        sums.append(found)
    mine = [parameter.grad.clone() for parameter in model.parameters()]
    cross_entropy, auxiliary, loads = objective.figures(torch.stack(sums).sum(0).tolist(), total)

    model.zero_grad()
    by_equation, counts = 0.0, []
    auxiliary_mean = 0.0
    for rows in (slice(0, 2), slice(2, 4)):
        output = model(input_ids=tokens[rows], use_cache=False, output_router_logits=True)
        balance = by_hand(output.router_logits)
        theirs = load_balancing_loss_func(output.router_logits, 5, 2)
        torch.testing.assert_close(theirs.double(), balance, rtol=1e-5, atol=0)
        share = count_targets(targets[rows]) / total
        auxiliary_mean += share * float(balance.detach())
        by_equation = by_equation + token_loss_sum(output.logits, targets[rows]) / total + 0.3 * share * balance
        counts.append([logits.topk(2, -1).indices.flatten().bincount(minlength=5) for logits in output.router_logits])
    by_equation.backward()
    for ours, parameter in zip(mine, model.parameters(), strict=True):
        torch.testing.assert_close(ours, parameter.grad, rtol=1e-4, atol=1e-7)
    assert auxiliary == pytest.approx(auxiliary_mean, rel=1e-5)
    assert cross_entropy + 0.3 * auxiliary == pytest.approx(float(by_equation.detach()), rel=1e-5)
    busiest = [float(sum(layer).max()) / (4 * 12 * 2 / 5) for layer in zip(*counts, strict=True)]
    assert loads == pytest.approx(dict(zip([f"router_load/{name}" for name in layers], busiest, strict=True)))


def test_experts_without_a_balancing_loss_are_refused(monkeypatch):
    dense = LlamaConfig(**{name: value for name, value in SIZE.items() if "router" not in name})
    model = AutoModelForCausalLM.from_config(dense)
    monkeypatch.setattr(normalization, "experts", lambda model: {"model.layers.0.mlp.experts.down_proj": 2})
    with pytest.raises(ConfigError, match="no router_aux_loss_coef"):
        Objective(model)


def moe_config(tmp_path, coefficient):
    path = tmp_path / f"moe-{coefficient:g}"
    values = CONFIGS["mixtral"][0].to_dict() | {"router_aux_loss_coef": coefficient, "vocab_size": 400}
    AutoConfig.for_model(**values).save_pretrained(path)
    return path


def figures(run_dir, name):
    return [record[name] for record in metrics.read(run_dir, say=pytest.fail) if name in record]


def test_the_coefficient_acts_and_the_training_loss_is_cross_entropy_alone(settings, tmp_path):
    common = {"train__micro_batch": 2, "train__activation_checkpointing": True, "monitors__every": 3}
    for coefficient in (0.0, 10.0):
        assert pretrain(settings(f"{coefficient:g}", model__config=moe_config(tmp_path, coefficient), **common))
    first, second = figures(tmp_path / "0", "train/loss"), figures(tmp_path / "10", "train/loss")
    assert first[0] == second[0] == pytest.approx(math.log(400), rel=0.02)
    assert all(one != other for one, other in zip(first[1:], second[1:], strict=True))
    assert len(figures(tmp_path / "10", "train/aux_loss")) == 6
    load = figures(tmp_path / "10", "router_load/layer_02")
    assert len(load) == 3 and all(1 <= value <= 2.5 for value in load)
    stored = json.loads((tmp_path / "10" / "checkpoints" / "step-000006" / "config.json").read_text())
    assert stored["router_aux_loss_coef"] == 10


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["ddp", "zero3", "fsdp2"])
def test_several_processes_balance_as_one_does(preset, settings, flags, launch, tmp_path):
    common = {"train__micro_batch": 2, "train__global_batch": 8, "model__config": moe_config(tmp_path, 1.0)}
    assert pretrain(settings("one", **common))
    done = launch(2, *flags("two", **common), preset=preset)
    assert done.returncode == 0, done.stderr
    for name in ("train/loss", "train/aux_loss", "train/grad_norm", "router_load/layer_01"):
        assert figures(tmp_path / "two", name) == pytest.approx(figures(tmp_path / "one", name), rel=2e-4)
