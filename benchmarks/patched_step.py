"""Training step (forward and backward) and its memory: a patched model against the stock model, for every scheme.

    python benchmarks/patched_step.py --families llama gpt2 --repeats 60

All models live in one process and take one step each, in a new random order every round, so that a slow
moment of the machine hits all of them. A second stock model among them shows the noise of the comparison. Memory is
what the forward pass keeps for the backward pass, weights apart.
"""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
import tyro
from transformers import AutoConfig, AutoModelForCausalLM

import normalization
from normalization import families, schemes


@dataclass(frozen=True)
class Settings:
    """Step time of every normalization scheme against the stock model, as ratios in one process."""

    families: tuple[str, ...] = ("llama", "gpt2")
    """Model families, from the table of `normalization.families`."""
    layers: int = 8
    """Decoder layers."""
    width: int = 256
    """Width of the residual stream; the MLP has 8/3 of it (gpt2: 4 times), heads have 32."""
    batch: int = 4
    """Sequences a step."""
    length: int = 128
    """Tokens a sequence."""
    vocabulary: int = 1024
    """Tokens in the vocabulary. Small: the head's time is the same for all and would hide the layers."""
    repeats: int = 40
    """Rounds; each model takes one step a round."""
    device: str = "cpu"
    """Device of torch, for example cuda."""
    compile: bool = False
    """Compile every model (torch.compile)."""
    threads: int | None = None
    """CPU threads of torch; its own choice if not given."""


def build(family: str, scheme: str | None, s: Settings) -> Any:
    config = AutoConfig.for_model(
        family,
        vocab_size=s.vocabulary,
        hidden_size=s.width,
        intermediate_size=s.width * 8 // 3,
        num_hidden_layers=s.layers,
        num_attention_heads=s.width // 32,
        num_key_value_heads=s.width // 32,
        head_dim=32,
        max_position_embeddings=s.length,
        bos_token_id=None,
        eos_token_id=None,
    )
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config)
    if scheme is not None:
        options = {"layers": f"{s.layers // 4} post, lns"} if scheme == "mixed" else {}
        normalization.apply(model, scheme, **options)
    model.to(s.device).train()
    return torch.compile(model) if s.compile else model


def step(model: Any, ids: torch.Tensor) -> float:
    """Milliseconds of one forward and backward pass."""
    model.zero_grad(set_to_none=True)
    synchronize = torch.cuda.synchronize if ids.is_cuda else lambda: None
    synchronize()
    start = time.perf_counter()
    model(ids, labels=ids, use_cache=False).loss.backward()
    synchronize()
    return 1000 * (time.perf_counter() - start)


def kept_mebibytes(model: Any, ids: torch.Tensor) -> float:
    """What the forward pass keeps for the backward pass, each storage once, without the weights."""
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        # The loss holds the graph, so no storage is freed and its address used again before the count ends.
        _loss = model(ids, labels=ids, use_cache=False).loss
    return sum(kept.values()) / 2**20


def new_norms(model: Any, stock: Any) -> int:
    return len(list(model.modules())) - len(list(stock.modules()))


def compare(family: str, s: Settings) -> None:
    models = {"stock": build(family, None, s), "stock again": build(family, None, s)}
    models |= {scheme: build(family, scheme, s) for scheme in schemes.names()}
    ids = torch.randint(s.vocabulary, (s.batch, s.length), device=s.device)
    for model in models.values():
        for _ in range(3):
            step(model, ids)
    rounds: list[dict[str, float]] = []
    for _ in range(s.repeats):
        order = random.sample(list(models), len(models))
        rounds.append({name: step(models[name], ids) for name in order})

    print(f"\n{family}: {s.layers} layers x {s.width}, {s.batch} x {s.length} tokens, {s.repeats} rounds")
    heads = ("norms added", "median ms", "minimum ms", "median ratio", "ratio of minima", "kept MiB", "ratio")
    print(f"{'':12}" + "".join(f"{head:>17}" for head in heads))
    fastest = min(r["stock"] for r in rounds)
    kept = {name: kept_mebibytes(model, ids) for name, model in models.items()}
    for name, model in models.items():
        times = [r[name] for r in rounds]
        ratio = median(r[name] / r["stock"] for r in rounds)
        print(
            f"{name:12}{new_norms(model, models['stock']):17d}{median(times):17.2f}{min(times):17.2f}"
            f"{ratio:17.3f}{min(times) / fastest:17.3f}{kept[name]:17.1f}{kept[name] / kept['stock']:17.3f}"
        )


def main() -> None:
    s = tyro.cli(Settings, description=__doc__)
    if unknown := set(s.families) - set(families.FAMILIES):
        raise SystemExit(f"--families {' '.join(unknown)}: choose from {', '.join(families.FAMILIES)}")
    if s.threads is not None:
        torch.set_num_threads(s.threads)
    for family in s.families:
        compare(family, s)


if __name__ == "__main__":
    main()
