"""Texts -> token ids, as pre-training wants them."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import xxhash
from tokenizers import Tokenizer

from lab.data.errors import DataError
from lab.data.sealing import sealed

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

_BYTE_NAME = re.compile(r"(?<=<0x)(?=[0-9A-F]{2}>)")
_UNUSUAL = "\u0378 \U0010fffd \u2603 \x01"
"""What hardly any tokenizer has in its vocabulary."""


class Encoder:
    """A tokenizer without truncation, padding or template, that ends every document with the end token.

    The name of a special token in a document is ordinary text: a page about `<|endoftext|>` stays whole. So is the name
    of a byte (`<0x0A>`) for tokenizers that have such entries.

    Args:
        serialized: content of `tokenizer.json`.
        end: id of the token after every document.
        begin: id of the token before every document; None for none.
        name: of the tokenizer, for errors.

    Raises:
        DataError: a tokenizer with which a text can become its end token.
    """

    def __init__(self, serialized: str, end: int, begin: int | None = None, *, name: str = "the tokenizer") -> None:
        self._serialized = serialized
        self.end, self.begin = end, begin
        content, names = sealed(serialized, frozenset({end} if begin is None else {end, begin}))
        self._special = frozenset(names)
        self._backend = Tokenizer.from_str(content)
        self._backend.no_truncation()
        self._backend.no_padding()
        self._backend.encode_special_tokens = True
        model = json.loads(content)["model"]
        self._names_bytes = bool(model.get("byte_fallback")) and (
            model["type"] == "Unigram" or bool(model.get("ignore_merges"))
        )
        self._check([*names.values(), _UNUSUAL], name)

    def _check(self, texts: list[str], name: str) -> None:
        for text, encoding in zip(texts, self._backend.encode_batch_fast(texts, add_special_tokens=False), strict=True):
            if (self._special | {self.end}) & set(encoding.ids):
                raise DataError(
                    f"--data.tokenizer {name}: it makes one of its special tokens of ordinary text ({text!r}), so "
                    "documents could not be told apart (its end token may stand for unknown words too). Choose "
                    "another, or bpe:VOCAB"
                )

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerFast, begin: int | None = None) -> Encoder:
        """The encoder of a Hugging Face tokenizer.

        Raises:
            DataError: it has no end token, is not backed by the `tokenizers` library, or makes special tokens of text.
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
        return cls(backend.to_str(), int(end), begin, name=name)

    def __reduce__(self) -> tuple[type[Encoder], tuple[str, int, int | None]]:
        return type(self), (self._serialized, self.end, self.begin)

    @property
    def vocabulary(self) -> int:
        """Number of entries, added tokens included."""
        return int(self._backend.get_vocab_size(with_added_tokens=True))

    @property
    def max_id(self) -> int:
        """The largest id of its vocabulary; ids may have gaps, so this can exceed `vocabulary` - 1."""
        return max(self._backend.get_vocab(with_added_tokens=True).values())

    @property
    def max_text_id(self) -> int:
        """The largest id that a document can have; special tokens beside the end and the begin token are in none."""
        entries = set(self._backend.get_vocab(with_added_tokens=True).values()) - self._special
        return max({*entries, self.end, -1 if self.begin is None else self.begin})

    @property
    def digest(self) -> str:
        """A key of everything that decides the ids."""
        begin = "" if self.begin is None else f"{self.begin} "
        return xxhash.xxh3_128_hexdigest(f"{begin}{self.end} {self._serialized}".encode())

    def encode(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Token ids of each text with the begin token, if any, first and the end token last, int64, in parallel over
        texts."""
        encodings = self._backend.encode_batch_fast(list(texts), add_special_tokens=False)
        first = [] if self.begin is None else [self.begin]
        return [
            np.array([*first, *(self._encode_byte_names(text) or encoding.ids), self.end], dtype=np.int64)
            for text, encoding in zip(texts, encodings, strict=True)
        ]

    def _encode_byte_names(self, text: str) -> list[int] | None:
        """Ids of a text in which names of bytes stand, each cut in two, so that it is not taken for the byte."""
        if not (self._names_bytes and "0x" in text):
            return None
        normalizer, pre_tokenizer, model = self._backend.normalizer, self._backend.pre_tokenizer, self._backend.model
        normal = text if normalizer is None else normalizer.normalize_str(text)
        if not _BYTE_NAME.search(normal):
            return None
        pieces = [normal] if pre_tokenizer is None else [piece for piece, _ in pre_tokenizer.pre_tokenize_str(normal)]
        parts = [part for piece in pieces for part in _BYTE_NAME.split(piece)]
        return [token.id for part in parts for token in model.tokenize(part)]

    def byte_counts(self, text: str, ids: np.ndarray) -> np.ndarray:
        """UTF-8 bytes of `text` that each of its tokens, (n,) as `encode` gives them, stands for, (n,) int64.

        They add up to the text's bytes. A token of byte-level BPE stands for the bytes that it decodes to, the begin
        and the end token for none. Of other tokenizers, and where a normalizer changed the text, a token stands for
        what lies between the end of the one before and its own end in the text, and the end token for what is left.
        """
        size = len(text.encode())
        if self._bytes_by_id is not None:
            counts = self._bytes_by_id[ids]
            if counts.sum() == size:
                return counts
        encoding = self._backend.encode(text, add_special_tokens=False)
        first = 0 if self.begin is None else 1
        counts = np.zeros(len(ids), dtype=np.int64)
        if len(encoding) != len(ids) - first - 1:  # names of bytes, which were encoded apart
            counts[-1] = size
            return counts
        reached = np.maximum.accumulate([0, *(end for _, end in encoding.offsets)])
        points = np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32)
        widths = 1 + sum((points > last).astype(np.int64) for last in (0x7F, 0x7FF, 0xFFFF))
        bytes_before = np.concatenate([[0], np.cumsum(widths)])
        counts[first:] = np.diff(np.append(bytes_before[reached], size))
        return counts

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
        counts[[*self._special, self.end]] = 0
        return counts
