"""What the ranks tell each other, on torch.distributed itself: sums, and failures that all of them must learn of."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from accelerate import Accelerator
from torch import Tensor

from lab.errors import ConfigError, RunError, UserError

Result = TypeVar("Result")


def several() -> bool:
    """Whether this process is one of several that train together."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def rank_and_world() -> tuple[int, int]:
    """This process's number, from 0, and how many there are."""
    return (dist.get_rank(), dist.get_world_size()) if several() else (0, 1)


def sum_over_ranks(tensor: Tensor) -> Tensor:
    """The sum of a tensor over ranks, in place."""
    if several():
        dist.all_reduce(tensor)
    return tensor


def largest_over_ranks(tensor: Tensor) -> Tensor:
    """The largest of each element over ranks, in place."""
    if several():
        dist.all_reduce(tensor, op=dist.ReduceOp.MAX)
    return tensor


def all_sum(accelerator: Accelerator, values: Sequence[float]) -> list[float]:
    """The sum over ranks of a few numbers, in float64, with one collective."""
    if not several():
        return list(values)
    return list(sum_over_ranks(torch.tensor(list(values), dtype=torch.float64, device=accelerator.device)).tolist())


def wait_for_all(accelerator: Accelerator) -> None:
    """Returns once every rank has come here."""
    all_sum(accelerator, [0.0])


def gather(value: Any) -> list[Any]:
    """Every rank's value, by rank; anything that can be pickled."""
    if not several():
        return [value]
    values: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


def together(work: Callable[[], Result]) -> Result:
    """Run `work` on every rank. Where it fails on any rank, all of them raise, so that none waits for the others.

    Raises:
        UserError: what failed, and on which ranks unless it failed on all alike.
    """
    failure: Exception | None = None
    result: Any = None
    try:
        result = work()
    except (UserError, OSError) as error:
        failure = error
    raise_if_any_failed(failure)
    return result


def on_main(work: Callable[[], Result]) -> Result:
    """Run `work` on the main rank alone, and hand what it gives, anything that can be pickled, to all.

    Raises:
        UserError: what failed there, on every rank.
    """
    told: list[Any] = [None, None]
    if rank_and_world()[0] == 0:
        try:
            told[0] = work()
        except UserError as error:
            told[1] = error
        except OSError as error:
            told[1] = RunError(str(error))
    if several():
        dist.broadcast_object_list(told)
    if told[1] is not None:
        raise told[1]
    return told[0]


def raise_if_any_failed(failure: Exception | None) -> None:
    """Every rank calls it, with its own failure or None; raises on all of them if any failed.

    Raises:
        UserError: as `together` does.
    """
    told = gather(None if failure is None else (isinstance(failure, ConfigError), str(failure), socket.gethostname()))
    failed = {rank: entry for rank, entry in enumerate(told) if entry is not None}
    if not failed:
        return
    if failure is not None and len({text for _, text, _ in failed.values()}) == 1 and len(failed) == len(told):
        raise failure
    rank, (is_config, text, host) = next(iter(failed.items()))
    others = f" ({len(failed) - 1} more of {len(told)} ranks failed too)" if len(failed) > 1 else ""
    raise (ConfigError if is_config else RunError)(f"rank {rank} on {host}: {text}{others}") from failure
