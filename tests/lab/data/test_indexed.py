"""Indexed sources: the split, the order over ranks and epochs, exact resumption, and the figures reported."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lab.data import Corpus, DataConfig, DataError, load_tokenizer, prepare
from lab.data.indexed import BlockOrder
from lab.data.loading import Batches
from lab.data.packing import IGNORED


def corpus(path: Path, *, seed: int = 0, source: tuple[str, ...] | None = None, **settings: Any) -> Corpus:
    config = DataConfig(
        source=source or (str(path / "text"),),
        cache_dir=str(path / "cache"),
        **{"text_unit": "line", "tokenizer": "bpe:257", "block_length": 16, **settings},
    )
    return prepare(config, load_tokenizer(config, progress=False), seed=seed, progress=False)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "text").mkdir()
    rng = np.random.default_rng(0)
    for name in "abc":
        lines = [f"{name} {n} " + "x" * int(rng.integers(0, 40)) for n in range(60)]
        (tmp_path / "text" / f"{name}.txt").write_text("\n".join(lines))
    return tmp_path


def documents_of(tokens: np.ndarray, end: int) -> list[bytes]:
    pieces = np.split(tokens, np.flatnonzero(tokens == end) + 1)
    return [piece[:-1].astype(np.int64).tobytes() for piece in pieces if len(piece)]


def sides(path: Path, source: tuple[str, ...] | None = None) -> tuple[set[bytes], set[bytes]]:
    made = corpus(path, source=source)
    folder = path / "cache" / "tokens" / made.summary()["data_digest"]
    train, heldout = (np.load(folder / f"{side}.npy") for side in ("train", "heldout"))
    return set(documents_of(train, made.heldout.end)), set(documents_of(heldout, made.heldout.end))


def test_no_document_is_on_both_sides_whatever_the_order(folder: Path) -> None:
    lines = (folder / "text" / "a.txt").read_text().splitlines()
    (folder / "text" / "copy.txt").write_text("\n".join(reversed(lines)))
    # A fixed tokenizer (bpe:257 has no merges) makes equal documents equal tokens.
    train, heldout = sides(folder)
    assert train and heldout and train.isdisjoint(heldout)
    assert len(train | heldout) == 180
    backwards = tuple(str(path) for path in sorted((folder / "text").iterdir(), reverse=True))
    assert sides(folder, backwards) == (train, heldout)


def rows(batches: Batches, count: int) -> list[list[int]]:
    taken = [next(batches) for _ in range(count)]
    both = [torch.cat([batch["input_ids"], batch["targets"]], dim=1) for batch in taken]
    return torch.cat(both).tolist()


@pytest.mark.parametrize("world_size", [2, 3, 4])
def test_steps_are_the_same_for_any_number_of_ranks(folder: Path, world_size: int) -> None:
    made = corpus(folder)
    steps = 2 * made.summary()["train_blocks"] // 12 + 2  # into the third epoch
    alone = made.batches(rank=0, world_size=1, micro_batch=12)
    ranks = [made.batches(rank=rank, world_size=world_size, micro_batch=12 // world_size) for rank in range(world_size)]
    for _ in range(steps):
        assert [row for rank in ranks for row in rows(rank, 1)] == rows(alone, 1)


def test_an_epoch_is_every_block_once_in_a_new_order(folder: Path) -> None:
    made = corpus(folder)
    count = made.summary()["train_blocks"]
    batches = made.batches(rank=0, world_size=1, micro_batch=1)
    epochs = [rows(batches, count) for _ in range(3)]
    assert epochs[0] != epochs[1] != epochs[2]
    assert sorted(epochs[0]) == sorted(epochs[1]) == sorted(epochs[2])
    targets = [token for row in epochs[0] for token in row[16:] if token != IGNORED]
    assert len(targets) == made.summary()["train_tokens"] - 1
    other = corpus(folder, seed=1).batches(rank=0, world_size=1, micro_batch=1)
    assert rows(other, count) != epochs[0]


def test_the_order_is_a_formula_of_seed_and_epoch() -> None:
    order = BlockOrder(10, seed=3)
    generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence([3, 1])))
    second = generator.permutation(np.arange(10, dtype=np.uint32))
    assert order(np.arange(8, 14))[2:].tolist() == second[:4].tolist()
    assert sorted(order(np.arange(10)).tolist()) == list(range(10))


@pytest.mark.parametrize("workers", [0, 2])
def test_resume_is_exact_on_any_number_of_ranks(folder: Path, workers: int) -> None:
    made = corpus(folder, workers=workers)
    whole = made.batches(rank=0, world_size=1, micro_batch=4)
    rows(whole, 5)
    state = json.loads(json.dumps(whole.state_dict()))
    assert state["sequences"] == 20
    expected = rows(whole, 6)
    assert rows(made.batches(rank=0, world_size=1, micro_batch=4, states=[state]), 6) == expected
    assert rows(made.batches(rank=0, world_size=1, micro_batch=4, start_sequences=20), 6) == expected
    two = [
        made.batches(rank=rank, world_size=2, micro_batch=2, start_sequences=20, states=[state]) for rank in range(2)
    ]
    assert [row for _ in range(6) for rank in two for row in rows(rank, 1)] == expected


@pytest.mark.parametrize(("world_size", "micro_batch"), [(1, 4), (2, 1), (4, 1)])
def test_a_budget_is_exact_to_the_token(folder: Path, world_size: int, micro_batch: int) -> None:
    made = corpus(folder)
    left = {"start_sequences": 8, "tokens": 4 * 16 + 16 + 5}
    layout = {"world_size": world_size, "micro_batch": micro_batch}
    ranks = [made.batches(rank=rank, **layout, **left) for rank in range(world_size)]
    steps = 3 * 4 // world_size // micro_batch
    found = [row for _ in range(steps) for rank in ranks for row in rows(rank, 1)]
    whole = rows(made.batches(rank=0, world_size=1, micro_batch=4, start_sequences=8), 3)
    assert [row[:16] for row in found] == [row[:16] for row in whole]
    targets = [target for row in found for target in row[16:]]
    assert targets[:85] == [target for row in whole for target in row[16:]][:85]
    assert targets[85:] == [IGNORED] * (12 * 16 - 85)


def test_a_position_in_other_data_is_refused(folder: Path) -> None:
    state = corpus(folder).batches(rank=0, world_size=1, micro_batch=4).state_dict()
    for flag, made in (
        ("--train.seed", corpus(folder, seed=1)),
        ("--data.block-length", corpus(folder, block_length=8)),
        ("--data.source", corpus(folder, heldout_fraction=0.1)),
    ):
        with pytest.raises(DataError, match=flag):
            made.batches(rank=0, world_size=1, micro_batch=4, states=[state])
    moved = state | {"sequences": 4}
    with pytest.raises(DataError, match=r"do not belong together: they are \[4, 8\] sequences"):
        corpus(folder).batches(rank=0, world_size=1, micro_batch=4, start_sequences=8, states=[moved])


def test_figures(folder: Path) -> None:
    (folder / "text" / "d.txt").write_bytes(b"\xff\n")
    made = corpus(folder)
    summary = made.summary()
    json.dumps(summary)
    assert summary["skipped"] == {"invalid UTF-8": 1}
    assert summary["documents"] == 180 == summary["train_documents"] + summary["heldout_documents"]
    # One token a byte, and the end token of each document.
    assert summary["heldout_tokens"] == summary["heldout_bytes"] + summary["heldout_documents"]
    assert len(made.heldout_bytes) == summary["heldout_tokens"]
    assert made.heldout_bytes.sum() == summary["heldout_bytes"]
    targets = torch.stack([made.heldout[number]["targets"] for number in range(len(made.heldout))])
    assert (targets != IGNORED).sum() == summary["heldout_tokens"] - 1
    assert len(made.heldout) == summary["heldout_blocks"]


def test_the_vocabulary_must_fit(folder: Path) -> None:
    made = corpus(folder)
    made.check_vocabulary(257)
    largest = made.max_token_id
    with pytest.raises(DataError, match=f"token id {largest} .* vocabulary of {largest}"):
        made.check_vocabulary(largest)


def test_loading_leaves_the_random_numbers_of_torch_alone(folder: Path) -> None:
    before = torch.get_rng_state()
    next(corpus(folder).batches(rank=0, world_size=1, micro_batch=2))
    assert torch.equal(torch.get_rng_state(), before)


def test_wide_vocabularies_are_stored_in_32_bits(folder: Path, tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.WordLevel({"a": 70000, "?": 1, "end": 2}, unk_token="?"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="?", eos_token="end")
    config = DataConfig(
        source=(str(folder / "text"),), text_unit="line", block_length=4, cache_dir=str(tmp_path / "wide")
    )
    made = prepare(config, tokenizer, seed=0, progress=False)
    assert made.max_token_id == 70000 and made.heldout.tokens.dtype == np.uint32
