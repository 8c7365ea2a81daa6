"""Streams to losses: the final norm and head on many streams at once, a few tokens at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lab.diagnostics.session import Session

LOGITS_AT_ONCE = 1 << 24
"""Logits that are held at a time, at most (64 MiB in float32), whatever the vocabulary and the length of a block."""


class Decoded(NamedTuple):
    """Of one stream, by block: sums over the tokens whose next token is known, each (B,) in float64."""

    loss: Tensor
    """-log p(next token), in nats."""
    hits: Tensor
    """Tokens whose next token no other is likelier than."""
    kl: Tensor
    """KL(p_full || p) in nats, to the distribution of the unchanged model."""


def decode_all(
    session: Session, streams: Sequence[Tensor], full: Tensor, targets: Tensor, predicted: Tensor
) -> list[Decoded]:
    """Loss, top-1 and KL of each of several streams (B, T, D) that stand for h_L.

    Args:
        session: whose final norm and head decode.
        streams: what to decode.
        full: h_L of the unchanged model.
        targets: (B, T) next tokens.
        predicted: (B, T) bool: where there is one.
    """
    rows = predicted.nonzero()[:, 0]
    full, wanted = full[predicted], targets[predicted]
    chosen = [stream[predicted] for stream in streams]
    blocks = len(predicted)
    sums = torch.zeros(len(streams), 3, blocks, dtype=torch.float64, device=full.device)
    for tokens in _chunks(len(wanted), len(streams) + 2, session):
        together = session.decode(torch.stack([full[tokens], *(stream[tokens] for stream in chosen)]))
        reference = together[0].log_softmax(-1)
        probabilities = reference.exp()
        for number, logits in enumerate(together[1:]):
            target_logits = logits.gather(-1, wanted[tokens, None])
            hits = target_logits[:, 0] >= logits.amax(-1)
            predictions = logits.log_softmax(-1)
            loss = -predictions.gather(-1, wanted[tokens, None])[:, 0]
            kl = torch.linalg.vecdot(probabilities, reference - predictions)
            each = torch.stack([loss.double(), hits.double(), kl.double()])
            sums[number].index_add_(1, rows[tokens], each)
    return [Decoded(*of_stream) for of_stream in sums]


def losses(session: Session, stream: Tensor, targets: Tensor, predicted: Tensor) -> Tensor:
    """Sums of -log p(next token) of a stream that stands for h_L, (B,) in float64."""
    rows = predicted.nonzero()[:, 0]
    stream, wanted = stream[predicted], targets[predicted]
    sums = torch.zeros(len(predicted), dtype=torch.float64, device=stream.device)
    for tokens in _chunks(len(wanted), 2, session):
        predictions = session.decode(stream[tokens]).log_softmax(-1)
        sums.index_add_(0, rows[tokens], -predictions.gather(-1, wanted[tokens, None])[:, 0].double())
    return sums


def _chunks(tokens: int, streams: int, session: Session) -> Iterator[slice]:
    size = max(1, LOGITS_AT_ONCE // (streams * session.model.config.vocab_size))
    for start in range(0, tokens, size):
        yield slice(start, start + size)
