"""What an engine must say of how it shares a model: the part of each tensor that is here, the whole of it, and what
a training step does otherwise than with one process."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from torch import Tensor, nn

MOMENTS = ("exp_avg", "exp_avg_sq")
"""Adam's state of a parameter, beside the number of its updates."""


def whole_shape(parameter: Any) -> tuple[int, ...]:
    """A parameter's shape, also where ZeRO-3 keeps only a part of it here."""
    return tuple(getattr(parameter, "ds_shape", parameter.shape))


class Sharding(ABC):
    """One way to share weights, gradients and Adam's state. Parts that together are the whole, each element on one
    rank, unless it says that a part is the whole already.
    """

    name: str
    shares_weights = False
    """Whether no process holds the whole model that computes."""
    gradients_are_parts = True
    weights_are_parts = True

    # -- a training step -----------------------------------------------------------------------------------------------

    def micro_batch(self, *, is_last: bool) -> AbstractContextManager[Any]:
        """Around the forward and backward pass of one of a step's micro-batches."""
        return nullcontext()

    @abstractmethod
    def backward(self, loss: Tensor, *, is_last: bool) -> None:
        """Add a micro-batch's gradients to the step's; after the last one they are the mean over ranks."""

    def unscale(self) -> None:  # noqa: B027
        """Take the loss scale out of complete gradients."""

    @property
    def searches_for_a_scale(self) -> bool:
        """Whether gradients that are not finite are part of the search for a loss scale: their update is skipped."""
        return False

    @abstractmethod
    def update(self, clip: float | None, gradient_norm: float) -> None:
        """Clip the gradients to a global norm, given what it is; update the weights; clear the gradients."""

    # -- parts and wholes ----------------------------------------------------------------------------------------------

    def elements(self, parameter: nn.Parameter) -> int:
        """Number of elements of the whole."""
        return math.prod(whole_shape(parameter))

    @abstractmethod
    def gradient(self, parameter: nn.Parameter) -> Tensor:
        """A parameter's gradient between backward pass and update, or this rank's part: any shape, maybe empty."""

    @abstractmethod
    def weight(self, parameter: nn.Parameter) -> Tensor:
        """The weight that the optimizer updates (float32 also where the model computes in bf16), or a part of it."""

    @abstractmethod
    def whole(self, parameter: nn.Parameter, moment: str | None = None) -> Tensor:
        """The whole weight, or the whole of one of `MOMENTS`, float32 in the parameter's shape; all ranks call it."""

    @abstractmethod
    def updates(self, parameter: nn.Parameter) -> float:
        """How many updates Adam has made of a parameter; 0 if none, and then it has no moments."""

    def settle(self, model: nn.Module) -> None:  # noqa: B027
        """After forward passes that no backward pass follows: give back what they have gathered; all ranks call it."""

    @abstractmethod
    def restore(
        self, parameter: nn.Parameter, weight: Tensor | None, moments: dict[str, Tensor], updates: float
    ) -> None:
        """Put back what `whole` and `updates` gave; every rank is given the whole.

        Args:
            parameter: of the prepared model, which holds the weights of the checkpoint.
            weight: float32, where the checkpoint knows it better than a model that computes in bf16.
            moments: each of `MOMENTS`, if there were updates.
            updates: how many.
        """
