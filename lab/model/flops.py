"""Floating-point operations of training, for the derived quantities and model FLOPs utilisation (MFU)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

import normalization
from lab.parallel.sharding import whole_shape

_PEAK_BF16 = {
    # Dense (no sparsity), accumulated in float32.      # NVIDIA's document, and when it was issued
    "NVIDIA GB200": 2500e12,  #                           GB200 NVL72 data sheet, 2024 (a GPU: 1/72)
    "NVIDIA B200": 2250e12,  #                            HGX B200 data sheet, 2024 (a GPU: 1/8)
    "NVIDIA GH200 480GB": 989e12,  #                      GH200 data sheet, 2023
    "NVIDIA H200": 989e12,  #                             H200 data sheet, 2023
    "NVIDIA H200 NVL": 835e12,  #                         H200 data sheet, 2024
    "NVIDIA H100 80GB HBM3": 989e12,  #                   H100 data sheet, SXM, 2023
    "NVIDIA H100 PCIe": 756e12,  #                        H100 data sheet, PCIe, 2022
    "NVIDIA H100 NVL": 835e12,  #                         H100 data sheet, NVL, 2024
    "NVIDIA H800": 989e12,  #                             H800 data sheet, SXM, 2023
    "NVIDIA H20": 148e12,  #                              H20 specification, 2023
    "NVIDIA A100-SXM4-40GB": 312e12,  #                   A100 data sheet, 2020
    "NVIDIA A100-SXM4-80GB": 312e12,  #                   A100 data sheet, 2021
    "NVIDIA A100-PCIE-40GB": 312e12,  #                   A100 data sheet, 2020
    "NVIDIA A100 80GB PCIe": 312e12,  #                   A100 data sheet, 2021
    "NVIDIA A800-SXM4-80GB": 312e12,  #                   A800 data sheet, 2022
    "NVIDIA A800 80GB PCIe": 312e12,  #                   A800 data sheet, 2022
    "NVIDIA A40": 149.7e12,  #                            A40 data sheet, 2020
    "NVIDIA A30": 165e12,  #                              A30 data sheet, 2021
    "NVIDIA A10": 125e12,  #                              A10 data sheet, 2021
    "NVIDIA L40S": 362e12,  #                             L40S data sheet, 2023
    "NVIDIA L40": 181e12,  #                              L40 data sheet, 2022
    "NVIDIA L4": 121e12,  #                               L4 data sheet, 2023
    "NVIDIA RTX 6000 Ada Generation": 364.2e12,  #        Ada professional GPU architecture paper, 2022
    "NVIDIA RTX A6000": 154.8e12,  #                      GA102 architecture paper, 2020
    "NVIDIA GeForce RTX 5090": 209.5e12,  #               RTX Blackwell architecture paper, 2025
    "NVIDIA GeForce RTX 4090": 165.2e12,  #               Ada architecture paper, 2022
    "NVIDIA GeForce RTX 3090": 71e12,  #                  GA102 architecture paper, 2020
}
"""FLOP/s by the whole name that the driver gives a device. One that is not here, or a slice of one (MIG), has no peak
that we know: its utilisation is not reported, rather than that of a device whose name is like it."""


def flops_per_token(model: PreTrainedModel, block_length: int) -> float:
    """Forward and backward FLOPs of one token in a block of `block_length` tokens: three times the forward pass's

        2 N + sum over layers of 4 H K(l),

    N the parameters in matrix products that a token meets: embeddings look up and are none, a head multiplies (tied or
    not), and of a layer's experts only those count that a token is sent to. H the width of all heads together, K the
    keys that a token sees on average: (T + 1) / 2, or fewer in a sliding window. PaLM, arXiv:2204.02311, appendix B,
    with attention causal. Activation checkpointing does not count: MFU is about the model's work, not the machine's.
    """
    lookups = {
        id(parameter)
        for module in model.modules()
        if isinstance(module, nn.Embedding)
        for parameter in module.parameters()
    }
    experts = normalization.experts(model)
    matrices = 0.0
    for name, parameter in model.named_parameters():
        shape = whole_shape(parameter)
        if len(shape) > 1 and id(parameter) not in lookups:
            matrices += math.prod(shape) * experts.get(name, shape[0]) / shape[0]
    head = model.get_output_embeddings()
    if head is not None and id(head.weight) in lookups:
        matrices += math.prod(whole_shape(head.weight))

    config: Any = model.config
    heads = config.num_attention_heads
    width = heads * (getattr(config, "head_dim", None) or config.hidden_size // heads)
    keys = sum(_keys(block_length, window) for window in _windows(config))
    return 3.0 * (2.0 * matrices + 4.0 * width * keys)


def _keys(length: int, window: int | None) -> float:
    """Keys that a token sees, itself included, on average over a block: causal, and the last `window` at most."""
    whole = length if window is None else min(window, length)
    return (whole * (whole + 1) / 2 + (length - whole) * whole) / length


def _windows(config: Any) -> Iterator[int | None]:
    """The sliding window of each layer, in tokens, where it has one."""
    kinds = getattr(config, "layer_types", None) or ["sliding_attention"] * config.num_hidden_layers
    window = getattr(config, "sliding_window", None)
    return (window if kind == "sliding_attention" else None for kind in kinds)


def peak_flops(device: torch.device, precision: str) -> float | None:
    """Peak FLOP/s of the device in bf16, where it is known."""
    if device.type != "cuda" or precision == "fp32":
        return None
    return _PEAK_BF16.get(torch.cuda.get_device_name(device))
