"""The Accelerator of a run, on a GPU, on several processes, or on CPU processes over gloo."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import timedelta

import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import (
    DeepSpeedPlugin,
    DistributedDataParallelKwargs,
    DistributedType,
    FullyShardedDataParallelPlugin,
    GradientAccumulationPlugin,
    InitProcessGroupKwargs,
    TorchDynamoPlugin,
)
from torch import nn
from torch.distributed.fsdp import MixedPrecisionPolicy
from torch.nn.parallel import DistributedDataParallel

from lab.config.sections import ParallelConfig, RunConfig
from lab.errors import ConfigError
from lab.parallel import deepspeed_build, launched

_EXTRAS = {"tensorboard": "tensorboard", "wandb": "wandb", "trackio": "trackio"}


def make_accelerator(run: RunConfig) -> Accelerator:
    """Accelerate with the run's precision and trackers; the launcher's variables choose places only (`launched.py`).

    Raises:
        ConfigError: a precision that the device lacks, a tracker that is not installed, a way of sharing that is not
            supported, or a global batch that does not divide over the processes.
    """
    has_device = torch.accelerator.is_available()
    engine = launched.engine()
    precision = run.train.precision
    if precision == "fp16" and (not has_device or engine != "replicated"):
        why = "needs a GPU, and there is none here" if not has_device else f"not with {engine}"
        raise ConfigError(f"--train.precision fp16: {why}; use fp32 or bf16")
    if run.model.attention.startswith("fl") and not has_device:
        raise ConfigError(f"--model.attention {run.model.attention}: trains on a GPU only, and there is none here")
    _require_trackers(run.log.trackers)
    # DDP without buffer broadcasts: the buffers (rotary tables) are constants.
    ddp = DistributedDataParallelKwargs(broadcast_buffers=False, gradient_as_bucket_view=True)
    # How long preparing data takes is nobody's business here: a run that hangs is found by its heartbeat.
    group = InitProcessGroupKwargs(timeout=timedelta(days=7))
    if not has_device and engine != "replicated":
        # `cpu=True` would turn DeepSpeed and FSDP off, and without a backend accelerate believes that a CPU process
        # is alone.
        group.backend = "gloo"
    if not has_device and engine == "deepspeed":
        deepspeed_build.build(deepspeed_build.COMMUNICATION)
    accelerator = Accelerator(
        cpu=not has_device and engine == "replicated",
        mixed_precision="no" if precision == "fp32" else precision,
        gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=1),  # the step divides by its own targets
        dynamo_plugin=TorchDynamoPlugin(backend="no"),  # --train.compile compiles
        deepspeed_plugin=_deepspeed() if engine == "deepspeed" else None,
        fsdp_plugin=_fsdp2(precision) if engine == "fsdp2" else None,
        kwargs_handlers=[ddp, group],
        log_with=list(run.log.trackers) or None,
        project_dir=run.run_dir,
        step_scheduler_with_optimizer=False,
    )
    if not has_device and engine == "fsdp2":
        _use_fsdp_on_cpu(accelerator)
    micro_step = run.train.micro_batch * accelerator.num_processes
    if run.train.global_batch % micro_step:
        raise ConfigError(
            f"--train.global-batch {run.train.global_batch}: must be a multiple of --train.micro-batch x processes = "
            f"{run.train.micro_batch} x {accelerator.num_processes} = {micro_step}"
        )
    if engine == "deepspeed":
        _configure_deepspeed(accelerator, run)
    return accelerator


def describe(accelerator: Accelerator, run: RunConfig) -> ParallelConfig:
    """Who shares the model, and the types that "bf16" means there.

    Autocast keeps weights and the residual stream in fp32; FSDP2 and DeepSpeed compute with bf16 weights, so the stream
    is bf16 too. All of them sum gradients in fp32.
    """
    engine = launched.engine()
    precision = run.train.precision
    names = {
        "replicated": "single" if accelerator.num_processes == 1 else "ddp",
        "deepspeed": f"zero{accelerator.state.deepspeed_plugin.zero_stage}" if engine == "deepspeed" else "",
        "fsdp2": "fsdp2",
    }
    return ParallelConfig(
        engine=names[engine],
        processes=accelerator.num_processes,
        compute=precision,
        stream="fp32" if engine == "replicated" else precision,
        reduce="fp32",
        accumulate="fp32",
        variables=launched.last_digits(),
    )


def leave(accelerator: Accelerator, model: nn.Module) -> None:
    """End the trackers and the process group; the model cannot be trained any more.

    DDP's reducer must go while the group is still there. As the group's last owner it would end gloo's threads while it
    holds Python's lock, for which such a thread may be waiting to let go of a tensor: the process would never end.
    """
    if isinstance(model, DistributedDataParallel):
        del model.reducer, model.logger  # the logger owns the reducer too
    accelerator.end_training()


def _fsdp2(precision: str) -> FullyShardedDataParallelPlugin:
    """Every decoder layer is a unit of its own; in bf16 it computes in bf16, gradients are summed in fp32."""
    plugin = FullyShardedDataParallelPlugin(
        fsdp_version=2,
        auto_wrap_policy="transformer_based_wrap",
        reshard_after_forward=launched.says("FSDP_RESHARD_AFTER_FORWARD", default=True),
        cpu_offload=launched.says("FSDP_OFFLOAD_PARAMS", default=False),
        cpu_ram_efficient_loading=False,
        activation_checkpointing=False,
        state_dict_type="SHARDED_STATE_DICT",
    )
    if precision == "bf16":
        plugin.mixed_precision_policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
    return plugin


def _use_fsdp_on_cpu(accelerator: Accelerator) -> None:
    """Accelerate sets FSDP up between devices only; between CPU processes it works as well once it is set up."""
    accelerator.state.fsdp_plugin = _fsdp2(accelerator.mixed_precision)
    # Each look at the one copies from the other.
    accelerator.state.distributed_type = PartialState().distributed_type = DistributedType.FSDP


def _deepspeed() -> DeepSpeedPlugin:
    path = os.environ.get("ACCELERATE_DEEPSPEED_CONFIG_FILE", "none")
    plugin = DeepSpeedPlugin(hf_ds_config="none" if path == "none" else dict(launched.deepspeed_settings(path)))
    if plugin.zero_stage not in (1, 2, 3):
        raise ConfigError(
            f"DeepSpeed with zero stage {plugin.zero_stage}: shards nothing; launch with --multi_gpu (DDP)"
        )
    return plugin


def _configure_deepspeed(accelerator: Accelerator, run: RunConfig) -> None:
    """What DeepSpeed needs to know of the run. Its configuration chooses how state is shared, the run all else."""
    config = accelerator.state.deepspeed_plugin.deepspeed_config
    if config["zero_optimization"].get("offload_optimizer", {}).get("device") == "cpu":
        deepspeed_build.build(deepspeed_build.CPU_ADAM)
    config |= {
        "train_micro_batch_size_per_gpu": run.train.micro_batch,
        "gradient_accumulation_steps": run.train.global_batch // (run.train.micro_batch * accelerator.num_processes),
        "train_batch_size": run.train.global_batch,
        "gradient_clipping": run.optim.clip or 0.0,
        "bf16": {"enabled": run.train.precision == "bf16"},
        "fp16": {"enabled": False},
        "data_types": {"grad_accum_dtype": "fp32"},
        "communication_data_type": "fp32",
        "zero_allow_untested_optimizer": True,
    }


def _require_trackers(trackers: Sequence[str]) -> None:
    from importlib.util import find_spec

    for tracker in trackers:
        if find_spec(_EXTRAS[tracker]) is None:
            raise ConfigError(f"--log.trackers {tracker}: the package is not installed; pip install {tracker}")
