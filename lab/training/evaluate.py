"""Held-out loss, and the variance of each layer's output: the same for any number of ranks and batch size."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

import normalization
from lab.data import Corpus
from lab.data.packing import IGNORED
from lab.model.loss import count_targets, token_loss_sum
from lab.parallel.collectives import all_sum
from lab.parallel.heartbeat import Heartbeat
from lab.parallel.places import layer_names

VARIANCE_BLOCKS = 16
"""Held-out blocks over which the layers' variances are measured, by every rank alike."""


def evaluate(
    model: nn.Module,
    corpus: Corpus,
    accelerator: Accelerator,
    heartbeat: Heartbeat,
    *,
    micro_batch: int,
    blocks: int | None,
) -> dict[str, float]:
    """Evaluate on the first `blocks` held-out blocks.

    Returns:
        `eval/loss` in nats per token: total loss divided by total predicted tokens, over all ranks and batches;
        `eval/perplexity`: exp(loss);
        `eval/bits_per_byte`: loss / ln 2 x tokens per UTF-8 byte of the held-out documents, so that tokenizers
        compare;
        `variance/layer_LL`: variance over the features of layer l's output, mean over tokens.
    """
    was_training = model.training
    model.eval()
    total, count = 0.0, 0
    with torch.no_grad():
        for batch in _batches(corpus, accelerator, micro_batch, blocks):
            heartbeat.at("evaluating")
            targets = batch.pop("targets")
            total += float(token_loss_sum(model(**batch, use_cache=False).logits, targets))
            count += count_targets(targets)
        heartbeat.at("measuring the layers' variances")
        variances = layer_variances(model, corpus, accelerator, micro_batch=micro_batch)
    model.train(was_training)
    total_loss, targets_predicted = all_sum(accelerator, [total, count])
    loss = total_loss / targets_predicted
    return {
        "eval/loss": loss,
        "eval/perplexity": math.exp(min(loss, 700.0)),
        "eval/bits_per_byte": loss / math.log(2) * corpus.heldout_tokens_per_byte,
        **variances,
    }


def _batches(
    corpus: Corpus, accelerator: Accelerator, micro_batch: int, blocks: int | None
) -> Iterator[dict[str, Tensor]]:
    """This rank's batches; every rank gets as many, the last ones filled up with blocks that predict nothing."""
    total = len(corpus.heldout) if blocks is None else min(blocks, len(corpus.heldout))
    stride = micro_batch * accelerator.num_processes
    for start in range(0, total, stride):
        first = start + accelerator.process_index * micro_batch
        rows = [corpus.heldout[min(index, total - 1)] for index in range(first, first + micro_batch)]
        batch = {key: torch.stack([row[key] for row in rows]).to(accelerator.device) for key in rows[0]}
        batch["targets"][max(0, total - first) :] = IGNORED
        yield batch


def layer_variances(
    model: nn.Module, corpus: Corpus, accelerator: Accelerator, *, micro_batch: int
) -> dict[str, float]:
    """`variance/layer_LL` over the first held-out blocks: the residual stream, before the final norm."""
    layers = normalization.decoder_layers(accelerator.unwrap_model(model))
    sums = torch.zeros(len(layers), device=accelerator.device)
    tokens = 0

    def record(index: int) -> Any:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            stream = output[0] if isinstance(output, tuple) else output
            sums[index] += stream.detach().float().var(dim=-1, correction=0).sum()

        return hook

    handles = [layer.register_forward_hook(record(index)) for index, layer in enumerate(layers)]
    total = min(VARIANCE_BLOCKS, len(corpus.heldout))
    try:
        # Hooks that come after compilation are not seen by compiled code.
        with torch.no_grad(), torch.compiler.set_stance("force_eager"):
            for start in range(0, total, micro_batch):
                rows = [corpus.heldout[index] for index in range(start, min(start + micro_batch, total))]
                batch = {key: torch.stack([row[key] for row in rows]) for key in rows[0] if key != "targets"}
                batch = {key: value.to(accelerator.device) for key, value in batch.items()}
                model(**batch, use_cache=False, logits_to_keep=1)
                tokens += batch["input_ids"].numel()
    finally:
        for handle in handles:
            handle.remove()
    means = (sums / tokens).tolist()
    return {f"variance/{name}": value for name, value in zip(layer_names(len(layers)), means, strict=True)}
