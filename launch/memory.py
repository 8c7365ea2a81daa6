"""What a run will need on each GPU: weights, gradients and optimizer state by preset, activations by model and batch.

Counted exactly where the libraries let us: the bytes per parameter are those that DeepSpeed 0.19 and PyTorch hold, the
bytes per token those that autograd keeps of a LLaMA layer (the tests count both in running models).
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import torch
from torch import nn
from transformers import AutoModelForCausalLM

from lab.config.sections import RunConfig
from lab.data import load_tokenizer
from lab.errors import UserError
from lab.model.build import model_config
from launch.presets import Preset

GIB = 2**30
BUCKET = 500_000_000
"""Elements of DeepSpeed's buffer for gradients on their way (`reduce_bucket_size`); allocated whole."""
MAX_LIVE = 1_000_000_000
"""Weights that ZeRO-3 leaves gathered, at most (`stage3_max_live_parameters`)."""
PREFETCH = 50_000_000
"""Weights that ZeRO-3 gathers at once ahead of need (`stage3_prefetch_bucket_size`)."""
T5_VOCABULARY = 32_100


@dataclass(frozen=True)
class Shape:
    """What the estimate needs to know of a model."""

    parameters: int
    largest_layer: int
    """Parameters of the largest module that is gathered at once: a decoder layer, the embedding or the head."""
    outside_layers: int
    """Parameters of no decoder layer: the embedding, the head and the last norm, which FSDP2 gathers together."""
    largest_module: int
    """Parameters of the largest single module (what DeepSpeed's estimator calls the largest layer)."""
    layers: int
    width: int
    mlp_width: int
    heads: int
    extra_norms: int
    """Norms of a layer beyond two."""
    vocabulary: int


@dataclass(frozen=True)
class Estimate:
    """Bytes on each GPU by what they are for, and in each machine's memory for all its processes."""

    gpu: dict[str, float]
    machine: float
    theirs: str
    """What DeepSpeed's or Accelerate's own estimator says of the states, and why it differs."""

    @property
    def total(self) -> float:
        """Bytes on each GPU."""
        return sum(self.gpu.values())


def measure(run: RunConfig) -> tuple[Shape, list[str]]:
    """The shape of a run's model, from the model itself on the meta device, without weights; and what was assumed.

    Raises:
        UserError: a model, scheme or vocabulary that does not exist or does not fit.
    """
    told = []
    vocabulary = run.model.vocab_size or run.data.bpe_vocabulary or 0
    if not vocabulary and run.model.checkpoint is None:
        try:
            vocabulary = len(load_tokenizer(run.data, progress=False))
        except UserError:
            vocabulary = T5_VOCABULARY if run.model.config is None else 0  # 0 is the config's own
            assumed = f"one of {vocabulary:,}" if vocabulary else "that of the config"
            told.append(f"the tokenizer {run.data.tokenizer} is not at hand: the vocabulary is taken to be {assumed}")
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # the run says it again
        model = AutoModelForCausalLM.from_config(model_config(run, tokenizer_size=vocabulary, eos_token_id=None))
    config = model.config
    layers = next(module for module in model.modules() if isinstance(module, nn.ModuleList))
    layer = layers[0]
    if config.model_type.removeprefix("depthlab_") != "llama":
        told.append(f"activations are those of LLaMA layers of this width; {config.model_type} layers are near it")
    parts = [layer, model.get_input_embeddings(), model.get_output_embeddings()]
    own = [sum(p.numel() for p in module.parameters(recurse=False)) for module in model.modules()]
    parameters = sum(p.numel() for p in model.parameters())
    shape = Shape(
        parameters=parameters,
        largest_layer=max(sum(p.numel() for p in part.parameters()) for part in parts if part is not None),
        outside_layers=parameters - sum(p.numel() for p in layers.parameters()),
        largest_module=max(own),
        layers=config.num_hidden_layers,
        width=config.hidden_size,
        mlp_width=getattr(config, "intermediate_size", None) or 4 * config.hidden_size,
        heads=config.num_attention_heads,
        extra_norms=max(sum("Norm" in type(module).__name__ for module in layer.modules()) - 2, 0),
        vocabulary=config.vocab_size,
    )
    return shape, told


def estimate(run: RunConfig, preset: Preset, shape: Shape, *, nodes: int, processes_per_node: int) -> Estimate:
    """The memory that a run takes with a preset."""
    processes = nodes * processes_per_node
    accumulates = run.train.global_batch > run.train.micro_batch * processes
    bf16 = run.train.precision == "bf16"
    states = state_bytes(preset, shape, bf16=bf16, processes=processes, accumulates=accumulates)
    machine = states.pop("in the machine", 0.0) * processes_per_node
    # DeepSpeed holds bf16 weights and FSDP2 gathers them so: then the residual stream is bf16 too.
    computes_in_bf16 = preset.distributed_type in ("DEEPSPEED", "FSDP")
    activations = activation_bytes(run, shape, half_weights=computes_in_bf16)
    gpu = states | activations
    if preset.zero_stage:
        # What is sent is flattened into an fp32 copy (DeepSpeed 0.19: allreduce_bucket in stage_1_and_2.py,
        # reduce_scatter_coalesced) at the end of the backward pass, when activations and prefetched weights are gone.
        prefetched = states.get("prefetched", 0.0)
        gpu["buffers"] += max(0.0, 4.0 * min(shape.parameters, BUCKET) - sum(activations.values()) - prefetched)
    if run.monitors.every and "update_ratio" not in run.monitors.off:
        whole = preset.distributed_type in ("NO", "MULTI_GPU")
        gpu["monitors"] = 4.0 * shape.parameters / (1 if whole else processes)  # the weights before the update
    theirs = _their_estimate(run, preset, shape, nodes, processes_per_node)
    return Estimate(gpu=gpu, machine=machine, theirs=theirs)


def state_bytes(
    preset: Preset, shape: Shape, *, bf16: bool, processes: int, accumulates: bool = False
) -> dict[str, float]:
    """Bytes of weights, gradients, optimizer state and buffers on one GPU, and `in the machine` for this process.

    ZeRO (Rajbhandari et al. 2020, arXiv:1910.02054, section 5), with what DeepSpeed keeps: weights in the run's
    precision, gradients summed in fp32, an fp32 master copy (also of fp32 weights) and Adam's two averages. Without
    DeepSpeed all is fp32; in bf16, autocast keeps a copy of every weight for the backward pass, where FSDP2 gathers it
    again. FSDP2 cuts gradients after each micro-batch; DDP keeps those of earlier micro-batches beside its buckets.
    """
    n, share = shape.parameters, shape.parameters / processes
    if preset.zero_stage == 0:
        part = share if preset.distributed_type == "FSDP" else n
        states = {"weights": 4.0 * part, "gradients": 4.0 * part, "optimizer": 8.0 * part}
        if preset.distributed_type == "FSDP":
            # As the backward pass begins: what lies outside of the layers, the last layer and the one before, which
            # is on its way, and a gradient before it is cut.
            gathered = shape.outside_layers + 3 * shape.largest_layer
            return states | {"buffers": (2.0 if bf16 else 4.0) * gathered}
        buckets = 4.0 * n if accumulates and preset.distributed_type == "MULTI_GPU" else 0.0
        return states | {"buffers": (2.0 * n if bf16 else 0.0) + buckets}
    size = 2.0 if bf16 else 4.0
    weights = size * (n if preset.zero_stage < 3 else share)
    gradients = 4.0 * (n if preset.zero_stage < 2 else share)
    optimizer = 12.0 * share
    buffers = 4.0 * BUCKET
    if preset.zero_stage < 3 and bf16:
        # The bf16 gradients of a micro-batch; ZeRO-1 (BF16_Optimizer) has no bucket.
        buffers = 2.0 * n + (2.0 * BUCKET if preset.zero_stage == 2 else 0.0)
    ahead = {}
    if preset.zero_stage == 3:
        # What is gathered ahead comes in one piece, which stays beside its copy in each weight until the last of them
        # has been used (AllGatherCoalescedHandle in partition_parameters.py).
        buffers += size * min(n, MAX_LIVE)
        ahead = {"prefetched": size * min(n, PREFETCH)}
    if preset.offload:
        # The gradients of the step are there twice, in fp32: summed, and as the optimizer takes them.
        return {"buffers": buffers, **ahead, "in the machine": weights + 8.0 * share + optimizer}
    return {"weights": weights, "gradients": gradients, "optimizer": optimizer, "buffers": buffers, **ahead}


def activation_bytes(run: RunConfig, shape: Shape, *, half_weights: bool) -> dict[str, float]:
    """Bytes that one micro-batch needs: what the layers keep for the backward pass, and the loss.

    Korthikanti et al. 2022, arXiv:2205.05198, equation 1, counts 34 bytes per token and feature for a GPT layer in
    16 bits, and 5 per head and key. Of a LLaMA layer (RMSNorm, SwiGLU, no dropout) transformers keeps, per token:
    40 D + 16 I bytes in fp32, 34 D + 8 I under bf16 autocast (the residual stream is fp32), 24 D + 8 I with bf16
    weights; D the width, I that of the MLP. SDPA and flash attention keep no T x T matrix; eager attention keeps 4
    (fp32) or 6 bytes per head and key. With activation checkpointing a layer keeps its input, and one at a time is
    whole. The loss is in fp32: log-probabilities, their gradient and the logits', 12 bytes per token and entry.
    """
    tokens = run.train.micro_batch * run.data.block_length
    bf16 = run.train.precision != "fp32"
    per_norm, residual = (6, 2 if half_weights else 4) if bf16 else (8, 4)
    per_width = ((24 if half_weights else 34) if bf16 else 40) + per_norm * shape.extra_norms
    layer = per_width * shape.width + (8 if bf16 else 16) * shape.mlp_width
    if run.model.attention == "eager":
        layer += (6 if bf16 else 4) * shape.heads * run.data.block_length
    kept = shape.layers * layer
    if run.train.activation_checkpointing:
        kept = shape.layers * residual * shape.width + layer
    return {"activations": float(tokens * kept), "logits and loss": 12.0 * tokens * shape.vocabulary}


def _their_estimate(run: RunConfig, preset: Preset, shape: Shape, nodes: int, per_node: int) -> str:
    """The states by the estimator of the library that holds them."""
    bf16 = run.train.precision == "bf16"
    if preset.zero_stage == 0:
        from accelerate.commands.estimate import estimate_training_usage

        parts = estimate_training_usage(4 * shape.parameters, "bfloat16" if bf16 else "float32")
        total = sum(parts[part] for part in ("model", "gradients", "optimizer"))
        shared = "; it knows no sharding" if preset.distributed_type == "FSDP" else ""
        return f"Accelerate estimates {total / GIB:.2f} GiB for weights, gradients and optimizer{shared}"
    if preset.zero_stage == 3:
        from deepspeed.runtime.zero.stage3 import estimate_zero3_model_states_mem_needs

        _, gpu, _ = estimate_zero3_model_states_mem_needs(
            shape.parameters, shape.largest_module, per_node, nodes, preset.offload, preset.offload
        )
        counts = "only its largest module as gathered"
    else:
        from deepspeed.runtime.zero.stage_1_and_2 import estimate_zero2_model_states_mem_needs

        _, gpu = estimate_zero2_model_states_mem_needs(shape.parameters, per_node, nodes, cpu_offload=False)
        counts = "fp32 gradients of the step, no buffers" + (", and shared gradients" if preset.zero_stage == 1 else "")
    weights = "" if bf16 else ", and 16-bit weights where this run has fp32"
    return f"DeepSpeed estimates {gpu / GIB:.2f} GiB for the states: it counts {counts}{weights}"
