"""Held-out loss, and the variance of each layer's output: the same for any number of ranks and batch size."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn

import normalization
from lab.data import Corpus
from lab.data.packing import IGNORED
from lab.diagnostics.engine.block_sums import BlockSums
from lab.model.loss import token_losses
from lab.parallel.collectives import all_sum, sum_over_ranks
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
    blocks: int,
) -> dict[str, float]:
    """Evaluate on the first `blocks` held-out blocks.

    Returns:
        `eval/loss` in nats per token: total loss divided by total predicted tokens, over all ranks and batches;
        `eval/loss_se`: its standard error, with documents as the independent units (`BlockSums`, a document in place
        of a block); left out where there is one document;
        `eval/perplexity`: exp(loss);
        `eval/bits_per_byte`: total loss / ln 2, divided by the UTF-8 bytes of the text that was predicted, so that
        tokenizers compare;
        `variance/layer_LL`: variance over the features of layer l's output, mean over tokens.
    """
    was_training = model.training
    model.eval()
    document_of = corpus.heldout_documents(blocks)
    documents = BlockSums(int(document_of[-1]) + 1, (), torch.device("cpu"))
    predicted_bytes = 0
    with torch.no_grad():
        for indices, batch in _batches(corpus, accelerator, micro_batch, blocks):
            heartbeat.at("evaluating")
            targets = batch.pop("targets")
            losses = token_losses(model(**batch, use_cache=False).logits, targets)
            predicted = (targets != IGNORED).cpu()
            places = corpus.heldout.places(indices)[:, 1:][predicted.numpy()]
            of = torch.from_numpy(document_of[places])
            documents.sums.index_add_(0, of, losses.cpu()[predicted].double())
            documents.counts.index_add_(0, of, torch.ones(len(of), dtype=torch.float64))
            predicted_bytes += int(corpus.heldout_bytes[places].sum())
        heartbeat.at("measuring the layers' variances")
        variances = layer_variances(model, corpus, accelerator, micro_batch=micro_batch)
    model.train(was_training)
    all_bytes = all_sum(accelerator, [predicted_bytes])[0]
    if accelerator.num_processes > 1:
        for sums in (documents.sums, documents.counts):
            sums.copy_(sum_over_ranks(sums.to(accelerator.device)))
    loss, error = float(documents.mean()), float(documents.error())
    return {
        "eval/loss": loss,
        **({} if math.isnan(error) else {"eval/loss_se": error}),
        "eval/perplexity": math.exp(min(loss, 700.0)),
        "eval/bits_per_byte": float(documents.sums.sum()) / math.log(2) / all_bytes if all_bytes else math.nan,
        **variances,
    }


def _batches(
    corpus: Corpus, accelerator: Accelerator, micro_batch: int, blocks: int
) -> Iterator[tuple[np.ndarray, dict[str, Tensor]]]:
    """This rank's blocks and their batches; every rank gets as many, the last ones filled up with blocks that predict
    nothing."""
    for start in range(0, blocks, micro_batch * accelerator.num_processes):
        first = start + accelerator.process_index * micro_batch
        indices = np.minimum(np.arange(first, first + micro_batch), blocks - 1)
        batch = {key: tensor.to(accelerator.device) for key, tensor in corpus.heldout.batch(indices).items()}
        batch["targets"][max(0, blocks - first) :] = IGNORED
        yield indices, batch


def layer_variances(
    model: nn.Module, corpus: Corpus, accelerator: Accelerator, *, micro_batch: int
) -> dict[str, float]:
    """`variance/layer_LL` over the tokens of the first held-out blocks: the residual stream, before the final norm."""
    layers = normalization.decoder_layers(accelerator.unwrap_model(model))
    sums = torch.zeros(len(layers), device=accelerator.device)
    tokens = 0

    def record(index: int) -> Any:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            stream = output[0] if isinstance(output, tuple) else output
            sums[index] += stream.detach().float().var(dim=-1, correction=0)[real].sum()

        return hook

    handles = [layer.register_forward_hook(record(index)) for index, layer in enumerate(layers)]
    total = min(VARIANCE_BLOCKS, len(corpus.heldout))
    try:
        # Hooks that come after compilation are not seen by compiled code.
        with torch.no_grad(), torch.compiler.set_stance("force_eager"):
            for start in range(0, total, micro_batch):
                indices = np.arange(start, min(start + micro_batch, total))
                batch = {key: tensor.to(accelerator.device) for key, tensor in corpus.heldout.batch(indices).items()}
                del batch["targets"]
                is_text = corpus.heldout.places(indices)[:, :-1] < len(corpus.heldout.tokens)
                real = torch.from_numpy(is_text).to(accelerator.device)  # what fills up the last block is none
                model(**batch, use_cache=False, logits_to_keep=1)
                tokens += int(is_text.sum())
    finally:
        for handle in handles:
            handle.remove()
    means = (sums / tokens).tolist()
    return {f"variance/{name}": value for name, value in zip(layer_names(len(layers)), means, strict=True)}
