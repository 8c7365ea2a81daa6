"""Packed blocks against pad-and-truncate: useful tokens/s on the docstrings of the standard library.

Trains a small Llama for real on both, step by step in turn, with the same number of positions a step. A token is
useful if the model is trained to predict it. Speed is useful tokens a step over the median time of a step; beside
the measured ratio stands the one that padding alone explains, were all steps equally long.

A document is all docstrings of one module, or each docstring by itself (`--document docstring`); most of those
are far shorter than a sequence. The answer depends on that choice more than on anything else.

    python benchmarks/packing.py --steps 40
"""

from __future__ import annotations

import argparse
import ast
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from lab.data import Blocks
from lab.data.builtin import builtin_files
from lab.data.documents import Document, Skipped, as_document
from lab.data.encoder import Encoder
from lab.data.packing import IGNORED, Batch
from lab.data.tokenizer import END_TOKEN, train_bpe

TARGET = 1.5
"""Ratio of useful tokens/s that we hold ourselves to."""


def docstrings(unit: str) -> list[Document]:
    """The docstrings of the standard library, cleaned by `ast`, each or joined by module (`unit`)."""
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    texts: list[str] = []
    for path in builtin_files():
        nodes = (node for node in ast.walk(ast.parse(path.read_bytes())) if isinstance(node, kinds))
        found = [text for node in nodes if (text := ast.get_docstring(node))]
        texts += ["\n\n".join(found)] if unit == "module" else found
    skipped = Skipped()
    return [document for text in texts if (document := as_document(text, skipped)) is not None]


def padded(documents: list[np.ndarray], length: int, end: int) -> Batch:
    """One row a document, cut or padded to `length` positions: tensors (documents, length)."""
    inputs = np.full((len(documents), length), end)
    targets = np.full((len(documents), length), IGNORED)
    for row, tokens in enumerate(documents):
        kept = tokens[: length + 1]
        inputs[row, : len(kept) - 1] = kept[:-1]
        targets[row, : len(kept) - 1] = kept[1:]
    return {"input_ids": torch.from_numpy(inputs), "targets": torch.from_numpy(targets)}


@dataclass
class Run:
    """A model in training, its data, and what it has done so far."""

    model: LlamaForCausalLM
    data: Batch
    batch: int
    seed: int

    def __post_init__(self) -> None:
        self.seconds: list[float] = []
        self.useful: list[int] = []
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-3)
        self.rows = self._rows()

    def _rows(self) -> Iterator[torch.Tensor]:
        generator = torch.Generator().manual_seed(self.seed)
        while True:
            order = torch.randperm(len(self.data["targets"]), generator=generator)
            yield from order[: len(order) // self.batch * self.batch].split(self.batch)

    def step(self, timed: bool) -> None:
        """One optimizer step on the next batch."""
        began = time.perf_counter()
        rows = next(self.rows)
        targets = self.data["targets"][rows]
        logits = self.model(self.data["input_ids"][rows], use_cache=False).logits
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORED)
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        if timed:
            self.seconds.append(time.perf_counter() - began)
            self.useful.append(int((targets != IGNORED).sum()))

    @property
    def speed(self) -> float:
        """Useful tokens per second."""
        return statistics.fmean(self.useful) / statistics.median(self.seconds)


def tiny_llama(vocabulary: int, length: int) -> LlamaForCausalLM:
    """4 layers of width 128 (the `llama_9m` preset's shape)."""
    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=vocabulary,
            hidden_size=128,
            intermediate_size=352,
            num_hidden_layers=4,
            num_attention_heads=4,
            max_position_embeddings=length,
        )
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=40, help="timed optimizer steps of each (default 40)")
    parser.add_argument("--batch", type=int, default=16, help="sequences a step (default 16)")
    parser.add_argument("--length", type=int, default=256, help="tokens a sequence (default 256)")
    parser.add_argument("--vocabulary", type=int, default=4096, help="entries of the BPE (default 4096)")
    parser.add_argument(
        "--document",
        choices=("module", "docstring"),
        default="module",
        help="what one document is (default module)",
    )
    args = parser.parse_args()

    documents = docstrings(args.document)
    backend = train_bpe(documents, args.vocabulary, progress=False)
    encoder = Encoder(backend.to_str(), backend.token_to_id(END_TOKEN))
    tokens = encoder.encode([document.text for document in documents])
    total = sum(map(len, tokens))

    rows = padded(tokens, args.length, encoder.end)
    blocks = Blocks(np.concatenate(tokens), block_length=args.length, end=encoder.end, isolate=False)
    packed = blocks.batch(np.arange(len(blocks)))

    median = int(np.median([len(document) for document in tokens]))
    print(f"{len(documents):,} documents, {total:,} tokens (median {median} a document)")
    # A document's first token has nothing before it in its row, so it cannot be a target there.
    kept = sum(min(len(document), args.length + 1) for document in tokens)
    for name, batch, cut in (("pad-and-truncate", rows, 1 - kept / total), ("packed", packed, 0.0)):
        waste = float((batch["targets"] == IGNORED).float().mean())
        count = len(batch["targets"])
        print(f"  {name:16s} {count:6,} rows: {waste:5.1%} padding, {cut:5.1%} of tokens truncated")

    runs = {
        name: Run(tiny_llama(args.vocabulary, args.length), data, args.batch, seed=0)
        for name, data in (("pad-and-truncate", rows), ("packed", packed))
    }
    for step in range(args.steps + 3):
        for run in runs.values():
            run.step(timed=step >= 3)
    for name, run in runs.items():
        step_ms = statistics.median(run.seconds) * 1e3
        print(f"  {name:16s} {run.speed:8,.0f} useful tokens/s (median {step_ms:.0f} ms a step)")
    ratio = runs["packed"].speed / runs["pad-and-truncate"].speed
    expected = (packed["targets"] != IGNORED).float().mean() / (rows["targets"] != IGNORED).float().mean()
    print(
        f"packed / pad-and-truncate: {ratio:.2f} x useful tokens/s; {expected:.2f} x from padding alone "
        f"(target {TARGET} x)"
    )


if __name__ == "__main__":
    main()
