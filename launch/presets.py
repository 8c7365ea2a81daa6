"""The Accelerate config files of `launch/presets/`: find one, and what it says of how state is shared."""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from importlib.resources import files
from pathlib import Path

import yaml

from lab.errors import ConfigError

NAMES = ("single", "ddp", "zero1", "zero2", "zero3", "zero3-offload", "fsdp2")
"""From everything whole on each GPU to everything shared out."""


@dataclass(frozen=True)
class Preset:
    """How weights, gradients and optimizer state lie on the processes."""

    name: str
    summary: str
    """When to use it: the first line of its file."""
    distributed_type: str
    """Accelerate's word: NO, MULTI_GPU, DEEPSPEED or FSDP."""
    zero_stage: int
    """DeepSpeed's ZeRO stage; 0 without DeepSpeed."""
    offload: bool
    """Whether DeepSpeed keeps the state in the machine's memory."""

    def file(self, *, nodes: int) -> Path:
        """Its config file for one node or for several."""
        return _folder(nodes > 1) / f"{self.name}.yaml"


def _folder(multinode: bool) -> Path:
    folder = Path(str(files("launch"))) / "presets"
    return folder / "multinode" if multinode else folder


def get(name: str) -> Preset:
    """The preset of a name.

    Raises:
        ConfigError: there is none; names the nearest.
    """
    if name not in NAMES:
        near = get_close_matches(name, NAMES, n=1)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise ConfigError(f"--preset {name}: unknown.{hint} Choose from {', '.join(NAMES)}")
    text = (_folder(multinode=False) / f"{name}.yaml").read_text(encoding="utf-8")
    settings = yaml.safe_load(text)
    deepspeed = settings.get("deepspeed_config", {})
    return Preset(
        name=name,
        summary=text.splitlines()[0].removeprefix("# When: "),
        distributed_type=settings["distributed_type"],
        zero_stage=deepspeed.get("zero_stage", 0),
        offload=deepspeed.get("offload_optimizer_device") == "cpu",
    )
