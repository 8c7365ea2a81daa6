"""Blocks hold every token as a target exactly once, and isolated documents do not see one another."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, PreTrainedModel

from lab.data import Blocks
from lab.data.packing import IGNORED, make_batch

END = 0


def documents(seed: int, count: int = 9) -> list[list[int]]:
    rng = np.random.default_rng(seed)
    return [[*rng.integers(1, 40, rng.integers(0, 11)).tolist(), END] for _ in range(count)]


def stream(docs: list[list[int]]) -> np.ndarray:
    return np.array([token for doc in docs for token in doc], dtype=np.uint16)


@pytest.mark.parametrize("length", [1, 4, 7, 200])
@pytest.mark.parametrize("seed", range(4))
def test_every_token_is_a_target_exactly_once(length: int, seed: int) -> None:
    tokens = stream(documents(seed))
    blocks = Blocks(tokens, block_length=length, end=END, isolate=False)
    seen = np.zeros(len(tokens), dtype=int)
    for number, block in enumerate(blocks[i] for i in range(len(blocks))):
        assert set(block) == {"input_ids", "targets"}
        assert block["input_ids"].shape == block["targets"].shape == (length,)
        for offset in range(length):
            here = number * length + offset  # index in the stream of this input; its target is the next token
            if here + 1 < len(tokens):
                assert block["input_ids"][offset] == tokens[here]
                assert block["targets"][offset] == tokens[here + 1]
                seen[here + 1] += 1
            else:
                assert block["input_ids"][offset] == END
                assert block["targets"][offset] == IGNORED
    assert seen.tolist() == [0] + [1] * (len(tokens) - 1)


def test_a_full_last_block_has_no_padded_block_after_it() -> None:
    blocks = Blocks(np.arange(1, 10), block_length=4, end=END, isolate=False)
    assert len(blocks) == 2
    assert (torch.stack([block["targets"] for block in (blocks[0], blocks[1])]) != IGNORED).all()
    with pytest.raises(IndexError):
        blocks[2]


@pytest.mark.parametrize("length", [4, 7, 200])
def test_isolated_positions_and_targets(length: int) -> None:
    docs = documents(5)
    within = [(number, offset) for number, doc in enumerate(docs) for offset in range(len(doc))]
    tokens = stream(docs)
    blocks = Blocks(tokens, block_length=length, end=END, isolate=True)
    for number in range(len(blocks)):
        block, first = blocks[number], number * length
        for offset in range(length):
            here = first + offset
            if here >= len(tokens):
                assert block["targets"][offset] == IGNORED
                continue
            document, inside = within[here]
            since_start = min(inside, offset)  # a document cut by the block's edge starts again at 0 there
            assert block["position_ids"][offset] == since_start
            last = here + 1 == len(tokens) or within[here + 1][0] != document
            assert block["targets"][offset] == (IGNORED if last else tokens[here + 1])


def tiny_model(family: str, attention: str) -> PreTrainedModel:
    torch.manual_seed(0)
    if family == "llama":
        llama = LlamaConfig(
            vocab_size=40,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=2,
            attn_implementation=attention,
        )
        return LlamaForCausalLM(llama).eval()
    gpt2 = GPT2Config(vocab_size=40, n_embd=32, n_layer=2, n_head=2, attn_implementation=attention)
    return GPT2LMHeadModel(gpt2).eval()


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("family", ["llama", "gpt2"])
@torch.no_grad()
def test_an_isolated_document_is_as_if_alone(family: str, attention: str) -> None:
    model = tiny_model(family, attention)
    docs = [[5, 6, 7, END], [END], [8, 9, 10, 11, 12, END], [13, 14, END]]
    batch = make_batch(np.array([[*stream(docs), 1]] * 2), end=END, isolate=True)
    packed = model(batch["input_ids"], position_ids=batch["position_ids"], use_cache=False).logits
    mixed = model(batch["input_ids"], use_cache=False).logits
    first = 0
    for number, doc in enumerate(docs):
        alone = model(torch.tensor([doc, doc]), use_cache=False).logits
        here = slice(first, first + len(doc))
        torch.testing.assert_close(packed[:, here], alone, atol=1e-5, rtol=1e-5)
        if number:
            assert (mixed[:, here] - alone).abs().max() > 1e-3
        first += len(doc)


def test_a_loader_stacks_blocks_and_worker_processes_map_the_file(tmp_path: Path) -> None:
    np.save(tmp_path / "tokens.npy", stream(documents(1, 60)))
    blocks = Blocks(tmp_path / "tokens.npy", block_length=8, end=END, isolate=True)
    assert len(pickle.dumps(blocks)) < 1000
    copy = pickle.loads(pickle.dumps(blocks))
    batches = list(DataLoader(copy, batch_size=4))
    assert sum(len(batch["input_ids"]) for batch in batches) == len(blocks)
    direct = blocks.batch(np.arange(4))
    assert all(torch.equal(batches[0][name], direct[name]) for name in direct)
