"""The probe: the token blocks that a measurement is made on, kept with its result."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import xxhash
from torch import Tensor

from lab.data.packing import IGNORED
from lab.errors import RunError


@dataclass(frozen=True)
class Batch:
    """Some blocks of the probe on the model's device; B blocks of T tokens."""

    rows: slice
    """Which blocks of the probe they are."""
    input_ids: Tensor
    targets: Tensor
    """The next token of each, IGNORED where there is none to predict."""
    real: Tensor
    """(B, T) bool: tokens, not padding."""
    starts: Tensor
    """(B, T) int64: where in the block the document of each token starts; 0 where documents share the block."""
    position_ids: Tensor | None
    """Positions that restart with each document, where attention must stay within documents."""

    @property
    def inputs(self) -> dict[str, Tensor]:
        """What the model is called with. Padding stands on the right, where no real token of a causal LM sees it, so
        no mask is needed."""
        inputs = {"input_ids": self.input_ids}
        return inputs if self.position_ids is None else inputs | {"position_ids": self.position_ids}

    @property
    def predicted(self) -> Tensor:
        """(B, T) bool: tokens whose next token is known."""
        return self.targets != IGNORED

    @property
    def last(self) -> Tensor:
        """(B, T) bool: the last real token of each block, or of each document where documents are apart."""
        following_starts = torch.roll(self.starts, -1, dims=1)
        following_real = torch.roll(self.real, -1, dims=1)
        ends = ~following_real | (following_starts != self.starts)
        ends[:, -1] = True
        return ends & self.real


@dataclass(frozen=True, eq=False)
class Probe:
    """Blocks of tokens, all of length T, padded on the right."""

    input_ids: np.ndarray
    """(blocks, T) int64; padding holds any valid id."""
    targets: np.ndarray
    """(blocks, T) int64, IGNORED where nothing is predicted."""
    real: np.ndarray
    """(blocks, T) bool: not padding."""
    position_ids: np.ndarray | None = None
    """(blocks, T) int64 where documents are kept apart."""
    source: str = "token ids"
    """Where the text is from, for people."""
    begin_token: int | None = None
    """The token put before each document and block of text, where the model was trained with one."""

    def __post_init__(self) -> None:
        assert self.input_ids.shape == self.targets.shape == self.real.shape
        if not (self.targets != IGNORED).any():
            raise RunError("the probe predicts nothing: it needs at least one block of two tokens")

    def __len__(self) -> int:
        """Blocks."""
        return len(self.input_ids)

    @property
    def length(self) -> int:
        """T."""
        return int(self.input_ids.shape[1])

    @property
    def id(self) -> str:
        """Hash of all that is in it: equal ids, equal probes."""
        digest = xxhash.xxh3_128()
        for name, array in sorted(self.arrays().items()):
            digest.update(f"{name} {array.shape}".encode())
            digest.update(np.ascontiguousarray(array, dtype="<i8").tobytes())
        return digest.hexdigest()

    def arrays(self) -> dict[str, np.ndarray]:
        """What is kept with a result, and read back by `from_arrays`."""
        arrays = {"input_ids": self.input_ids, "targets": self.targets, "real": self.real.astype(np.uint8)}
        return arrays if self.position_ids is None else arrays | {"position_ids": self.position_ids}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray], source: str) -> Probe:
        """The inverse of `arrays`."""
        return cls(
            arrays["input_ids"].astype(np.int64),
            arrays["targets"].astype(np.int64),
            arrays["real"].astype(bool),
            arrays["position_ids"].astype(np.int64) if "position_ids" in arrays else None,
            source,
        )

    @classmethod
    def from_ids(cls, ids: np.ndarray, source: str = "token ids") -> Probe:
        """From ids (blocks, T); negative ones are padding, which must stand on the right. Targets are the next ids.

        Raises:
            RunError: not such an array.
        """
        if ids.ndim != 2 or not np.issubdtype(ids.dtype, np.integer) or not len(ids):
            raise RunError(f"{source}: a probe is an array of integers (blocks, tokens), not {ids.dtype} {ids.shape}")
        ids = ids.astype(np.int64)
        real = ids >= 0
        if (real[:, 1:] & ~real[:, :-1]).any() or not real[:, 0].all():
            raise RunError(f"{source}: padding (negative ids) must stand to the right of a block's tokens")
        targets = np.full_like(ids, IGNORED)
        targets[:, :-1] = np.where(real[:, 1:], ids[:, 1:], IGNORED)
        return cls(np.where(real, ids, 0), targets, real, None, source)

    def batch(self, rows: slice, device: torch.device) -> Batch:
        """Some of its blocks on a device."""
        positions = self.position_ids
        starts = np.zeros_like(self.input_ids[rows])
        if positions is not None:
            starts = np.arange(self.length) - positions[rows]

        def move(array: np.ndarray) -> Tensor:
            return torch.from_numpy(np.ascontiguousarray(array)).to(device)

        return Batch(
            rows,
            move(self.input_ids[rows]),
            move(self.targets[rows]),
            move(self.real[rows]),
            move(starts),
            None if positions is None else move(positions[rows]),
        )

    def check(self, config: Any) -> None:
        """Check that a model can read it.

        Raises:
            RunError: a token id beyond its vocabulary, or blocks longer than its positions.
        """
        largest = int(self.input_ids[self.real].max())
        if largest >= config.vocab_size:
            raise RunError(
                f"the probe ({self.source}) holds token id {largest}, and this model's vocabulary ends at "
                f"{config.vocab_size - 1}: the probe was made with another tokenizer. Give a probe for this model with "
                "--probe"
            )
        longest = getattr(config, "max_position_embeddings", None)
        if longest is not None and self.length > longest:
            raise RunError(
                f"the probe's blocks have {self.length} tokens, and this model's positions end at {longest}; "
                f"use --block-length {longest} or less"
            )

    def summary(self) -> dict[str, Any]:
        """For the record."""
        return {
            "id": self.id,
            "source": self.source,
            "blocks": len(self),
            "block_length": self.length,
            "tokens": int(self.real.sum()),
            "predicted": int((self.targets != IGNORED).sum()),
            "documents_apart": self.position_ids is not None,
            "begin_token": self.begin_token,
        }
