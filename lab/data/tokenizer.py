"""The tokenizer that `--data.tokenizer` names: an existing one, or byte-level BPE trained here."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tokenizers
import xxhash
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from lab.data.cache import build_once, content_key
from lab.data.config import DataConfig
from lab.data.documents import Document, Skipped, in_share
from lab.data.encoder import Encoder
from lab.data.errors import DataError
from lab.data.local import LocalSource
from lab.data.progress import bar
from lab.data.sources import resolve_source
from lab.modes import check_readable

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

END_TOKEN = "<|endoftext|>"
SAMPLE_BYTES = 100_000_000
"""Text that BPE is trained on, at most, in UTF-8 bytes; more changes the merges little and costs memory."""


def load_tokenizer(config: DataConfig, *, progress: bool) -> PreTrainedTokenizerFast:
    """Load the tokenizer of a configuration; `bpe:VOCAB` is trained first, once, and cached by content.

    A trained one has `<|endoftext|>` as end, beginning and padding token, turns any text into tokens and back
    unchanged, and has fewer than VOCAB entries if the text is too small for that many.

    Raises:
        DataError: it cannot be found, has no end token, or there is no text to train it on.
    """
    if config.bpe_vocabulary is None:
        tokenizer = _load(config.tokenizer)
    else:
        tokenizer = _train_cached(config, config.bpe_vocabulary, progress)
    Encoder.of(tokenizer)  # what it refuses, it should refuse before any work is done
    return tokenizer


def _load(name: str) -> PreTrainedTokenizerFast:
    from transformers import AutoTokenizer

    if (folder := Path(name)).is_dir():
        check_readable(folder)
    try:
        return AutoTokenizer.from_pretrained(name)
    except Exception as error:  # `tokenizers` raises nothing more special
        if type(error) is not Exception and not isinstance(error, (OSError, ValueError, ImportError, KeyError)):
            raise
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        if type(error) is Exception:
            raise DataError(
                f"--data.tokenizer {name}: its tokenizer.json is damaged or of another version of the library "
                f"tokenizers than {tokenizers.__version__} ({reason}). Save it again with save_pretrained where it "
                "loads, or use bpe:4096"
            ) from error
        raise DataError(
            f"--data.tokenizer {name}: no tokenizer could be loaded from a folder or the Hugging Face hub of "
            f"that name ({reason}). Without a network, name a folder with tokenizer.json, or use bpe:4096"
        ) from error


def _train_cached(config: DataConfig, vocabulary: int, progress: bool) -> PreTrainedTokenizerFast:
    source = resolve_source(config)
    split_of_hub = not isinstance(source, LocalSource) and config.heldout_split is not None
    heldout = 0.0 if split_of_hub else config.heldout_fraction
    key = content_key(
        kind="byte-level BPE",
        library=tokenizers.__version__,
        vocabulary=vocabulary,
        sample_bytes=SAMPLE_BYTES,
        source=source.fingerprint(progress=progress),
        heldout_fraction=heldout,
    )
    directory = config.cache_root / "tokenizers" / key

    def build(into: Path) -> dict[str, Any]:
        skipped = Skipped()
        if isinstance(source, LocalSource):
            documents = _spread(source.documents(skipped), SAMPLE_BYTES / max(source.bytes, 1))
        else:
            documents = source.documents(skipped, progress=progress)
        training = (document for document in documents if not in_share(document, heldout))
        _wrap(train_bpe(training, vocabulary, progress=progress)).save_pretrained(into)
        return {"skipped": dict(skipped)}

    build_once(directory, build)
    tokenizer = _load(str(directory))
    tokenizer.name_or_path = config.tokenizer
    return tokenizer


def train_bpe(documents: Iterable[Document], vocabulary: int, *, progress: bool) -> Tokenizer:
    """Byte-level BPE (arXiv:1508.07909 over bytes, as in GPT-2) with at most `vocabulary` entries.

    Uses the first `SAMPLE_BYTES` of the documents.

    Raises:
        DataError: no document.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        min_frequency=2,
        special_tokens=[END_TOKEN],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    used = 0

    def texts() -> Iterator[str]:
        nonlocal used
        for document in documents:
            yield document.text
            used += document.size
            shown.update(document.size)
            if used >= SAMPLE_BYTES:
                break
        shown.set_description("training tokenizer: merging")

    with bar("training tokenizer", progress=progress, unit="B") as shown:
        tokenizer.train_from_iterator(texts(), trainer)
    if used == 0:
        raise DataError(
            "--data.tokenizer: no training document to train a tokenizer on; use a smaller "
            "--data.heldout-fraction, more text, or smaller documents (--data.text-unit line)"
        )
    return tokenizer


def _spread(documents: Iterable[Document], share: float) -> Iterator[Document]:
    """About `share` of the documents, from everywhere in the source, by a hash other than the split's."""
    for document in documents:
        if xxhash.xxh3_64_intdigest(document.digest.to_bytes(8, "little"), seed=1) < share * 2**64:
            yield document


def _wrap(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END_TOKEN,
        # A block's first document follows an end token like any other, so that is what a text begins with.
        bos_token=END_TOKEN,
        pad_token=END_TOKEN,
        clean_up_tokenization_spaces=False,
    )
