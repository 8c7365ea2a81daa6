"""The Accelerator of a run, on a GPU, on several processes, or on CPU processes over gloo."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import (
    DistributedDataParallelKwargs,
    DistributedType,
    FullyShardedDataParallelPlugin,
    InitProcessGroupKwargs,
)
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from lab.config.sections import RunConfig
from lab.errors import ConfigError
from lab.parallel import deepspeed_build

_EXTRAS = {"tensorboard": "tensorboard", "wandb": "wandb", "trackio": "trackio"}


def make_accelerator(run: RunConfig) -> Accelerator:
    """Accelerate with the run's precision and trackers; the environment of `accelerate launch` chooses processes
    only.

    Raises:
        ConfigError: a precision that the device lacks, a tracker that is not installed, or a global batch that does
            not divide over the processes.
    """
    has_device = torch.accelerator.is_available()
    if run.train.precision == "fp16" and not has_device:
        raise ConfigError("--train.precision fp16: needs a GPU, and there is none here; use fp32 or bf16")
    if run.model.attention.startswith("fl") and not has_device:
        raise ConfigError(f"--model.attention {run.model.attention}: trains on a GPU only, and there is none here")
    _require_trackers(run.log.trackers)
    # DDP without buffer broadcasts: the buffers (rotary tables) are constants.
    handlers: list[Any] = [DistributedDataParallelKwargs(broadcast_buffers=False, gradient_as_bucket_view=True)]
    sharded = any(os.environ.get(f"ACCELERATE_USE_{kind}") == "true" for kind in ("DEEPSPEED", "FSDP"))
    # How long preparing data takes is nobody's business here: a run that hangs is found by its heartbeat.
    group = InitProcessGroupKwargs(timeout=timedelta(days=7))
    if not has_device and sharded:
        # `cpu=True` would turn DeepSpeed and FSDP off, and without a backend accelerate believes that a CPU process
        # is alone.
        group.backend = "gloo"
    if not has_device and os.environ.get("ACCELERATE_USE_DEEPSPEED") == "true":
        deepspeed_build.build(deepspeed_build.COMMUNICATION)
    accelerator = Accelerator(
        cpu=not has_device and not sharded,
        mixed_precision="no" if run.train.precision == "fp32" else run.train.precision,
        kwargs_handlers=[*handlers, group],
        log_with=list(run.log.trackers) or None,
        project_dir=run.run_dir,
        step_scheduler_with_optimizer=False,
    )
    if not has_device and os.environ.get("ACCELERATE_USE_FSDP") == "true":
        _use_fsdp_on_cpu(accelerator)
    if accelerator.distributed_type == DistributedType.FSDP and not accelerator.is_fsdp2:
        raise ConfigError("accelerate launch with FSDP 1: not supported; set fsdp_version: 2")
    if accelerator.distributed_type == DistributedType.DEEPSPEED:
        stage = accelerator.state.deepspeed_plugin.zero_stage
        if stage not in (1, 2, 3):
            raise ConfigError(f"DeepSpeed with zero stage {stage}: shards nothing; launch with --multi_gpu (DDP)")
    micro_step = run.train.micro_batch * accelerator.num_processes
    if run.train.global_batch % micro_step:
        raise ConfigError(
            f"--train.global-batch {run.train.global_batch}: must be a multiple of --train.micro-batch x processes = "
            f"{run.train.micro_batch} x {accelerator.num_processes} = {micro_step}"
        )
    if accelerator.distributed_type == DistributedType.DEEPSPEED:
        _configure_deepspeed(accelerator, run)
    return accelerator


def leave(accelerator: Accelerator, model: nn.Module) -> None:
    """End the trackers and the process group; the model cannot be trained any more.

    DDP's reducer must go while the group is still there. As the group's last owner it would end gloo's threads while it
    holds Python's lock, for which such a thread may be waiting to let go of a tensor: the process would never end.
    """
    if isinstance(model, DistributedDataParallel):
        del model.reducer, model.logger  # the logger owns the reducer too
    accelerator.end_training()


def _use_fsdp_on_cpu(accelerator: Accelerator) -> None:
    """Accelerate sets FSDP up between devices only; between CPU processes it works as well once it is set up."""
    plugin = FullyShardedDataParallelPlugin()
    if accelerator.mixed_precision != "no":
        plugin.set_mixed_precision(accelerator.mixed_precision)
    accelerator.state.fsdp_plugin = plugin
    # Each look at the one copies from the other.
    accelerator.state.distributed_type = PartialState().distributed_type = DistributedType.FSDP


def _configure_deepspeed(accelerator: Accelerator, run: RunConfig) -> None:
    """What DeepSpeed needs to know of the run. Its configuration chooses how state is shared, the run all else."""
    if run.train.precision == "fp16":
        raise ConfigError("--train.precision fp16: not with DeepSpeed; use bf16 or fp32")
    config = accelerator.state.deepspeed_plugin.deepspeed_config
    if config["zero_optimization"].get("offload_optimizer", {}).get("device") == "cpu":
        deepspeed_build.build(deepspeed_build.CPU_ADAM)
    config |= {
        "train_micro_batch_size_per_gpu": run.train.micro_batch,
        "gradient_accumulation_steps": run.train.global_batch // (run.train.micro_batch * accelerator.num_processes),
        "train_batch_size": run.train.global_batch,
        "gradient_clipping": run.optim.clip or 0.0,
        "zero_allow_untested_optimizer": True,
    }


def _require_trackers(trackers: Sequence[str]) -> None:
    from importlib.util import find_spec

    for tracker in trackers:
        if find_spec(_EXTRAS[tracker]) is None:
            raise ConfigError(
                f"--log.trackers {tracker}: the package is not installed; pip install 'depthlab[{tracker}]'"
            )
