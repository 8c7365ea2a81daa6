"""A Hugging Face data set as a source, streamed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from lab.data.cache import content_key
from lab.data.documents import Document, Skipped, as_document, no_documents
from lab.data.errors import DataError, missing_field
from lab.data.records import ABSENT, field_names, value_at

if TYPE_CHECKING:
    from datasets import DatasetBuilder, IterableDataset


@dataclass(frozen=True)
class HubSource:
    """A data set on the hub, or anything else that `datasets.load_dataset_builder` accepts."""

    name: str
    subset: str | None
    split: str
    heldout_split: str | None
    field: str

    def fingerprint(self, *, progress: bool) -> str:
        """A key of what decides the documents: the data set's revision, configuration, split and field."""
        builder = self._builder(progress)
        return content_key(
            name=self.name,
            revision=builder.hash,
            subset=builder.config.name,
            split=self.split,
            field=self.field,
        )

    def revision(self, *, progress: bool) -> str:
        """The commit of the data set on the hub (for local files: a hash of what they are)."""
        return str(self._builder(progress).hash)

    def stream(self, split: str, *, progress: bool) -> IterableDataset:
        """The records of a split, not yet divided between ranks.

        Raises:
            DataError: the split or the field does not exist.
        """
        try:
            stream = self._builder(progress).as_streaming_dataset(split=split)
        except ValueError as error:
            flag = "split" if split == self.split else "heldout-split"
            raise DataError(f"--data.{flag} {split}: {error} (data set {self.name})") from error
        if stream.features is not None and value_at(stream.features, self.field) is ABSENT:
            raise missing_field(f"data set {self.name}", self.field, field_names(stream.features))
        return stream

    def documents(self, skipped: Skipped, *, split: str | None = None, progress: bool) -> Iterator[Document]:
        """The usable documents of a split (by default the training split) in the data set's order.

        Raises:
            DataError: the first record lacks the field, or nothing was usable.
        """
        found = False
        for number, record in enumerate(self.stream(split or self.split, progress=progress)):
            if number == 0 and value_at(record, self.field) is ABSENT:
                raise missing_field(f"data set {self.name}", self.field, field_names(record))
            document = record_document(record, self.field, skipped)
            if document is not None:
                found = True
                yield document
        if not found:
            raise no_documents(self.name, skipped)

    def _builder(self, progress: bool) -> DatasetBuilder:
        with _library_bars(progress):
            return self._resolved

    @cached_property
    def _resolved(self) -> DatasetBuilder:
        from datasets import load_dataset_builder

        try:
            return load_dataset_builder(self.name, self.subset)
        except ValueError as error:
            raise DataError(f"--data.subset {self.subset}: {error} (data set {self.name})") from error
        except RuntimeError as error:
            raise DataError(
                f"--data.source {self.name}: {str(error).strip().splitlines()[0]}. Code of a data set is not run: take "
                f"its copy in Parquet (hf download {self.name} --repo-type dataset --revision refs/convert/parquet "
                "--local-dir FOLDER) and give that folder"
            ) from error
        except OSError as error:  # not found, gated, or no network: all of them are OSError in `datasets`
            raise DataError(
                f"--data.source {self.name}: neither a file or folder here nor a data set that can be "
                f"reached on the Hugging Face hub ({type(error).__name__}: {error}). Check the spelling, `hf "
                "auth login` for a gated one, or the network. Without a network: --data.source builtin, or "
                "local text, JSON Lines or Parquet"
            ) from error


def record_document(record: dict[str, Any], field: str, skipped: Skipped) -> Document | None:
    """The document in a record, or None after counting in `skipped` why it has none."""
    value = value_at(record, field)
    if value is ABSENT:
        skipped[f"no field {field!r}"] += 1
        return None
    return as_document(value, skipped)


@contextmanager
def _library_bars(shown: bool) -> Iterator[None]:
    """Let `datasets` draw its own progress bars only if `shown`."""
    import datasets

    if shown or datasets.are_progress_bars_disabled():
        yield
        return
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        datasets.enable_progress_bars()
