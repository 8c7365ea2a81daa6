"""Streams to losses: the final norm and head on many streams at once, a few tokens at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lab.diagnostics.engine.session import Session

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
    """Loss, top-1 and KL of the unchanged model, then of each of several streams (B, T, D) that stand for h_L.

    Args:
        session: whose final norm and head decode.
        streams: what to decode.
        full: h_L of the unchanged model.
        targets: (B, T) next tokens.
        predicted: (B, T) bool: where there is one.
    """
    rows = predicted.nonzero()[:, 0]
    wanted = targets[predicted]
    chosen = [stream[predicted] for stream in (full, *streams)]
    sums = torch.zeros(len(chosen), 3, len(predicted), dtype=torch.float64, device=full.device)
    for tokens in _chunks(len(wanted), len(chosen) + 2, session):
        together = session.decode(torch.stack([stream[tokens] for stream in chosen]))  # (streams, tokens, V)
        probabilities = together[0].softmax(-1)
        # E_p[logit] of every stream: KL(p || q) = E_p[log p] - E_p[log q] needs no other pass over the vocabulary.
        expected = (together.transpose(0, 1) @ probabilities[..., None])[..., 0].T
        own: Tensor | None = None
        for number, logits in enumerate(together):
            target_logits = logits.gather(-1, wanted[tokens, None])[:, 0]
            loss = -logits.log_softmax(-1).gather(-1, wanted[tokens, None])[:, 0]
            log_likelihood = expected[number] - (target_logits + loss)  # E_p[log q]; target + loss is log sum exp
            own = log_likelihood if own is None else own
            hits = target_logits >= logits.amax(-1)
            each = torch.stack([loss.double(), hits.double(), (own - log_likelihood).double()])
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
