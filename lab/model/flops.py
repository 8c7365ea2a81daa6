"""Floating-point operations of training, for the derived quantities and model FLOPs utilisation (MFU)."""

from __future__ import annotations

import math

import torch
from transformers import PreTrainedModel

from lab.parallel.sharding import whole_shape

_PEAK_BF16 = {"H200": 989e12, "H100": 989e12, "A100": 312e12, "L40S": 362e12, "L4": 121e12, "4090": 165e12}
"""Dense bf16 FLOP/s of NVIDIA's data sheets, by a part of the device's name."""


def flops_per_token(model: PreTrainedModel, block_length: int) -> float:
    """Forward and backward FLOPs of one token in a block of `block_length` tokens.

    6 N + 6 L T D: N parameters in matrix products (embeddings look up, a head multiplies, tied or not), and causal
    attention's two products over T/2 keys on average; PaLM, arXiv:2204.02311, appendix B, halved for causality.
    Activation checkpointing does not count: MFU is about the model's work, not the machine's.
    """
    config = model.config
    embedding = model.get_input_embeddings()
    lookups = {id(parameter) for parameter in embedding.parameters()}
    shapes = {id(parameter): whole_shape(parameter) for parameter in model.parameters()}
    matrices = sum(math.prod(shape) for key, shape in shapes.items() if len(shape) > 1 and key not in lookups)
    head = model.get_output_embeddings()
    if head is not None and id(head.weight) in lookups:
        matrices += math.prod(shapes[id(head.weight)])
    return 6.0 * matrices + 6.0 * config.num_hidden_layers * block_length * config.hidden_size


def peak_flops(device: torch.device, precision: str) -> float | None:
    """Peak FLOP/s of the device in bf16, where it is known."""
    if device.type != "cuda" or precision == "fp32":
        return None
    name = torch.cuda.get_device_name(device)
    return next((peak for part, peak in _PEAK_BF16.items() if part in name), None)
