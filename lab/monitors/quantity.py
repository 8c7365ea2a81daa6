"""What a monitor declares of a figure: enough to draw it, and to test that it is what it is called."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Reduction:
    """How many elements become one number."""

    name: str
    doubled: float
    """What the number is multiplied by when each element is there twice: this tells a norm from a root mean square."""


NORM = Reduction("L2 norm", math.sqrt(2))
SUM = Reduction("sum", 2.0)
RMS = Reduction("root mean square", 1.0)
MEAN = Reduction("mean", 1.0)
LARGEST = Reduction("largest magnitude", 1.0)
TOKEN_VARIANCE = Reduction("variance over features, mean over tokens", 1.0)


@dataclass(frozen=True)
class Quantity:
    """One figure by place, by layer, or of the whole model."""

    name: str
    """In metrics.jsonl, followed by the place or layer: `grad_norm/layer_03`."""
    of: str
    """What is reduced: `gradients`, `weights`, `updates`, `layer outputs`, or whatever it is."""
    reduction: Reduction
    unit: str
    title: str
    shows: str
    """One line: what it shows and what to look for."""
    definition: str
    source: str
    """Where it stands: a paper, or `a monitor of ours`."""
    over: Literal["places", "layers", "model"] = "places"
    """Places are the layers, and `embedding`, `final_norm` and `head`."""
    relative_to: str | None = None
    """It is divided by the same reduction of this."""
    logarithmic: bool = True
    """Drawn as its log10."""
    panel: str | None = None
    """Name of the report's figure; `name` if not given."""
