"""Token stream -> blocks -> batches.

Documents, each followed by the end token, form one stream. Block i is tokens [i·T, i·T + T] of it, T + 1
tokens; its inputs are the first T and its targets the last T. So every token but the very first is a target
exactly once.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

IGNORED = -100
"""Target that counts for nothing, as in `torch.nn.functional.cross_entropy`."""

Batch = dict[str, torch.Tensor]
"""`input_ids` and `targets`, both (B, T) int64; also `position_ids` (B, T) when documents are isolated."""


def make_batch(blocks: np.ndarray, *, end: int, isolate: bool, targets: np.ndarray | None = None) -> Batch:
    """Inputs and targets from blocks of tokens.

    With `isolate`, positions restart at 0 after each end token, and the target of an end token is ignored.
    Hugging Face models keep attention within a document when they get such `position_ids`, no
    `attention_mask`, and `use_cache=False`: with a cache, which is their default, they attend across
    documents without a word. So they do with flash attention and several rows; lab/model/attention.py mends that.

    Args:
        blocks: (B, T + 1) token ids.
        end: id of the end token.
        isolate: whether documents are isolated.
        targets: (B, T) targets, where padding makes them differ from `blocks[:, 1:]`.
    """
    inputs = blocks[:, :-1].astype(np.int64)
    targets = (blocks[:, 1:] if targets is None else targets).astype(np.int64)
    if not isolate:
        return {"input_ids": torch.from_numpy(inputs), "targets": torch.from_numpy(targets)}
    ends = inputs == end
    targets[ends] = IGNORED
    index = np.arange(inputs.shape[1])
    starts = np.zeros_like(inputs)
    starts[:, 1:] = np.where(ends[:, :-1], index[1:], 0)
    positions = index - np.maximum.accumulate(starts, axis=1)
    return {
        "input_ids": torch.from_numpy(inputs),
        "targets": torch.from_numpy(targets),
        "position_ids": torch.from_numpy(positions),
    }


class Blocks(torch.utils.data.Dataset[Batch]):
    """Map-style data set of the blocks of a token stream, in order.

    The last block is padded with the end token; the targets of the padding are ignored.

    Args:
        tokens: (n,) token ids with n >= 2, or the `.npy` file that holds them, which is then memory-mapped.
        block_length: T, in tokens.
        end: id of the end token.
        isolate: whether documents are isolated.
    """

    def __init__(self, tokens: np.ndarray | Path, *, block_length: int, end: int, isolate: bool) -> None:
        self._source = tokens
        self.tokens: np.ndarray = np.load(tokens, mmap_mode="r") if isinstance(tokens, Path) else tokens
        assert self.tokens.ndim == 1 and len(self.tokens) >= 2
        self.block_length = block_length
        self.end = end
        self.isolate = isolate

    def __reduce__(self) -> tuple[object, ...]:
        # A loader process maps the file itself; pickling the array would copy it.
        return _open_blocks, (self._source, self.block_length, self.end, self.isolate)

    def __len__(self) -> int:
        """Number of blocks, the padded one included."""
        return (len(self.tokens) + self.block_length - 2) // self.block_length

    def __getitem__(self, index: int) -> Batch:
        """Block `index`: the entries of a `Batch` without the batch dimension, (T,)."""
        if not 0 <= index < len(self):
            raise IndexError(f"block {index} of {len(self)}")
        return {name: tensor[0] for name, tensor in self.batch(np.array([index])).items()}

    def places(self, indices: np.ndarray) -> np.ndarray:
        """Where in the stream the tokens of the blocks at `indices`, (B,), are: (B, T + 1), beyond its end too."""
        return indices[:, None] * self.block_length + np.arange(self.block_length + 1)

    def batch(self, indices: np.ndarray) -> Batch:
        """The blocks at `indices`, (B,), in that order."""
        at = self.places(indices)
        outside = at >= len(self.tokens)
        blocks = self.tokens[np.minimum(at, len(self.tokens) - 1)].astype(np.int64)
        blocks[outside] = self.end
        targets = np.where(outside[:, 1:], IGNORED, blocks[:, 1:])
        return make_batch(blocks, end=self.end, isolate=self.isolate, targets=targets)


def _open_blocks(tokens: np.ndarray | Path, block_length: int, end: int, isolate: bool) -> Blocks:
    return Blocks(tokens, block_length=block_length, end=end, isolate=isolate)
