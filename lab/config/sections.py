"""The settings of a run: frozen dataclasses, checked when they are made, saved with every run as `config.yaml`.

Each field is a flag (`--optim.lr`) and a key of the YAML file (`optim: {lr: ...}`) under the same name.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import Any, Literal

import tyro

from lab.config.presets import check_preset
from lab.config.scheme import NormalizationConfig
from lab.data.config import DataConfig
from lab.errors import ConfigError

Precision = Literal["fp32", "bf16", "fp16"]
Tracker = Literal["tensorboard", "wandb", "trackio"]


SEEDS = 2**32
"""Seeds that NumPy takes."""
MOST_TOKENS = 2**63
"""More than a position in the data can count."""


def _check(condition: bool, flag: str, value: Any, must: str) -> None:
    if not condition or (isinstance(value, float) and math.isinf(value)):
        finite = ", and finite" if condition else ""
        raise ConfigError(f"--{flag} {value}: must be {must}{finite}")


@dataclass(frozen=True)
class ModelConfig:
    """The model: a size preset, or any Hugging Face config or checkpoint."""

    preset: str = "tiny-16x128"
    """Size: llama_9m, 20m, 35m, 60m, 71m, 100m, 130m, 250m, 350m, 1b, 3b, 7b (as llama_130m), or tiny-LAYERSxWIDTH
    for a CPU (heads of 32, MLP of 8/3 of the width)."""
    config: str | None = None
    """Hugging Face config in place of the preset: a folder, a JSON file or a hub name. Weights are new."""
    checkpoint: str | None = None
    """Hugging Face checkpoint in place of the preset: a folder or a hub name. Its weights are the start."""
    vocab_size: int | None = None
    """Size of the vocabulary, in tokens; the tokenizer's if not given."""
    attention: Literal["sdpa", "eager", "flash_attention_2", "flex_attention"] = "sdpa"
    """Attention implementation of transformers."""
    initialization: Literal["normal", "scaled", "deepnorm"] | None = None
    """Distribution of new weights; what the scheme's paper uses if not given. `scaled` divides output and down
    projections by sqrt(2 x layers)."""
    std: float = 0.02
    """Standard deviation of new weight matrices."""
    embedding_std: float = 0.02
    """Standard deviation of new embeddings. The reference code of LNS has 0.02, that of Mix-LN 0.63: it matters."""

    def __post_init__(self) -> None:
        if self.config is not None and self.checkpoint is not None:
            raise ConfigError("--model.config and --model.checkpoint exclude each other: a checkpoint has a config")
        if self.config is None and self.checkpoint is None:
            check_preset(self.preset)
        _check(self.vocab_size is None or self.vocab_size > 0, "model.vocab-size", self.vocab_size, "positive")
        _check(self.std > 0, "model.std", self.std, "positive")
        _check(self.embedding_std > 0, "model.embedding-std", self.embedding_std, "positive")


@dataclass(frozen=True)
class OptimConfig:
    """Optimizer and learning-rate schedule."""

    name: Literal["adamw", "adam"] = "adamw"
    """Optimizer; weight decay is decoupled in adamw and part of the gradient in adam."""
    lr: float = 1e-3
    """Peak learning rate."""
    betas: tuple[float, float] = (0.9, 0.95)
    """Decay rates of Adam's two averages."""
    eps: float = 1e-8
    """Term added to Adam's denominator."""
    weight_decay: float = 0.1
    """Weight decay; norms, biases and embeddings are left out."""
    clip: float | None = 1.0
    """Largest global gradient norm; larger gradients are scaled down to it. None: no clipping."""
    schedule: Literal["cosine", "linear", "wsd", "constant"] = "cosine"
    """Learning rate after warm-up: down to the floor by a cosine or a line; constant; or wsd (constant, then a line
    down over the last part of the run)."""
    warmup: float = 0.1
    """Length of the linear warm-up: a share of the run if below 1, else a number of steps."""
    decay: float = 0.2
    """Length of wsd's last part: a share of the run if below 1, else a number of steps."""
    floor: float = 0.1
    """Learning rate of the last step, as a share of the peak."""

    def __post_init__(self) -> None:
        _check(self.lr > 0, "optim.lr", self.lr, "positive")
        _check(all(0 <= beta < 1 for beta in self.betas), "optim.betas", self.betas, "at least 0 and below 1")
        _check(self.eps > 0, "optim.eps", self.eps, "positive")
        _check(self.weight_decay >= 0, "optim.weight-decay", self.weight_decay, "at least 0")
        _check(self.clip is None or self.clip > 0, "optim.clip", self.clip, "positive, or None for no clipping")
        _check(self.warmup >= 0, "optim.warmup", self.warmup, "at least 0")
        _check(self.decay >= 0, "optim.decay", self.decay, "at least 0")
        _check(0 <= self.floor <= 1, "optim.floor", self.floor, "between 0 and 1")


def length_in_steps(share_or_steps: float, steps: int) -> int:
    """A length that is given as a share of the steps if below 1, else as a number of steps."""
    return round(share_or_steps * steps) if share_or_steps < 1 else int(share_or_steps)


@dataclass(frozen=True)
class TrainConfig:
    """The loop."""

    steps: int | None = None
    """Length of the run, in optimizer steps (300 if neither this nor tokens is given)."""
    tokens: int | None = None
    """Length of the run, in tokens (sequences x block length), exactly: the last step is cut to fit."""
    micro_batch: int = 16
    """Sequences per process in one forward pass."""
    global_batch: int = 16
    """Sequences per optimizer step, over all processes and accumulated micro-batches."""
    seed: int = 0
    """Seed of the weights, the order of the data and dropout."""
    precision: Precision = "fp32"
    """Precision of the matrix products; weights and optimizer stay in fp32."""
    activation_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third more time."""
    compile: bool = False
    """Compile the model with torch.compile."""
    hang_timeout: float = 1800.0
    """With several processes: seconds in which a rank may make no progress (a micro-batch, an evaluation batch, a
    parameter of a checkpoint); then the run ends, naming the ranks that were missing. Reading data, and reading and
    writing checkpoints, may take as long as the file system needs."""

    def __post_init__(self) -> None:
        if self.steps is not None and self.tokens is not None:
            raise ConfigError(
                f"--train.steps {self.steps} and --train.tokens {self.tokens} exclude each other: give "
                "one (--train.steps None takes back a file's)"
            )
        _check(self.steps is None or self.steps > 0, "train.steps", self.steps, "positive")
        _check(self.tokens is None or self.tokens > 0, "train.tokens", self.tokens, "positive")
        _check(self.micro_batch > 0, "train.micro-batch", self.micro_batch, "positive")
        if self.global_batch < 1 or self.global_batch % self.micro_batch:
            raise ConfigError(
                f"--train.global-batch {self.global_batch}: must be a multiple of --train.micro-batch "
                f"{self.micro_batch} (times the number of processes)"
            )
        _check(0 <= self.seed < SEEDS, "train.seed", self.seed, "at least 0 and below 2^32")
        _check(self.hang_timeout > 0, "train.hang-timeout", self.hang_timeout, "positive")


@dataclass(frozen=True)
class EvalConfig:
    """Evaluation on the held-out documents: loss, perplexity, bits per byte, variance of each layer."""

    every: int = 100
    """Evaluate every so many steps, and at the end; 0: only at the end."""
    blocks: int | Literal["all"] | None = None
    """Number of held-out blocks, from the first, or all of them. None: 256, or all where there are fewer."""

    def __post_init__(self) -> None:
        _check(self.every >= 0, "eval.every", self.every, "at least 0")
        _check(not isinstance(self.blocks, int) or self.blocks > 0, "eval.blocks", self.blocks, "positive, or all")


@dataclass(frozen=True)
class MonitorsConfig:
    """Figures by layer while training: one file each in `lab/monitors/`."""

    every: int = 10
    """Measure at the first step and every so many steps; 0: never."""
    off: tuple[str, ...] = ()
    """Monitors that do not measure, such as update_ratio, which keeps a copy of the weights."""
    options: tuple[str, ...] = ()
    """Options of single monitors, each as MONITOR.OPTION=VALUE (activations.stride=4)."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "off", tuple(self.off))
        object.__setattr__(self, "options", tuple(self.options))
        _check(self.every >= 0, "monitors.every", self.every, "at least 0")


@dataclass(frozen=True)
class CheckpointConfig:
    """Checkpoints: Hugging Face files and the training state. One is always written at the end."""

    every: int = 100
    """Write one every so many steps; 0: only at the end."""
    keep_last: int | None = 3
    """Keep so many of the newest; None: all."""
    keep_every: int | None = None
    """Also keep every checkpoint at a multiple of so many steps."""
    keep_best: bool = True
    """Also keep the one with the lowest held-out loss."""
    diagnose: Literal["no", "cheap", "beside"] = "no"
    """Diagnose each checkpoint. cheap: variance, angles, rank and attention, in the training process, which stops for
    them; not with ZeRO-3 or FSDP2. beside: everything, by a process of its own that reads the checkpoints; none is
    deleted before it is measured, as long as that process lives."""
    diagnose_device: str = "cpu"
    """Device of the process beside, such as cuda:7: one that the run itself does not use, which must hold a model with
    its gradients."""

    def __post_init__(self) -> None:
        is_device = re.fullmatch(r"auto|[a-z]+(:\d+)?", self.diagnose_device) is not None
        _check(
            is_device, "checkpoint.diagnose-device", self.diagnose_device, "a device of torch, such as cpu or cuda:7"
        )
        _check(self.every >= 0, "checkpoint.every", self.every, "at least 0")
        _check(
            self.keep_last is None or self.keep_last > 0,
            "checkpoint.keep-last",
            self.keep_last,
            "positive, or None",
        )
        _check(
            self.keep_every is None or self.keep_every > 0,
            "checkpoint.keep-every",
            self.keep_every,
            "positive, or None",
        )


@dataclass(frozen=True)
class LogConfig:
    """What is written while training."""

    every: int = 1
    """Write a record to metrics.jsonl every so many steps."""
    trackers: tuple[Tracker, ...] = ()
    """Trackers of Accelerate that get the same records: tensorboard, wandb, trackio."""
    project: str = "depthlab"
    """Project name in W&B and Trackio."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "trackers", tuple(self.trackers))
        _check(self.every > 0, "log.every", self.every, "positive")


@dataclass(frozen=True)
class ParallelConfig:
    """How the run was launched and in which types it computes: written by the run, chosen by the launcher and
    --train.precision. What stands here in a file that is read is replaced.
    """

    engine: str | None = None
    """Who shares the model: single, ddp, zero1, zero2, zero3 or fsdp2."""
    processes: int | None = None
    compute: str | None = None
    """Type of the matrix products."""
    stream: str | None = None
    """Type of the residual stream."""
    reduce: str | None = None
    """Type in which gradients are summed over processes."""
    accumulate: str | None = None
    """Type in which gradients are summed over micro-batches."""
    variables: dict[str, str] = field(default_factory=dict)
    """Environment variables that were set and choose kernels or the order of sums, and so the last digits."""


@dataclass(frozen=True)
class RunConfig:
    """Pre-train a causal LM with a normalization scheme.

    A YAML file given with --config holds the same names; flags override it. Several processes:
    accelerate launch lab/pretrain.py with the same flags.
    """

    run_dir: str = "runs/run"
    """Folder of the run; it must not exist yet, unless --resume is given. One process at a time writes in it."""
    resume: str | None = None
    """Go on from a checkpoint, with its settings where no flag says otherwise: `latest` in the run folder, another
    run's folder, or a checkpoint's path. `auto` starts anew where there is none yet: for jobs that a batch system
    starts again."""
    model: ModelConfig = field(default_factory=ModelConfig)
    normalization: NormalizationConfig = field(default_factory=NormalizationConfig)
    data: DataConfig = field(default_factory=DataConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)
    monitors: MonitorsConfig = field(default_factory=MonitorsConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    log: LogConfig = field(default_factory=LogConfig)
    parallel: tyro.conf.Suppress[ParallelConfig] = field(default_factory=ParallelConfig)

    def __post_init__(self) -> None:
        if self.tokens >= MOST_TOKENS:
            flag, value = ("steps", self.steps) if self.train.tokens is None else ("tokens", self.tokens)
            raise ConfigError(
                f"--train.{flag} {value}: with --train.global-batch {self.train.global_batch} and --data.block-length "
                f"{self.data.block_length} the run has 2^63 tokens or more; lower one of them"
            )
        warmup = length_in_steps(self.optim.warmup, self.steps)
        decay = length_in_steps(self.optim.decay, self.steps) if self.optim.schedule == "wsd" else 0
        if warmup + decay > self.steps or (warmup == self.steps > 1):
            parts = f"--optim.warmup {self.optim.warmup:g}" + (
                f" and --optim.decay {self.optim.decay:g}" if decay else ""
            )
            raise ConfigError(f"{parts}: leave no step of the run's {self.steps} at the peak learning rate")

    @property
    def tokens_per_step(self) -> int:
        """Sequences per step x block length."""
        return self.train.global_batch * self.data.block_length

    @property
    def steps(self) -> int:
        """Optimizer steps of the run; a token budget's last step may be a part of one."""
        if self.train.tokens is not None:
            return -(-self.train.tokens // self.tokens_per_step)
        return self.train.steps or 300

    @property
    def tokens(self) -> int:
        """Tokens of the run."""
        return self.train.tokens or self.steps * self.tokens_per_step
