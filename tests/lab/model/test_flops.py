"""FLOPs of a token against a count of what the operators do, and peaks by the whole name of a device."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import DynamicCache

import normalization
from lab.model.flops import flops_per_token, peak_flops
from tests.normalization import tiny

LENGTH = 12

VARIANTS: list[tuple[str, dict[str, Any]]] = [
    ("llama", {"tie_word_embeddings": True}),
    ("llama", {"head_dim": 20}),
    ("qwen3", {"head_dim": 32, "num_key_value_heads": 1}),
    ("gemma", {"head_dim": 40}),
    ("mistral", {"sliding_window": 2}),
    ("mistral", {"sliding_window": None}),
    ("qwen2", {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 2}),
    ("smollm3", {"use_sliding_window": True, "sliding_window": 3, "no_rope_layer_interval": 2}),
    ("phi3", {"sliding_window": 5}),
    ("mixtral", {"num_local_experts": 8, "num_experts_per_tok": 1, "sliding_window": 4}),
    ("qwen3_moe", {"num_experts": 8, "num_experts_per_tok": 3, "decoder_sparse_step": 2, "mlp_only_layers": []}),
    ("gpt2", {"tie_word_embeddings": False}),
]


def counted(model: Any, length: int) -> float:
    """FLOPs of one token, forward and backward.

    Forward: a block decoded token by token through the cache, so that attention meets the keys that the token sees and
    no others, and the experts those that it is sent to. Backward: its share of a whole block, which meets masked keys
    in both passes alike.
    """
    ids = tiny.tokens(1, length)
    with torch.no_grad(), FlopCounterMode(display=False) as decoding:
        cache = DynamicCache(config=model.config)
        for token in ids[0]:
            model(token.view(1, 1), past_key_values=cache, use_cache=True)
    with FlopCounterMode(display=False) as forward:
        total = model(ids, use_cache=False).logits.sum()
    with FlopCounterMode(display=False) as backward:
        total.backward()
    return decoding.get_total_flops() / length * (1 + backward.get_total_flops() / forward.get_total_flops())


@pytest.mark.parametrize(
    ("family", "changes"),
    [*((family, {}) for family in tiny.FAMILIES), *VARIANTS],
    ids=lambda value: value if isinstance(value, str) else "-".join(f"{k}={v}" for k, v in value.items()),
)
def test_flops_are_what_the_operators_count(family: str, changes: dict[str, Any]) -> None:
    model = tiny.stock(family, "eager", **changes)
    for length in (1, LENGTH):
        assert flops_per_token(model, length) == pytest.approx(counted(model, length), rel=0.02), length


@pytest.mark.parametrize(("family", "scheme"), itertools.product(["llama", "mixtral"], tiny.SCHEMES))
def test_a_scheme_costs_no_matrix_products(family: str, scheme: str) -> None:
    model, stock = tiny.patched(family, scheme, attention="eager"), tiny.stock(family, "eager")
    assert flops_per_token(model, LENGTH) == flops_per_token(stock, LENGTH) == pytest.approx(counted(model, LENGTH))


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_experts_are_found(family: str) -> None:
    found = normalization.experts(tiny.stock(family))
    if family not in ("mixtral", "qwen3_moe"):
        assert found == {}
        return
    sparse = [0, 1, 2, 3, 4] if family == "mixtral" else [0, 2, 3, 4]  # layer 1 of ours has no experts
    weights = ("gate_up_proj", "down_proj")
    assert found == {f"model.layers.{layer}.mlp.experts.{name}": 2 for layer in sparse for name in weights}


PEAKS = [
    ("NVIDIA H100 80GB HBM3", 989e12),
    ("NVIDIA H100 PCIe", 756e12),
    ("NVIDIA H100 NVL", 835e12),
    ("NVIDIA H200", 989e12),
    ("NVIDIA B200", 2250e12),
    ("NVIDIA H20", 148e12),
    ("NVIDIA A100-SXM4-80GB", 312e12),
    ("NVIDIA A10", 125e12),
    ("NVIDIA L4", 121e12),
    ("NVIDIA L40", 181e12),
    ("NVIDIA L40S", 362e12),
    ("NVIDIA GeForce RTX 4090", 165.2e12),
    # Another device, though the name of a known one is a part of its name, or the other way round.
    ("NVIDIA RTX A1000", None),
    ("NVIDIA RTX A1000 Laptop GPU", None),
    ("NVIDIA A10G", None),
    ("NVIDIA A100X", None),
    ("NVIDIA A2", None),
    ("NVIDIA L20", None),
    ("NVIDIA GeForce RTX 4090 D", None),
    ("NVIDIA GeForce RTX 4090 Laptop GPU", None),
    ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", None),
    ("NVIDIA H2000", None),
    ("H100", None),
    ("Tesla T4", None),
    ("AMD Instinct MI300X", None),
]


@pytest.mark.parametrize(("name", "peak"), PEAKS)
def test_the_peak_is_of_the_device_itself(monkeypatch: pytest.MonkeyPatch, name: str, peak: float | None) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: name)
    assert peak_flops(torch.device("cuda", 0), "bf16") == peak
    assert peak_flops(torch.device("cuda", 0), "fp32") is None


def test_a_processor_has_no_peak() -> None:
    assert peak_flops(torch.device("cpu"), "bf16") is None
