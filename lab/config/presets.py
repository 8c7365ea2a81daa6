"""Model sizes: the published LLaMA configurations, and small deep ones for a CPU."""

from __future__ import annotations

import re
from dataclasses import dataclass
from difflib import get_close_matches

from lab.errors import ConfigError


@dataclass(frozen=True)
class Size:
    """A LLaMA architecture: RMSNorm with epsilon 1e-6, SwiGLU, rotary positions, no biases, untied head."""

    layers: int
    width: int
    mlp_width: int
    heads: int


PRESETS = {
    "llama_9m": Size(4, 128, 352, 4),
    "llama_20m": Size(4, 256, 688, 4),
    "llama_35m": Size(6, 384, 1024, 8),
    "llama_60m": Size(8, 512, 1376, 8),
    "llama_71m": Size(12, 512, 1368, 8),
    "llama_100m": Size(12, 640, 1708, 10),
    "llama_130m": Size(12, 768, 2048, 12),
    "llama_250m": Size(24, 768, 2560, 16),
    "llama_350m": Size(24, 1024, 2736, 16),
    "llama_1b": Size(24, 2048, 5461, 32),
    "llama_3b": Size(32, 2560, 6848, 32),
    "llama_7b": Size(32, 4096, 11008, 32),
}
"""The sizes that the repositories of LNS (arXiv:2502.05795) and Mix-LN (arXiv:2412.13795) train."""

HEAD_WIDTH = 32
_TINY = re.compile(r"tiny-([1-9]\d*)x([1-9]\d*)")


def check_preset(name: str) -> Size:
    """The size that a preset's name stands for.

    Raises:
        ConfigError: no such preset, or a tiny one whose width is no multiple of the head width.
    """
    if name in PRESETS:
        return PRESETS[name]
    if tiny := _TINY.fullmatch(name):
        layers, width = map(int, tiny.groups())
        if width % HEAD_WIDTH:
            raise ConfigError(f"--model.preset {name}: the width must be a multiple of {HEAD_WIDTH}, a head's width")
        return Size(layers, width, width * 8 // 3, width // HEAD_WIDTH)
    near = get_close_matches(name, PRESETS, n=1)
    hint = f" Did you mean {near[0]}?" if near else ""
    raise ConfigError(
        f"--model.preset {name}: unknown.{hint} Choose from {', '.join(PRESETS)}, "
        "or tiny-LAYERSxWIDTH such as tiny-16x128"
    )
