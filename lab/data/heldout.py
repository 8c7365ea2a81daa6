"""The held-out documents of a streamed data set, tokenised once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lab.data.cache import build_once, content_key
from lab.data.config import DataConfig
from lab.data.documents import Document, Skipped, in_share
from lab.data.encoder import Encoder
from lab.data.errors import DataError
from lab.data.hub import HubSource
from lab.data.progress import bar
from lab.data.token_file import TokenCounts, TokenWriter, encode_documents

FORMAT = 3
"""Version of the token files; raise it when the same key would give other contents."""


def heldout_share(config: DataConfig) -> float:
    """Share of the training split that is not trained on: none if another split is held out."""
    return 0.0 if config.heldout_split is not None else config.heldout_fraction


def read_heldout(
    config: DataConfig, source: HubSource, encoder: Encoder, *, progress: bool
) -> tuple[Path, Path, TokenCounts, dict[str, int]]:
    """The token file, the file of each token's bytes, the counts, and the documents skipped while reading, by reason.

    Reads from the beginning of the data set until `heldout_blocks` blocks are full, or to its end.

    Raises:
        DataError: there is no held-out document.
    """
    wanted = config.heldout_blocks * config.block_length + 1
    key = content_key(
        format=FORMAT,
        source=source.fingerprint(progress=progress),
        heldout_split=config.heldout_split,
        heldout_share=heldout_share(config),
        tokenizer=encoder.digest,
        tokens=wanted,
    )
    directory = config.cache_root / "heldout" / key

    def heldout_documents(skipped: Skipped) -> Iterator[Document]:
        for document in source.documents(skipped, split=config.heldout_split, progress=progress):
            if config.heldout_split is not None or in_share(document, config.heldout_fraction):
                yield document

    def build(into: Path) -> dict[str, Any]:
        skipped = Skipped()
        with (
            TokenWriter(into / "heldout.npy", encoder, bytes_path=into / "heldout_bytes.npy") as writer,
            bar("tokenizing held-out documents", progress=progress, unit="tok", total=wanted) as shown,
        ):
            for document, tokens in encode_documents(heldout_documents(skipped), encoder):
                writer.append(document, tokens)
                shown.update(len(tokens))
                if writer.counts.tokens >= wanted:
                    break
        return {"heldout": asdict(writer.counts), "skipped": dict(skipped)}

    content = build_once(directory, build)
    counts = TokenCounts(**content["heldout"])
    if counts.documents == 0:
        raise DataError(
            f"--data.source {source.name}: none of its documents is held out for evaluation. Use a larger "
            f"--data.heldout-fraction (now {config.heldout_fraction}) or name a --data.heldout-split"
        )
    return directory / "heldout.npy", directory / "heldout_bytes.npy", counts, content["skipped"]
