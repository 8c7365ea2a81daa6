"""Streamed data sets: every document once an epoch over ranks and workers, and resumption to the exact token.

`datasets` streams a local folder as it streams the hub: that folder's path stands for the name of a data set.
"""

from __future__ import annotations

import io
import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from transformers import PreTrainedTokenizerFast

from lab.data import Corpus, DataConfig, DataError, load_tokenizer, prepare, sources, tokenizer
from lab.data import corpus as corpus_module
from lab.data.documents import Document, Skipped, as_document, in_share
from lab.data.hub import HubSource
from lab.data.loading import Batches

FILES, RECORDS, LENGTH = 4, 30, 16


def document(text: str) -> Document:
    made = as_document(text, Skipped())
    assert made is not None
    return made


BYTES = tokenizer.train_bpe([document("any")], 257, progress=False)
LETTERS = {token: BYTES.decode([token]) for token in range(257)}


def text(file: int, record: int, split: str = "train") -> str:
    return f"<{split} {file}.{record}>" + "x" * ((7 * record + file) % 23)


def write_shards(folder: Path, suffix: str, split: str = "train") -> None:
    folder.mkdir(exist_ok=True)
    for file in range(FILES):
        texts = [text(file, record, split) for record in range(RECORDS)]
        path = folder / f"{split}-{file}.{suffix}"
        if suffix == "parquet":
            pq.write_table(pa.table({"text": texts}), path, row_group_size=8)
        else:
            path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))


@pytest.fixture(params=["jsonl", "parquet"])
def folder(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    write_shards(tmp_path / "shards", request.param)
    return tmp_path


@pytest.fixture(autouse=True)
def folders_are_streamed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take every source for the name of a Hugging Face data set."""

    def resolve(config: DataConfig) -> HubSource:
        return HubSource(config.source[0], config.subset, config.split, config.heldout_split, config.field)

    for module in (corpus_module, tokenizer):
        monkeypatch.setattr(module, "resolve_source", resolve)


def corpus(folder: Path, *, seed: int = 0, **settings: Any) -> Corpus:
    defaults = {"tokenizer": "bpe:257", "block_length": LENGTH, "shuffle_buffer": 5, "heldout_fraction": 0.2}
    config = DataConfig(source=(str(folder / "shards"),), cache_dir=str(folder / "cache"), **(defaults | settings))
    return prepare(config, load_tokenizer(config, progress=False), seed=seed, progress=False)


def take(batches: Batches, count: int) -> list[dict[str, list]]:
    return [{name: tensor.tolist() for name, tensor in next(batches).items()} for _ in range(count)]


def decode(tokens: list[int], end: int) -> list[str]:
    """The documents in a token stream of bpe:257: byte-level characters, one a token."""
    documents: list[list[int]] = [[]]
    for token in tokens:
        if token == end:
            documents.append([])
        else:
            documents[-1].append(token)
    return ["".join(LETTERS[token] for token in document) for document in documents[:-1]]


def stream_of(batches: Batches, blocks: int, *, workers: int, worker: int, end: int) -> list[str]:
    """The documents that one loader process reads, in order (batches of one block, windows of one block)."""
    rows = [batch["input_ids"][0] for batch in take(batches, blocks)]
    # Loader processes take turns.
    return decode([token for row in rows[worker::workers] for token in row], end)


@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize("workers", [0, 1, 2])
def test_every_document_once_an_epoch_over_ranks_and_workers(folder: Path, world_size: int, workers: int) -> None:
    write_shards(folder / "shards", next((folder / "shards").iterdir()).suffix[1:], "test")
    made = corpus(folder, workers=workers, shuffle_buffer=1, heldout_split="test")
    processes = max(workers, 1)
    share = FILES * RECORDS // (world_size * processes)  # documents an epoch for each process, exactly
    epochs: list[list[str]] = [[], []]
    for rank in range(world_size):
        for worker in range(processes):
            batches = made.batches(rank=rank, world_size=world_size, micro_batch=1)
            blocks = 60 * share * processes // LENGTH
            documents = stream_of(batches, blocks, workers=processes, worker=worker, end=made.heldout.end)
            assert len(documents) > 2 * share
            for epoch in range(2):
                epochs[epoch] += documents[epoch * share : (epoch + 1) * share]
    everything = sorted(text(file, record) for file in range(FILES) for record in range(RECORDS))
    assert sorted(epochs[0]) == sorted(epochs[1]) == everything
    assert epochs[0] != epochs[1]


def test_heldout_documents_are_not_trained_on(folder: Path) -> None:
    made = corpus(folder, shuffle_buffer=1)
    heldout = decode(made.heldout.tokens.tolist(), made.heldout.end)
    trained = stream_of(
        made.batches(rank=0, world_size=1, micro_batch=1), 400, workers=1, worker=0, end=made.heldout.end
    )
    everything = {text(file, record) for file in range(FILES) for record in range(RECORDS)}
    assert heldout and set(trained) == everything - set(heldout)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(("rank", "world_size"), [(0, 1), (1, 2), (2, 3)])
@pytest.mark.parametrize("steps", [0, 4, 60])
def test_resume_is_exact_in_mid_window(folder: Path, workers: int, rank: int, world_size: int, steps: int) -> None:
    made = corpus(folder, workers=workers, isolate_documents=True)
    whole = made.batches(rank=rank, world_size=world_size, micro_batch=3)
    take(whole, steps)  # windows are 5 blocks and batches 3, so most of these stop in the middle of a window
    state = json.loads(json.dumps(whole.state_dict()))
    stored = io.BytesIO()
    torch.save(whole.state_dict(), stored)
    stored.seek(0)
    assert torch.load(stored) == state
    expected = take(whole, 40)
    again = made.batches(rank=rank, world_size=world_size, micro_batch=3, state=state)
    assert take(again, 20) == expected[:20]
    # and once more from where the resumed one stands
    third = made.batches(rank=rank, world_size=world_size, micro_batch=3, state=again.state_dict())
    assert take(third, 20) == expected[20:]


def test_a_window_is_a_permutation_of_its_blocks(folder: Path) -> None:
    plain = take(corpus(folder, shuffle_buffer=1).batches(rank=0, world_size=1, micro_batch=1), 20)
    mixed = take(corpus(folder, shuffle_buffer=5).batches(rank=0, world_size=1, micro_batch=1), 20)
    assert plain != mixed
    for window in range(0, 20, 5):

        def key(batch: dict[str, list]) -> str:
            return json.dumps(batch)

        assert sorted(map(key, plain[window : window + 5])) == sorted(map(key, mixed[window : window + 5]))
    for batch, following in pairwise(plain):
        assert batch["targets"][0][-1] == following["input_ids"][0][0]
    other = take(corpus(folder, seed=1).batches(rank=0, world_size=1, micro_batch=1), 20)
    assert other != mixed


def test_another_layout_is_refused(folder: Path) -> None:
    made = corpus(folder)
    state = made.batches(rank=0, world_size=2, micro_batch=3).state_dict()
    for flag, other in (
        ("number of processes", lambda: made.batches(rank=0, world_size=1, micro_batch=3, state=state)),
        ("rank", lambda: made.batches(rank=1, world_size=2, micro_batch=3, state=state)),
        ("--train.micro-batch", lambda: made.batches(rank=0, world_size=2, micro_batch=1, state=state)),
        (
            "--data.workers",
            lambda: corpus(folder, workers=1).batches(rank=0, world_size=2, micro_batch=3, state=state),
        ),
        (
            "--data.shuffle-buffer",
            lambda: corpus(folder, shuffle_buffer=6).batches(rank=0, world_size=2, micro_batch=3, state=state),
        ),
    ):
        with pytest.raises(DataError, match=f"{flag} was"):
            other()
    with pytest.raises(DataError, match="without the saved position"):
        made.batches(rank=0, world_size=2, micro_batch=3, start_sequences=6)


def test_more_workers_than_files_are_refused(folder: Path) -> None:
    with pytest.raises(DataError, match=r"use --data\.workers 2 or fewer"):
        corpus(folder, workers=3).batches(rank=0, world_size=2, micro_batch=1)


def test_heldout_split(folder: Path) -> None:
    suffix = next((folder / "shards").iterdir()).suffix[1:]
    write_shards(folder / "shards", suffix, "test")
    made = corpus(folder, heldout_split="test")
    assert set(decode(made.heldout.tokens.tolist(), made.heldout.end)) == {
        text(f, r, "test") for f in range(FILES) for r in range(RECORDS)
    }
    batches = made.batches(rank=0, world_size=1, micro_batch=1)
    assert sum(LETTERS[token] == "<" for batch in take(batches, 5) for token in batch["input_ids"][0]) > 0
    with pytest.raises(DataError, match=r"--data\.heldout-split dev"):
        corpus(folder, heldout_split="dev")
    with pytest.raises(DataError, match=r"--data\.split dev"):
        corpus(folder, split="dev")


def test_summary_and_vocabulary(folder: Path) -> None:
    made = corpus(folder)
    summary = made.summary()
    assert summary["kind"] == "streamed" and summary["train_tokens"] is None and summary["revision"]
    assert made.heldout_tokens_per_byte == summary["heldout_tokens"] / summary["heldout_bytes"]
    json.dumps(summary)
    with pytest.raises(DataError, match="does not fit"):
        made.check_vocabulary(50)


def write_lines(folder: Path, lines: list[str]) -> None:
    (folder / "shards").mkdir()
    (folder / "shards" / "train.jsonl").write_text("\n".join(lines))


def test_ids_of_a_stream_are_checked_as_they_come(tmp_path: Path) -> None:
    texts = [f"{n}aaaa" for n in range(200)]
    late = next(text for n in range(100) if not in_share(document(text := f"zz{n}"), 0.2))  # trained on
    write_lines(tmp_path, [json.dumps({"text": text}) for text in [*texts, late]])
    made = corpus(tmp_path)
    made.check_vocabulary(made.max_token_id + 1)
    batches = made.batches(rank=0, world_size=1, micro_batch=1)
    assert take(batches, 5)
    with pytest.raises(DataError, match="does not fit the model's vocabulary"):
        take(batches, 200)


def test_bad_records_and_fields(tmp_path: Path) -> None:
    values = [*(f"text {n}" for n in range(50)), None, " "]
    write_lines(tmp_path, [json.dumps({"text": value, "id": 1}) for value in values])
    made = corpus(tmp_path)
    assert made.summary()["skipped"] == {"not a string": 1, "empty": 1}
    assert take(made.batches(rank=0, world_size=1, micro_batch=2), 100)
    with pytest.raises(DataError, match=r"no field 'txt' \(--data\.field\).*'text', 'id'; did you mean 'text'"):
        corpus(tmp_path, field="txt")


def test_a_name_that_cannot_be_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    def offline(name: str, subset: str | None) -> None:
        raise ConnectionError(f"Couldn't reach {name!r} on the Hub")

    monkeypatch.setattr(datasets, "load_dataset_builder", offline)
    of_bytes = PreTrainedTokenizerFast(tokenizer_object=BYTES, eos_token=tokenizer.END_TOKEN)
    with pytest.raises(DataError, match=r"--data\.source allenai/c4: .*Couldn't reach.*--data\.source builtin"):
        prepare(DataConfig(source=("allenai/c4",)), of_bytes, seed=0, progress=False)


def test_an_unknown_subset(folder: Path) -> None:
    with pytest.raises(DataError, match=r"--data\.subset en: .*default"):
        corpus(folder, subset="en")


def test_which_names_are_data_sets(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert isinstance(sources.resolve_source(DataConfig(source=("allenai/c4",), subset="en")), HubSource)
    (tmp_path / "allenai").mkdir()
    (tmp_path / "allenai" / "c4").write_text("a file of that name is local")
    assert not isinstance(sources.resolve_source(DataConfig(source=("allenai/c4",))), HubSource)
