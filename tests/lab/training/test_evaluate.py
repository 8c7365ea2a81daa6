"""Held-out figures against their definitions: standard error by document, bytes of what was predicted, fill-up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from transformers.convert_slow_tokenizer import bytes_to_unicode

from lab.data import Corpus, DataConfig, DataError, load_tokenizer, prepare
from lab.data.encoder import Encoder
from lab.diagnostics.engine.block_sums import BlockSums
from lab.parallel.heartbeat import Heartbeat
from lab.training.evaluate import VARIANCE_BLOCKS, evaluate

LENGTH = 16
WORDS = ["the", "naïve", "grüne", "日本語", "🎉", "cafe\u0301", "of", "ﬁne", "and", "x", "under", "  "]


def write(folder: Path, documents: int = 120) -> None:
    rng = np.random.default_rng(0)
    lines = [" ".join(rng.choice(WORDS, rng.integers(1, 25))) + f" {number}" for number in range(documents)]
    (folder / "text.txt").write_text("\n".join(lines), encoding="utf-8")


def made(folder: Path, tokenizer: PreTrainedTokenizerFast | None = None, **settings: Any) -> tuple[Corpus, Any]:
    config = DataConfig(
        source=(str(folder / "text.txt"),),
        cache_dir=str(folder / "cache"),
        **{"text_unit": "line", "tokenizer": "bpe:320", "block_length": LENGTH, "heldout_fraction": 0.3} | settings,
    )
    tokenizer = tokenizer or load_tokenizer(config, progress=False)
    return prepare(config, tokenizer, seed=0, progress=False), tokenizer


def tiny(vocabulary: int) -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        initializer_range=0.5,
    )
    return LlamaForCausalLM(config).eval()


def figures(corpus: Corpus, model: LlamaForCausalLM, blocks: int, micro_batch: int = 5) -> dict[str, float]:
    with Heartbeat(600).watching() as heartbeat:
        return evaluate(model, corpus, Accelerator(cpu=True), heartbeat, micro_batch=micro_batch, blocks=blocks)


@torch.no_grad()
def losses_by_document(corpus: Corpus, model: LlamaForCausalLM, blocks: int) -> dict[int, list[tuple[int, float]]]:
    """(target, its loss) of each document, one target at a time."""
    tokens, end = corpus.heldout.tokens.tolist(), corpus.heldout.end
    document, of = 0, []
    for token in tokens:
        of.append(document)
        document += token == end
    found: dict[int, list[tuple[int, float]]] = {}
    for index in range(blocks):
        block = corpus.heldout[index]
        inputs = {name: tensor[None] for name, tensor in block.items() if name != "targets"}
        predictions = model(**inputs, use_cache=False).logits[0].double().log_softmax(-1)
        for offset in range(LENGTH):
            here = index * LENGTH + offset
            if here + 1 >= len(tokens) or (corpus.heldout.isolate and tokens[here] == end):
                continue
            loss = -float(predictions[offset, tokens[here + 1]])
            found.setdefault(of[here + 1], []).append((tokens[here + 1], loss))
    return found


@pytest.mark.parametrize("isolate", [False, True])
@pytest.mark.parametrize("part", [1.0, 0.4])
def test_loss_and_standard_error_are_those_over_documents(tmp_path: Path, isolate: bool, part: float) -> None:
    write(tmp_path)
    corpus, tokenizer = made(tmp_path, isolate_documents=isolate)
    model = tiny(len(tokenizer))
    blocks = int(part * len(corpus.heldout))
    found = losses_by_document(corpus, model, blocks)
    sums = np.array([sum(loss for _, loss in targets) for targets in found.values()])
    counts = np.array([len(targets) for targets in found.values()])
    mean, clusters = sums.sum() / counts.sum(), len(found)
    error = np.sqrt(clusters / (clusters - 1) * ((sums - mean * counts) ** 2).sum()) / counts.sum()
    without = (sums.sum() - sums) / (counts.sum() - counts)  # the jackknife: each document left out once
    jackknife = np.sqrt((clusters - 1) / clusters * ((without - without.mean()) ** 2).sum())
    for micro_batch in (1, 7):
        figure = figures(corpus, model, blocks, micro_batch)
        assert figure["eval/loss"] == pytest.approx(mean, rel=1e-5)
        assert figure["eval/loss_se"] == pytest.approx(error, rel=1e-4)
        assert figure["eval/loss_se"] == pytest.approx(jackknife, rel=0.1)


def test_one_document_has_no_standard_error(tmp_path: Path) -> None:
    write(tmp_path)
    corpus, tokenizer = made(tmp_path, block_length=2)
    assert corpus.heldout_documents(1).max() == 0
    assert "eval/loss_se" not in figures(corpus, tiny(len(tokenizer)), 1)


def test_intervals_of_the_standard_error_cover_the_mean() -> None:
    """Documents of unequal length whose tokens share an effect: of 600 sets, 95 % intervals cover in about 95 %."""
    rng = np.random.default_rng(1)
    covered, naive = [], []
    for _ in range(600):
        lengths = 1 + rng.geometric(0.05, size=80)
        effects = rng.normal(3.0, 0.5, size=80)
        losses = np.concatenate(
            [effect + rng.normal(0, 0.5, size) for effect, size in zip(effects, lengths, strict=True)]
        )
        of = torch.from_numpy(np.repeat(np.arange(80), lengths))
        sums = BlockSums(80, (), torch.device("cpu"))
        sums.sums.index_add_(0, of, torch.from_numpy(losses))
        sums.counts.index_add_(0, of, torch.ones(len(of), dtype=torch.float64))
        off = abs(float(sums.mean()) - 3.0)
        covered.append(off < 1.96 * float(sums.error()))
        naive.append(off < 1.96 * losses.std() / np.sqrt(len(losses)))
    assert 0.92 < np.mean(covered) < 0.97
    assert np.mean(naive) < 0.7


def byte_level(tokenizer: Any, ids: list[int]) -> int:
    """Bytes that ids of a byte-level vocabulary decode to."""
    alphabet = {character: number for number, character in bytes_to_unicode().items()}
    return sum(len(bytes(alphabet[character] for character in tokenizer.convert_ids_to_tokens(id_))) for id_ in ids)


@pytest.mark.parametrize("isolate", [False, True])
@pytest.mark.parametrize("part", [1.0, 0.5])
def test_bits_per_byte_are_of_the_bytes_that_the_targets_decode_to(tmp_path: Path, isolate: bool, part: float) -> None:
    write(tmp_path)
    corpus, tokenizer = made(tmp_path, isolate_documents=isolate)
    model = tiny(len(tokenizer))
    blocks = int(part * len(corpus.heldout))
    targets = [one for document in losses_by_document(corpus, model, blocks).values() for one in document]
    predicted = byte_level(tokenizer, [target for target, _ in targets if target != tokenizer.eos_token_id])
    expected = sum(loss for _, loss in targets) / np.log(2) / predicted
    assert figures(corpus, model, blocks)["eval/bits_per_byte"] == pytest.approx(expected, rel=1e-5)
    whole = byte_level(tokenizer, [token for token in corpus.heldout.tokens.tolist() if token != corpus.heldout.end])
    assert whole == corpus.summary()["heldout_bytes"]


def other_tokenizers(lines: list[str]) -> dict[str, PreTrainedTokenizerFast]:
    """Tokenizers that change the text before they cut it."""
    pieces = Tokenizer(models.WordPiece(unk_token="<unk>"))
    pieces.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    pieces.pre_tokenizer = pre_tokenizers.Whitespace()
    unigram = Tokenizer(models.Unigram())
    unigram.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace("  ", " ")])
    unigram.pre_tokenizer = pre_tokenizers.Metaspace()
    composed = Tokenizer(models.BPE())
    composed.normalizer = normalizers.NFC()
    composed.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    special = ["</s>", "<unk>"]
    pieces.train_from_iterator(lines, trainers.WordPieceTrainer(vocab_size=120, special_tokens=special))
    unigram.train_from_iterator(
        lines, trainers.UnigramTrainer(vocab_size=90, special_tokens=special, unk_token="<unk>")
    )
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    composed.train_from_iterator(
        lines, trainers.BpeTrainer(vocab_size=300, special_tokens=special, initial_alphabet=alphabet)
    )
    made = {"pieces": pieces, "unigram": unigram, "composed": composed}
    return {name: PreTrainedTokenizerFast(tokenizer_object=one, eos_token="</s>") for name, one in made.items()}


@pytest.mark.parametrize("kind", ["pieces", "unigram", "composed"])
def test_every_byte_of_a_document_belongs_to_one_token(tmp_path: Path, kind: str) -> None:
    write(tmp_path)
    lines = (tmp_path / "text.txt").read_text(encoding="utf-8").splitlines()
    tokenizer = other_tokenizers(lines)[kind]
    encoder = Encoder.of(tokenizer)
    for line in [*lines, "  ", "e\u0301", "\u00a0x  "]:
        [ids] = encoder.encode([line])
        counts = encoder.byte_counts(line, ids)
        assert len(counts) == len(ids) and (counts >= 0).all() and counts.sum() == len(line.encode())
    corpus, _ = made(tmp_path, tokenizer)
    assert corpus.heldout_bytes.sum() == corpus.summary()["heldout_bytes"]
    model = tiny(len(tokenizer))
    # All but the first token is predicted, so the bytes are those of the text without that token's.
    blocks = len(corpus.heldout)
    total = sum(loss for document in losses_by_document(corpus, model, blocks).values() for _, loss in document)
    predicted = corpus.summary()["heldout_bytes"] - int(corpus.heldout_bytes[0])
    assert figures(corpus, model, blocks)["eval/bits_per_byte"] == pytest.approx(
        total / np.log(2) / predicted, rel=1e-5
    )


def test_what_a_word_piece_stands_for_is_known() -> None:
    tokenizer = other_tokenizers(["the café fine", "the fine café"] * 40)["pieces"]
    encoder = Encoder.of(tokenizer)
    text = "the  ﬁne café "
    [ids] = encoder.encode([text])
    assert [tokenizer.decode([token]) for token in ids] == ["the", "fine", "café", "</s>"]
    # "the"; two spaces, a ligature of three bytes and "ne"; a space and "café"; the space that is left.
    assert encoder.byte_counts(text, ids).tolist() == [3, 2 + 3 + 2, 1 + 5, 1]


def test_variances_leave_out_what_fills_up_the_last_block(tmp_path: Path) -> None:
    write(tmp_path, documents=30)
    corpus, tokenizer = made(tmp_path, block_length=64)
    blocks = len(corpus.heldout)
    fill_up = blocks * 64 - len(corpus.heldout.tokens)
    assert fill_up > 8 and blocks < VARIANCE_BLOCKS
    model = tiny(len(tokenizer))
    outputs: list[torch.Tensor] = []
    handle = model.model.layers[-1].register_forward_hook(lambda module, args, output: outputs.append(output[0]))
    with torch.no_grad():
        for index in range(blocks):
            model(corpus.heldout[index]["input_ids"][None], use_cache=False)
    handle.remove()
    stream = torch.cat(outputs)[: len(corpus.heldout.tokens)]
    expected = float(stream.double().var(dim=-1, correction=0).mean())
    for micro_batch in (1, 3):
        assert figures(corpus, model, blocks, micro_batch)["variance/layer_02"] == pytest.approx(expected, rel=1e-5)


def test_as_many_blocks_as_asked_for_or_an_error(tmp_path: Path) -> None:
    write(tmp_path)
    corpus, _ = made(tmp_path)
    there = len(corpus.heldout)
    assert [corpus.evaluated_blocks(asked) for asked in (1, there, "all", None)] == [1, there, there, min(256, there)]
    with pytest.raises(
        DataError, match=rf"--eval.blocks {there + 1}: there are {there} held-out blocks.*all.*fraction"
    ):
        corpus.evaluated_blocks(there + 1)
