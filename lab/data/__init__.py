"""Text source -> tokens -> packed blocks, sharded by rank and worker, resumable to the exact token.

    config.py     `DataConfig`, the `--data.*` flags
    sources.py    which kind of source is named: `local.py` (files, `builtin.py` for `builtin`) or `hub.py`
    folders.py    the files of a folder;  opening.py: a file as UTF-8, from any archive or encoding of Unicode
    readers.py    one file -> raw values;  records.py: those of JSON, and fields inside of others
    documents.py  raw value -> document, and the held-out split
    tokenizer.py  load or train a tokenizer;  encoder.py: texts -> token ids, where sealing.py makes the names of
                  special tokens ordinary text;  begin.py: whether a begin token stands before each
    packing.py    token stream -> blocks -> batches
    indexed.py    sources tokenised once into files (`token_file.py`), in any order
    streamed.py   sources tokenised on the fly, by a fixed number of readers (`reader.py`: one of them)
    heldout.py    the held-out documents of those
    loading.py    what the batches of both have in common
    corpus.py     `prepare` puts it together into a `Corpus`;  cache.py: builds shared by processes

Only `DataConfig` is imported at once: the command line must answer `--help` without loading torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lab.data.config import DataConfig
from lab.data.errors import DataError

if TYPE_CHECKING:
    from lab.data.corpus import Corpus, prepare
    from lab.data.packing import Blocks
    from lab.data.tokenizer import load_tokenizer

__all__ = ["Blocks", "Corpus", "DataConfig", "DataError", "load_tokenizer", "prepare"]

_LAZY = {
    "Blocks": "lab.data.packing",
    "Corpus": "lab.data.corpus",
    "load_tokenizer": "lab.data.tokenizer",
    "prepare": "lab.data.corpus",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_LAZY[name]), name)
