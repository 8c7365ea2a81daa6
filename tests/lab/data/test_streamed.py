"""Streamed data sets: one order for every layout, every document once a pass, and going on exactly elsewhere.

`datasets` streams a local folder as it streams the hub: that folder's path stands for the name of a data set.
"""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from transformers import PreTrainedTokenizerFast

from lab.data import Corpus, DataConfig, DataError, load_tokenizer, prepare, reader, sources, tokenizer
from lab.data import corpus as corpus_module
from lab.data.documents import Document, Skipped, as_document
from lab.data.hub import HubSource
from lab.data.loading import Batches
from lab.data.packing import IGNORED

FILES, RECORDS, LENGTH, ROW_GROUP = 4, 30, 16, 8


def document(text: str) -> Document:
    made = as_document(text, Skipped())
    assert made is not None
    return made


BYTES = tokenizer.train_bpe([document("any")], 257, progress=False)
LETTERS = {token: BYTES.decode([token]) for token in range(257)}


def text(file: int, record: int, split: str = "train") -> str:
    return f"<{split} {file}.{record}>" + "x" * ((7 * record + file) % 23)


def write_shards(folder: Path, suffix: str, split: str = "train", per_file: Sequence[int] = (RECORDS,) * FILES) -> None:
    folder.mkdir(exist_ok=True)
    for file, records in enumerate(per_file):
        texts = [text(file, record, split) for record in range(records)]
        path = folder / f"{split}-{file}.{suffix}"
        if suffix == "parquet":
            pq.write_table(pa.table({"text": texts}), path, row_group_size=ROW_GROUP)
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


Layout = tuple[int, int, int]
"""Number of ranks, sequences in a micro-batch, loader processes."""


def ranks_of(
    folder: Path, layout: Layout, states: list[dict[str, Any]] | None = None, **settings: Any
) -> list[Batches]:
    world_size, micro_batch, workers = layout
    made = corpus(folder, workers=workers, **settings)
    return [
        made.batches(rank=rank, world_size=world_size, micro_batch=micro_batch, states=states or [])
        for rank in range(world_size)
    ]


def steps_of(ranks: list[Batches], layout: Layout, steps: int, *, global_batch: int = 12) -> list[list[tuple]]:
    """The sequences of each step, (inputs, targets), as a sorted list: their order within a step decides nothing."""
    world_size, micro_batch, _ = layout
    taken = []
    for _ in range(steps):
        batches = [batch for rank in ranks for batch in take(rank, global_batch // world_size // micro_batch)]
        rows = [row for batch in batches for row in zip(batch["input_ids"], batch["targets"], strict=True)]
        taken.append(sorted(rows))
    return taken


def everything(per_file: list[int]) -> list[str]:
    return sorted(text(file, record) for file, records in enumerate(per_file) for record in range(records))


SHARDS = {
    "a file a reader": ([RECORDS] * FILES, 4, 1),
    "fewer readers than files": ([RECORDS] * FILES, 2, 1),
    "fewer files than readers": ([RECORDS] * 3, 24, 1),
    "uneven files": ([3, 50, 17, 8], 4, 1),
    "uneven parts": ([20, 9, 30, 12, 5], 2, 1),
    "one file": ([40], 24, 1),
    "windows": ([RECORDS] * FILES, 4, 20),
}


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
@pytest.mark.parametrize("shape", SHARDS)
def test_no_document_is_lost_or_seen_twice_in_a_pass(tmp_path: Path, suffix: str, shape: str) -> None:
    per_file, wanted, window = SHARDS[shape]
    write_shards(tmp_path / "shards", suffix, per_file=per_file)
    write_shards(tmp_path / "shards", suffix, "test")
    made = corpus(tmp_path, heldout_split="test", readers=wanted, shuffle_buffer=1)
    readers = made.summary()["readers"]
    files = len(per_file) if suffix == "jsonl" else sum(-(-records // ROW_GROUP) for records in per_file)
    assert readers == min(wanted, files)
    batches = made.batches(rank=0, world_size=1, micro_batch=readers)
    rows: list[list[list[int]]] = [[] for _ in range(readers)]
    for batch in take(batches, 3 * 30 * max(per_file) * len(per_file) // readers // LENGTH + 60):
        for number, row in enumerate(batch["input_ids"]):
            rows[number].append(row)
    documents = [decode([token for row in own for token in row], made.heldout.end) for own in rows]
    first, second = [], []
    for found in documents:
        part = len(set(found))
        assert len(found) > 2 * part  # two whole passes were read
        assert len(set(found[:part])) == len(set(found[part : 2 * part])) == part
        first += found[:part]
        second += found[part : 2 * part]
    assert sorted(first) == sorted(second) == everything(per_file)
    if window > 1:
        mixed = corpus(tmp_path, heldout_split="test", readers=wanted, shuffle_buffer=window)
        size = window // readers
        taken = take(mixed.batches(rank=0, world_size=1, micro_batch=readers), 4 * size)
        for number, plain in enumerate(rows):
            shuffled = [batch["input_ids"][number] for batch in taken]
            for start in range(0, 4 * size, size):
                assert sorted(shuffled[start : start + size]) == sorted(plain[start : start + size])
            assert shuffled != plain[: 4 * size]


LAYOUTS: list[Layout] = [(1, 12, 0), (1, 4, 2), (2, 2, 1), (2, 6, 0), (3, 1, 0), (3, 4, 2), (4, 3, 1)]


@pytest.mark.parametrize("readers", [4, 3])
def test_the_sequences_of_a_step_are_the_same_under_every_layout(folder: Path, readers: int) -> None:
    steps = 20  # 240 sequences: into the third pass
    first, *others = [steps_of(ranks_of(folder, layout, readers=readers), layout, steps) for layout in LAYOUTS]
    assert all(other == first for other in others)
    assert steps_of(ranks_of(folder, LAYOUTS[0], readers=readers, seed=1), LAYOUTS[0], steps) != first


@pytest.mark.parametrize(
    "layouts",
    [
        [(1, 4, 0), (2, 2, 0), (3, 4, 0)],
        [(3, 2, 0), (1, 4, 2), (2, 6, 1)],
        [(2, 3, 2), (2, 3, 0), (1, 2, 1), (4, 1, 0)],
    ],
)
@pytest.mark.parametrize("steps", [0, 1, 3, 11])
def test_a_run_goes_on_exactly_under_another_layout(folder: Path, layouts: list[Layout], steps: int) -> None:
    alone: Layout = (1, 12, 0)
    settings = {"isolate_documents": True, "readers": 4, "shuffle_buffer": 20}
    expected = steps_of(ranks_of(folder, alone, **settings), alone, steps * len(layouts) + 4)
    states: list[dict[str, Any]] = []
    found = []
    for layout in layouts:
        ranks = ranks_of(folder, layout, states, **settings)
        found += steps_of(ranks, layout, steps)
        states = [json.loads(json.dumps(rank.state_dict())) for rank in ranks]
        stored = io.BytesIO()
        torch.save([rank.state_dict() for rank in ranks], stored)
        stored.seek(0)
        assert torch.load(stored, weights_only=True) == states
        states = states[::-1]  # in whatever order they are read back
    found += steps_of(ranks_of(folder, layouts[-1], states, **settings), layouts[-1], 4)
    assert found == expected


@pytest.mark.parametrize("taken", [0, 2])
def test_a_budget_ends_in_the_same_sequence_under_every_layout(folder: Path, taken: int) -> None:
    alone: Layout = (1, 12, 0)
    before = ranks_of(folder, alone, readers=4)
    steps_of(before, alone, taken)
    states = [rank.state_dict() for rank in before]
    left = 12 * LENGTH + 4 * LENGTH + 5  # a step, four sequences of the next one, and five tokens of a fifth
    ends = []
    for layout in LAYOUTS:
        world_size, micro_batch, workers = layout
        made = corpus(folder, workers=workers, readers=4)
        ranks = [
            made.batches(rank=rank, world_size=world_size, micro_batch=micro_batch, states=states, tokens=left)
            for rank in range(world_size)
        ]
        ends.append(steps_of(ranks, layout, 3))
    assert all(end == ends[0] for end in ends)
    predicted = [sum(target != IGNORED for _, row in step for target in row) for step in ends[0]]
    assert predicted == [12 * LENGTH, 4 * LENGTH + 5, 0]


class Counted:
    """Counts the records that the readers of a process ask the data set for."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.records = 0
        plain = reader.Reader._texts

        def counting(made: reader.Reader, records: dict[str, list[Any]]) -> list[str]:
            self.records += len(records["text"])
            return plain(made, records)

        monkeypatch.setattr(reader.Reader, "_texts", counting)


@pytest.mark.parametrize(("world_size", "readers", "times"), [(1, 4, 1), (2, 4, 1), (4, 4, 1), (3, 4, 3), (4, 2, 2)])
def test_ranks_divide_the_reading_or_say_what_it_costs(
    folder: Path,
    world_size: int,
    readers: int,
    times: int,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    counted = Counted(monkeypatch)
    read = []
    for ranks in (1, world_size):
        counted.records = 0
        layout = (ranks, 12 // ranks, 0)
        steps_of(ranks_of(folder, layout, readers=readers), layout, 12)
        read.append(counted.records)
    assert read[1] == pytest.approx(times * read[0], rel=0.15)
    warned = [record.message for record in caplog.records if "times over" in record.message]
    assert len(warned) == (times > 1)
    assert all(f"{times} times over: {world_size} processes" in message for message in warned)


def test_a_reader_goes_on_without_reading_its_part_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layout = (1, 12, 0)
    ranks = ranks_of(folder, layout, readers=2)
    steps_of(ranks, layout, 15)
    counted = Counted(monkeypatch)
    steps_of(ranks_of(folder, layout, [ranks[0].state_dict()], readers=2), layout, 1)
    assert counted.records <= 2 * 3 * reader.GROUP_RECORDS


@pytest.mark.slow
def test_two_real_processes_read_what_one_does(tmp_path: Path) -> None:
    folder = tmp_path
    write_shards(folder / "shards", "jsonl")
    made = corpus(folder, readers=4)
    script = """
import json, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import test_streamed as here
for module in (here.corpus_module, here.tokenizer):
    module.resolve_source = lambda c: here.HubSource(c.source[0], c.subset, c.split, c.heldout_split, c.field)
folder, rank, states = Path(sys.argv[2]), int(sys.argv[3]), json.loads(Path(sys.argv[4]).read_text())
made = here.corpus(folder, readers=4, workers=1)
batches = made.batches(rank=rank, world_size=2, micro_batch=3, states=states)
rows = [list(zip(b["input_ids"], b["targets"])) for b in here.take(batches, 12)]
print(json.dumps({"rows": rows, "state": batches.state_dict()}))
"""
    stored = folder / "states.json"
    one = (1, 12, 0)
    whole = made.batches(rank=0, world_size=1, micro_batch=12)
    expected = steps_of([whole], one, 12)
    found, states = [], []
    for _ in range(2):
        stored.write_text(json.dumps(states))
        command = [sys.executable, "-c", script, str(Path(__file__).parent), str(folder)]
        processes = [
            subprocess.Popen([*command, str(rank), str(stored)], stdout=subprocess.PIPE, text=True) for rank in range(2)
        ]
        told = [json.loads(process.communicate(timeout=300)[0]) for process in processes]
        states = [one["state"] for one in told]
        for step in range(0, 12, 2):
            rows = [tuple(row) for one in told for batch in one["rows"][step : step + 2] for row in batch]
            found.append(sorted(rows))
    assert [[list(row) for row in step] for step in found] == [[list(row) for row in step] for step in expected]
    last = made.batches(rank=0, world_size=1, micro_batch=12, states=states)
    assert steps_of([last], one, 3) == steps_of([whole], one, 3)


def test_heldout_documents_are_not_trained_on(folder: Path) -> None:
    made = corpus(folder, shuffle_buffer=1, readers=1)
    heldout = decode(made.heldout.tokens.tolist(), made.heldout.end)
    rows = [batch["input_ids"][0] for batch in take(made.batches(rank=0, world_size=1, micro_batch=1), 400)]
    trained = decode([token for row in rows for token in row], made.heldout.end)
    assert heldout and set(trained) == set(everything([RECORDS] * FILES)) - set(heldout)


def test_a_block_begins_where_the_last_one_ended(folder: Path) -> None:
    plain = take(corpus(folder, shuffle_buffer=1, readers=1).batches(rank=0, world_size=1, micro_batch=1), 20)
    for batch, following in pairwise(plain):
        assert batch["targets"][0][-1] == following["input_ids"][0][0]


def test_another_position_is_refused(folder: Path) -> None:
    made = corpus(folder, readers=4)
    ranks = [made.batches(rank=rank, world_size=2, micro_batch=3) for rank in range(2)]
    for rank in ranks:
        take(rank, 2)
    states = [rank.state_dict() for rank in ranks]
    layout = {"rank": 0, "world_size": 1, "micro_batch": 3}
    for flag, other in (
        ("--data.shuffle-buffer was 5", corpus(folder, readers=4, shuffle_buffer=6)),
        ("--data.readers.* was 4", corpus(folder, readers=2)),
        ("--train.seed was 0", corpus(folder, readers=4, seed=1)),
        ("--data.block-length was 16", corpus(folder, readers=4, block_length=8)),
        ("--data.source or --data.tokenizer was", corpus(folder, readers=4, heldout_fraction=0.3)),
    ):
        with pytest.raises(DataError, match=f"cannot continue at the saved position in the data: {flag}"):
            other.batches(**layout, states=states)
    with pytest.raises(DataError, match="after 12 sequences: the places of readers .* It takes those of all ranks"):
        made.batches(**layout, states=states[:1])
    with pytest.raises(DataError, match="after 12 sequences: the places of readers"):
        made.batches(**layout, start_sequences=12)
    take(ranks[0], 1)
    with pytest.raises(DataError, match=r"do not belong together: .*\[12, 18\]"):
        made.batches(**layout, states=[rank.state_dict() for rank in ranks])
    with pytest.raises(DataError, match=r"do not belong together"):
        made.batches(**layout, states=states, start_sequences=24)
    before = {"kind": "streamed", "data": "x", "world_size": 1, "rank": 0, "micro_batch": 3, "workers": 0, "loader": {}}
    with pytest.raises(DataError, match="another version of depthlab \\(format 1; this one reads 2\\)"):
        made.batches(**layout, states=[before], start_sequences=6)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_part_without_a_document_is_named(tmp_path: Path, workers: int) -> None:
    write_lines(tmp_path, [json.dumps({"text": f"text {n}"}) for n in range(50)])
    (tmp_path / "shards" / "train-2.jsonl").write_text(json.dumps({"text": " "}))
    batches = corpus(tmp_path, workers=workers).batches(rank=0, world_size=1, micro_batch=2)
    with pytest.raises(DataError) as caught:
        take(batches, 1)
    message = str(caught.value)
    assert re.match(r"--data.source: reader [01] of 2 found no document .* fewer --data.readers", message)
    assert "\n" not in message


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
    assert len(made.heldout_bytes) == summary["heldout_tokens"]
    assert made.heldout_bytes.sum() == summary["heldout_bytes"]
    json.dumps(summary)
    with pytest.raises(DataError, match="does not fit"):
        made.check_vocabulary(50)


def write_lines(folder: Path, lines: list[str]) -> None:
    (folder / "shards").mkdir()
    (folder / "shards" / "train.jsonl").write_text("\n".join(lines))


def test_what_any_text_can_become_is_checked_before_a_stream_starts(folder: Path) -> None:
    made = corpus(folder)
    largest = max(number for token, number in BYTES.get_vocab().items() if token != tokenizer.END_TOKEN)
    assert made.max_token_id == largest > made.heldout.tokens.max()
    made.check_vocabulary(largest + 1)
    with pytest.raises(DataError, match=f"token id {largest} does not fit the model's vocabulary of {largest}"):
        made.check_vocabulary(largest)


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


def test_a_field_inside_of_others(tmp_path: Path) -> None:
    write_lines(tmp_path, [json.dumps({"meta": {"text": f"text {n}", "n": n}}) for n in range(60)])
    made = corpus(tmp_path, field="meta.text")
    assert made.summary()["heldout_documents"] > 0
    read = take(made.batches(rank=0, world_size=1, micro_batch=1), 5)
    assert "text" in "".join(LETTERS[token] for batch in read for token in batch["input_ids"][0])
    with pytest.raises(
        DataError, match=r"no field 'meta.txt'.*'meta', 'meta.text', 'meta.n'; did you mean 'meta.text'"
    ):
        corpus(tmp_path, field="meta.txt")


def test_a_data_set_with_a_script_says_where_its_parquet_copy_is(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    def refuse(name: str, subset: str | None) -> None:
        raise RuntimeError(f"Dataset scripts are no longer supported, but found {name}.py")

    monkeypatch.setattr(datasets, "load_dataset_builder", refuse)
    of_bytes = PreTrainedTokenizerFast(tokenizer_object=BYTES, eos_token=tokenizer.END_TOKEN)
    with pytest.raises(DataError, match=r"--data\.source some/set: Dataset scripts .* --revision refs/convert/parquet"):
        prepare(DataConfig(source=("some/set",)), of_bytes, seed=0, progress=False)


def test_an_unknown_subset(folder: Path) -> None:
    with pytest.raises(DataError, match=r"--data\.subset en: .*default"):
        corpus(folder, subset="en")


def test_which_names_are_data_sets(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert isinstance(sources.resolve_source(DataConfig(source=("allenai/c4",), subset="en")), HubSource)
    (tmp_path / "allenai").mkdir()
    (tmp_path / "allenai" / "c4").write_text("a file of that name is local")
    assert not isinstance(sources.resolve_source(DataConfig(source=("allenai/c4",))), HubSource)
