"""The `--data.*` settings, checked when they are made."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from lab.data.errors import DataError, did_you_mean

TextUnit = Literal["file", "paragraph", "line"]
BeginToken = Literal["auto", "yes", "no"]

BYTE_ALPHABET = 256
"""Entries of a byte-level vocabulary before the end token and the first merge."""
MOST_ENTRIES = 2**20
"""Four times the largest vocabularies in use; room for all entries is taken before the first is found."""


@dataclass(frozen=True)
class DataConfig:
    """Where the text comes from and how it becomes blocks of tokens."""

    source: tuple[str, ...] = ("builtin",)
    """`builtin` (source text of the Python standard library), or files, folders and globs of local text
    (.txt, .md, .py, ...), JSON Lines or JSON (.jsonl, .json) or Parquet, the first two also as .gz, .bz2, .xz and .zst;
    or one Hugging Face data set name, which is streamed (`allenai/c4`)."""
    subset: str | None = None
    """Configuration of the Hugging Face data set (`en`); none for local sources."""
    split: str = "train"
    """Split of the Hugging Face data set that is trained on."""
    heldout_split: str | None = None
    """Split of the Hugging Face data set that held-out documents come from, in place of a share of the
    training split."""
    field: str = "text"
    """Field of a JSON Lines, Parquet or Hugging Face record that holds the text; with dots, a field inside of others
    (`meta.text`)."""
    text_unit: TextUnit = "file"
    """What one document is in a text file: the file, a paragraph (blank lines between) or a line."""
    tokenizer: str = "bpe:4096"
    """`bpe:VOCAB`: byte-level BPE with VOCAB entries, trained on the training documents and cached; or the
    name or folder of a Hugging Face tokenizer."""
    begin_token: BeginToken = "auto"
    """Put the tokenizer's begin token before every document. auto: where the tokenizer does so by itself."""
    block_length: int = 256
    """Length of a training sequence, in tokens."""
    heldout_fraction: float = 0.05
    """Share of the documents held out for evaluation, 0 to 1, chosen by a hash of the document's text."""
    heldout_blocks: int = 4096
    """Held-out blocks that are read of streamed data, at most; at least as many as --eval.blocks. Local data holds out
    its whole share."""
    isolate_documents: bool = False
    """Restart attention and positions at each document within a block; the first token of a document is then
    not predicted."""
    shuffle_buffer: int = 1024
    """Blocks of streamed data that are shuffled together, over all readers (local data is shuffled whole)."""
    readers: int = 24
    """Readers that have the files of streamed data among them and take turns; they decide the order of the sequences.
    Every file is read once where the number of processes (times loaders) divides that of the readers."""
    workers: int = 0
    """Loader processes per rank; 0 loads in the training process."""
    cache_dir: str | None = None
    """Folder for tokenised text and trained tokenizers; $XDG_CACHE_HOME/depthlab or ~/.cache/depthlab if not
    given."""

    def __post_init__(self) -> None:
        # YAML gives a list or one string where the command line gives a tuple.
        given: object = self.source
        source = (given,) if isinstance(given, str) else tuple(self.source)
        object.__setattr__(self, "source", source)
        if not source or not all(isinstance(entry, str) and entry.strip() for entry in source):
            raise DataError(f"--data.source {source!r}: name at least one source, for example builtin")
        for flag, text in (("split", self.split), ("field", self.field), ("tokenizer", self.tokenizer)):
            if not text:
                raise DataError(f"--data.{flag} must not be empty")
        if self.text_unit not in get_args(TextUnit):
            choices = get_args(TextUnit)
            raise DataError(
                f"--data.text-unit {self.text_unit!r}: must be one of "
                f"{', '.join(choices)}{did_you_mean(self.text_unit, choices)}"
            )
        if self.begin_token not in get_args(BeginToken):
            raise DataError(
                f"--data.begin-token {self.begin_token!r}: must be one of {', '.join(get_args(BeginToken))}"
            )
        for flag, value, least in (
            ("block-length", self.block_length, 1),
            ("heldout-blocks", self.heldout_blocks, 1),
            ("shuffle-buffer", self.shuffle_buffer, 1),
            ("readers", self.readers, 1),
            ("workers", self.workers, 0),
        ):
            if value < least:
                raise DataError(f"--data.{flag} {value}: must be at least {least}")
        if not 0 < self.heldout_fraction < 1:
            raise DataError(
                f"--data.heldout-fraction {self.heldout_fraction}: must lie between 0 and 1, both excluded "
                "(evaluation needs documents that training never sees)"
            )
        _ = self.bpe_vocabulary

    @property
    def bpe_vocabulary(self) -> int | None:
        """Entries of the vocabulary to train, or None when `tokenizer` names an existing tokenizer.

        Raises:
            DataError: `bpe:` is not followed by a number from 257 to 2^20.
        """
        prefix, colon, size = self.tokenizer.partition(":")
        if prefix != "bpe" or not colon:
            return None
        # No number of more digits is as small, and Python refuses to read those of thousands.
        if not (size.isdecimal() and len(size) < 9 and BYTE_ALPHABET < int(size) <= MOST_ENTRIES):
            raise DataError(
                f"--data.tokenizer {self.tokenizer!r}: write bpe:VOCAB with VOCAB at least "
                f"{BYTE_ALPHABET + 1} ({BYTE_ALPHABET} bytes and the end token) and at most {MOST_ENTRIES}, for "
                "example bpe:4096"
            )
        return int(size)

    @property
    def cache_root(self) -> Path:
        """The cache folder. The environment only picks this place, never a result.

        Raises:
            DataError: none is named, and the user has no home.
        """
        if self.cache_dir is not None:
            return Path(os.path.expanduser(self.cache_dir))
        place = os.path.expanduser(os.environ.get("XDG_CACHE_HOME") or "~/.cache")
        if place.startswith("~"):
            raise DataError(
                "this user has no home folder (no HOME, no entry in passwd) to keep tokenised text in; name a folder "
                "with --data.cache-dir"
            )
        return Path(place) / "depthlab"
