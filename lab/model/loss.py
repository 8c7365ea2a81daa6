"""The language-model loss: a sum over tokens, so that it can be divided by any global count."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel

import normalization
from lab.data.packing import IGNORED
from lab.errors import ConfigError
from lab.parallel.places import layer_names


def token_loss_sum(logits: Tensor, targets: Tensor) -> Tensor:
    """Sum of -log p(target) in nats over the targets (B, T) that are not IGNORED; logits (B, T, V), in float32."""
    return F.cross_entropy(logits.float().flatten(0, 1), targets.flatten(), ignore_index=IGNORED, reduction="sum")


def token_losses(logits: Tensor, targets: Tensor) -> Tensor:
    """-log p(target) in nats of each target (B, T), 0 where it is IGNORED; logits (B, T, V), in float32."""
    losses = F.cross_entropy(logits.float().flatten(0, 1), targets.flatten(), ignore_index=IGNORED, reduction="none")
    return losses.view_as(targets)


def count_targets(targets: Tensor) -> int:
    """How many targets are predicted."""
    return int((targets != IGNORED).sum())


class Objective:
    """What training makes small: the cross-entropy, and where tokens are sent to experts, how unevenly they are sent:

        sum over targets of -log p(target)  +  c sum over micro-batches of (its targets) x (its auxiliary loss),

    divided by the step's targets. The auxiliary loss is transformers' load_balancing_loss_func: E sum over experts of
    f P, f the share of the tokens that an expert gets, P its mean probability, both over all layers together (Switch
    Transformer, arXiv:2101.03961, equations 4 to 6); k for an even load. c is `router_aux_loss_coef` of the config.

    Args:
        model: a causal LM, not yet shared among processes.
        compiled: compile the cross-entropy.

    Raises:
        ConfigError: a model with experts that has no such loss.
    """

    def __init__(self, model: PreTrainedModel, *, compiled: bool = False) -> None:
        self._token_loss_sum = torch.compile(token_loss_sum) if compiled else token_loss_sum
        experts = normalization.experts(model)
        config: Any = model.config
        self._coefficient = getattr(config, "router_aux_loss_coef", None)
        if experts and self._coefficient is None:
            raise ConfigError(
                f"{config.model_type}: has experts, and no router_aux_loss_coef in its config that would keep their "
                "load even; train a family that has it (mixtral, qwen3_moe)"
            )
        self._active = max(experts.values(), default=0)
        found = (re.search(r"\.(\d+)\.", name) for name in experts)
        names = layer_names(config.num_hidden_layers)
        self._layers = [names[layer] for layer in sorted({int(match[1]) for match in found if match})]

    def __call__(
        self, model: nn.Module, inputs: Mapping[str, Tensor], targets: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """One micro-batch.

        Args:
            model: the one that the processes share.
            inputs: of its forward pass, `(B, T)` each.
            targets: `(B, T)`, or IGNORED.

        Returns:
            What to go back from, a sum over targets; what is summed over micro-batches and processes for `figures`;
            and the logits (B, T, V).
        """
        if not self._layers:
            logits = model(**inputs, use_cache=False).logits
            loss = self._token_loss_sum(logits, targets)
            return loss, loss.detach()[None], logits
        output = model(**inputs, use_cache=False, output_router_logits=True)
        loss = self._token_loss_sum(output.logits, targets)
        auxiliary = output.aux_loss * (targets != IGNORED).sum()
        with torch.no_grad():
            load = torch.stack([self._load(logits) for logits in output.router_logits])
            sums = torch.cat([loss[None], auxiliary[None], load.flatten()])
        return loss + self._coefficient * auxiliary, sums, output.logits

    def _load(self, router_logits: Tensor) -> Tensor:
        """How many of the tokens go to each expert; router_logits (B T, E)."""
        chosen = router_logits.topk(self._active, dim=-1).indices
        return torch.zeros_like(router_logits[0], dtype=torch.float32).scatter_add_(
            0, chosen.flatten(), torch.ones_like(chosen.flatten(), dtype=torch.float32)
        )

    def figures(self, sums: Sequence[float], targets: float) -> tuple[float, float | None, dict[str, float]]:
        """Of a step, from the sums of all its micro-batches.

        Returns:
            Cross-entropy in nats per token; the auxiliary loss, None without experts; and `router_load/layer_LL`: the
            tokens of a layer's busiest expert, in times its even share (1 to experts / k).
        """
        if not self._layers:
            return sums[0] / targets, None, {}
        loads = torch.tensor(sums[2:]).view(len(self._layers), -1)
        busiest = loads.amax(1) * loads.shape[1] / loads.sum(1)
        return (
            sums[0] / targets,
            sums[1] / targets,
            {f"router_load/{name}": value for name, value in zip(self._layers, busiest.tolist(), strict=True)},
        )
