"""What a launcher's variables may choose: processes, devices, and how they share the model. All else of them is hidden.

`accelerate launch` and its config files speak to the libraries through environment variables, some of which change what
is computed: a number of accumulated steps divides every gradient, a compiler backend replaces the model. The run's own
settings decide those, so that its config.yaml says all of it.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch

from lab.errors import ConfigError

_PREFIXES = ("ACCELERATE_", "FSDP_", "PARALLELISM_CONFIG_", "MEGATRON_LM_", "FP8_", "DEEPSPEED_")
_PLACES = frozenset(
    {
        "ACCELERATE_USE_CPU",
        "ACCELERATE_TORCH_DEVICE",
        "ACCELERATE_CPU_AFFINITY",
        "ACCELERATE_DEBUG_MODE",
        "ACCELERATE_USE_DEEPSPEED",
        "ACCELERATE_DEEPSPEED_CONFIG_FILE",
        "ACCELERATE_DEEPSPEED_ZERO_STAGE",
        "ACCELERATE_DEEPSPEED_OFFLOAD_OPTIMIZER_DEVICE",
        "ACCELERATE_DEEPSPEED_OFFLOAD_OPTIMIZER_NVME_PATH",
        "ACCELERATE_DEEPSPEED_OFFLOAD_PARAM_DEVICE",
        "ACCELERATE_DEEPSPEED_OFFLOAD_PARAM_NVME_PATH",
        "ACCELERATE_DEEPSPEED_ZERO3_INIT",
        "ACCELERATE_USE_FSDP",
        "FSDP_VERSION",
        "FSDP_OFFLOAD_PARAMS",
        "FSDP_RESHARD_AFTER_FORWARD",
    }
)
"""Where the model is and who holds which part of it: these leave every number as it is."""

_REFUSED = {
    "ACCELERATE_USE_MEGATRON_LM": "Megatron-LM",
    "ACCELERATE_USE_PARALLELISM_CONFIG": "tensor, context and sequence parallelism",
    "ACCELERATE_USE_SAGEMAKER": "SageMaker's launcher",
}
_TOLD = {
    # variable -> (what leaves the run as it is, the flag that decides)
    "ACCELERATE_MIXED_PRECISION": (("no",), "--train.precision"),
    "ACCELERATE_GRADIENT_ACCUMULATION_STEPS": (("1", "auto"), "--train.global-batch and --train.micro-batch"),
    "ACCELERATE_GRADIENT_CLIPPING": (("auto",), "--optim.clip"),
    "ACCELERATE_DYNAMO_BACKEND": (("no",), "--train.compile"),
    "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE": (("0", "false"), "--train.precision"),
    "FSDP_ACTIVATION_CHECKPOINTING": (("false", "0"), "--train.activation-checkpointing"),
}

_ROUNDING = {
    # variable -> the values that leave float32 what it is
    "NVIDIA_TF32_OVERRIDE": ("0",),
    "DNNL_DEFAULT_FPMATH_MODE": ("strict",),
    "ONEDNN_DEFAULT_FPMATH_MODE": ("strict",),
    "TORCHINDUCTOR_USE_FAST_MATH": ("0",),
    "TORCHINDUCTOR_CPP_ENABLE_UNSAFE_MATH_OPT_FLAG": ("0",),
    "XLA_USE_BF16": ("0", "false"),
    "XLA_DOWNCAST_BF16": ("0", "false"),
}
_LAST_DIGITS = re.compile(
    r"TORCHINDUCTOR_\w+|TORCHDYNAMO_\w+|TORCH_DYNAMO_\w+|TORCH_COMPILE_\w+|TORCH_(ALLOW_TF32|CUDNN|BLAS|LINALG)_\w+|"
    r"TORCH_NCCL_\w*SUM\w*|PYTORCH_(JIT|NVFUSER|TUNABLEOP)\w*|NVIDIA_TF32_\w+|CUBLAS\w*|CUDNN_\w+|CUDA_LAUNCH_BLOCKING|"
    r"(DNNL|ONEDNN|MKL|NVTE|TRITON|XLA|DS)_\w+|NCCL_(ALGO|PROTO|NVLS_ENABLE|COLLNET_ENABLE|GRAPH_MIXING_SUPPORT)|"
    r"FLASH_ATTENTION_\w+|TRANSFORMERS_(SDPA|DISABLE_DEEPGEMM)_\w+|USE_HUB_KERNELS|DISABLE_KERNEL_MAPPING"
)
"""Variables that choose kernels, compilation or the order of sums: not refused, but a run's config says them."""
_PLACES_OF_FILES = re.compile(r"\w*(CACHE|DIR|DEBUG|LOG|THREADS|TRACE|PROFILE|VERBOSE|ACCELERATOR)\w*")

_DEEPSPEED_KEYS = frozenset(
    {
        "zero_optimization",
        "aio",
        "comms_logger",
        "flops_profiler",
        "wall_clock_breakdown",
        "memory_breakdown",
        "dump_state",
        "steps_per_print",
        "_comment",
        # The run's flags replace these.
        "train_batch_size",
        "train_micro_batch_size_per_gpu",
        "gradient_accumulation_steps",
        "gradient_clipping",
        "bf16",
        "fp16",
        "zero_allow_untested_optimizer",
        "zero_force_ds_cpu_optimizer",
    }
)


def says(name: str, *, default: bool = False) -> bool:
    """Whether a variable says yes, as Accelerate reads it."""
    return os.environ.get(name, str(default)).lower() in ("true", "1", "yes", "on")


def engine() -> Literal["replicated", "deepspeed", "fsdp2"]:
    """What shares the model among the processes: one process and DDP keep it whole.

    Raises:
        ConfigError: FSDP 1.
    """
    if says("ACCELERATE_USE_DEEPSPEED"):
        return "deepspeed"
    if not says("ACCELERATE_USE_FSDP"):
        return "replicated"
    if os.environ.get("FSDP_VERSION", "1") != "2":
        raise ConfigError("accelerate launch with FSDP 1: not supported; set fsdp_version: 2")
    return "fsdp2"


def last_digits() -> dict[str, str]:
    """The variables that are set and choose kernels, compilation or the order of sums."""
    return {
        name: value
        for name, value in sorted(os.environ.items())
        if _LAST_DIGITS.fullmatch(name) and not _PLACES_OF_FILES.fullmatch(name)
    }


@contextmanager
def only_places() -> Iterator[list[str]]:
    """Hide from the libraries what their variables would choose beside places; yields what was asked for in vain.

    Raises:
        ConfigError: a way of sharing the model that this project does not train with, or a variable that computes
            float32 in a shorter type.
    """
    for name, what in _REFUSED.items():
        if says(name):
            raise ConfigError(f"{name}: training with {what} is not supported; choose a preset of `depthlab launch`")
    for name, harmless in _ROUNDING.items():
        if (value := os.environ.get(name)) and value.lower() not in harmless:
            raise ConfigError(f"{name}={value}: computes in a shorter type than --train.precision says; unset it")
    hidden = {name: value for name, value in os.environ.items() if name.startswith(_PREFIXES) and name not in _PLACES}
    told = [
        f"{name}={value} is not read: {flag} decides"
        for name, (usual, flag) in _TOLD.items()
        if (value := os.environ.get(name)) and value.lower() not in usual
    ]
    for name in hidden:
        del os.environ[name]
    # TORCH_ALLOW_TF32_CUBLAS_OVERRIDE has been read already, as torch was imported.
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield told
    finally:
        os.environ.update(hidden)
        torch.set_float32_matmul_precision(before)


def deepspeed_settings(path: str) -> Mapping[str, Any]:
    """DeepSpeed's own file, if it says no more than how state is shared.

    Raises:
        ConfigError: the file cannot be read, or would choose what the run's flags choose.
    """
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"DeepSpeed's file {path}: {getattr(error, 'strerror', None) or error}") from error
    if not isinstance(found, dict):
        raise ConfigError(f"DeepSpeed's file {path}: must hold keys and values")
    if strange := sorted(set(found) - _DEEPSPEED_KEYS):
        raise ConfigError(
            f"DeepSpeed's file {path}: {strange[0]} would change what is computed; leave it out, the run's flags decide"
        )
    if quantized := sorted(key for key in found.get("zero_optimization", {}) if "quantized" in key):
        raise ConfigError(
            f"DeepSpeed's file {path}: {quantized[0]} rounds what is sent, and so the result; leave it out"
        )
    return found
