"""Texts -> token ids, as pre-training wants them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import xxhash
from tokenizers import Tokenizer

from lab.data.errors import DataError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


class Encoder:
    """A tokenizer without truncation, padding or template, that ends every document with the end token.

    The name of a special token in a document is ordinary text: a page about `<|endoftext|>` stays whole.
    """

    def __init__(self, serialized: str, end: int) -> None:
        self._serialized = serialized
        self.end = end
        self._backend = Tokenizer.from_str(serialized)
        self._backend.no_truncation()
        self._backend.no_padding()
        self._backend.encode_special_tokens = True

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerFast) -> Encoder:
        """The encoder of a Hugging Face tokenizer.

        Raises:
            DataError: it has no end token, or is not backed by the `tokenizers` library.
        """
        name = tokenizer.name_or_path or "the tokenizer"
        end = tokenizer.eos_token_id
        if end is None:
            raise DataError(
                f"--data.tokenizer {name}: it has no end token (eos_token) to separate documents. Give it "
                "one: load it with AutoTokenizer, set tokenizer.eos_token to one of its special tokens, "
                "save it with save_pretrained and name that folder; or use bpe:VOCAB"
            )
        backend = getattr(tokenizer, "backend_tokenizer", None)
        if not isinstance(backend, Tokenizer):
            raise DataError(
                f"--data.tokenizer {name}: not a fast tokenizer (tokenizer.json); choose one that is, or bpe:VOCAB"
            )
        return cls(backend.to_str(), int(end))

    def __reduce__(self) -> tuple[type[Encoder], tuple[str, int]]:
        return type(self), (self._serialized, self.end)

    @property
    def vocabulary(self) -> int:
        """Number of entries, added tokens included."""
        return int(self._backend.get_vocab_size(with_added_tokens=True))

    @property
    def max_id(self) -> int:
        """The largest id it can produce; ids may have gaps, so this can exceed `vocabulary` - 1."""
        return max(self._backend.get_vocab(with_added_tokens=True).values())

    @property
    def digest(self) -> str:
        """A key of everything that decides the ids."""
        return xxhash.xxh3_128_hexdigest(f"{self.end} {self._serialized}".encode())

    def encode(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Token ids of each text with the end token last, int64, in parallel over texts."""
        encodings = self._backend.encode_batch_fast(list(texts), add_special_tokens=False)
        return [np.array([*encoding.ids, self.end], dtype=np.int64) for encoding in encodings]

    def byte_counts(self, text: str, ids: np.ndarray) -> np.ndarray:
        """UTF-8 bytes of `text` that each of its tokens, (n,) as `encode` gives them, stands for, (n,) int64.

        They add up to the text's bytes. A token of byte-level BPE stands for the bytes that it decodes to, and the end
        token for none. Of other tokenizers, and where a normalizer changed the text, a token stands for what lies
        between the end of the one before and its own end in the text, and the end token for what is left.
        """
        size = len(text.encode())
        if self._bytes_by_id is not None:
            counts = self._bytes_by_id[ids]
            if counts.sum() == size:
                return counts
        encoding = self._backend.encode(text, add_special_tokens=False)
        reached = np.maximum.accumulate([0, *(end for _, end in encoding.offsets)])
        points = np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32)
        widths = 1 + sum((points > last).astype(np.int64) for last in (0x7F, 0x7FF, 0xFFFF))
        bytes_before = np.concatenate([[0], np.cumsum(widths)])
        return np.diff(np.append(bytes_before[reached], size))

    @cached_property
    def _bytes_by_id(self) -> np.ndarray | None:
        """Of a byte-level vocabulary, whose entries are written with one character a byte: (largest id + 1,)."""
        decoder = json.loads(self._serialized).get("decoder") or {}
        if "ByteLevel" not in {part.get("type") for part in (decoder, *decoder.get("decoders", ()))}:
            return None
        counts = np.zeros(self.max_id + 1, dtype=np.int64)
        for token, number in self._backend.get_vocab(with_added_tokens=False).items():
            counts[number] = len(token)
        for number, added in self._backend.get_added_tokens_decoder().items():
            counts[number] = len(added.content.encode())
        counts[self.end] = 0
        return counts
