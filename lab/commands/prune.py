"""`depthlab prune CHECKPOINT_OR_RUN --layers 21-25 --out DIR`: a checkpoint without some of its layers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from evaluators import command_line

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from lab.diagnostics.record import Record
    from lab.diagnostics.targets import Target

NEEDED = {"angular": "angular", "influence": "angular", "removal": "removal"}
"""What decides which layers go -> the diagnostic that measures it."""


@dataclass(frozen=True)
class Prune:
    """Write a really smaller checkpoint: the layers are gone, the others renumbered, and each keeps the placement and
    the scales that it had. It computes what the model computes when those layers are skipped, which is checked before
    the folder gets its name. To heal it, train it on: depthlab pretrain --model.checkpoint OUT ...
    """

    path: Annotated[str, tyro.conf.Positional]
    """A checkpoint, a run folder (its newest checkpoint), any Hugging Face folder or hub name, or a .gguf file."""
    out: str
    """Folder to write; it must not exist yet."""
    layers: str | None = None
    """Layers to remove, counted from 1, such as 21-25 or 3-5,8."""
    drop: int | None = None
    """How many layers to remove, in place of --layers; --by chooses them."""
    by: Literal["angular", "removal", "influence"] = "angular"
    """angular: the run of layers whose input and output are at the smallest angle (arXiv:2403.17887); removal: those
    whose removal alone costs least; influence: those that turn the stream least (block influence, arXiv:2403.03853).
    Read from the model's record, or measured on its default probe."""
    record: str | None = None
    """Record of depthlab diagnose to choose by; the model's own, where diagnose keeps it, if not given."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Type of the weights; auto is what the checkpoint has."""


def main(argv: Sequence[str], *, prog: str) -> int:
    """Exit code 0; 1 where nothing was written; 2 for an impossible setting."""
    wanted = command_line.read(Prune, argv, prog=prog)
    from lab.errors import tell
    from lab.light import without_torch
    from lab.quiet import quieten

    try:
        with without_torch():
            _check(wanted)
        quieten()
        removed, differences = prune(wanted)
    except ValueError as error:
        return tell(error)
    for kind, difference in differences.items():
        print(f"same logits on {kind} tokens: largest difference {difference:.1e} of the largest logit")
    print(f"wrote {wanted.out} without layers {ranges(removed)}")
    print(f"to heal it, train it on: depthlab pretrain --model.checkpoint {wanted.out} --data.source ...")
    return 0


def _check(wanted: Prune) -> None:
    """Raises UserError for what can be told before torch is loaded."""
    from lab.checkpoint.search import refuse_no_model
    from lab.errors import ConfigError
    from lab.modes import refuse_taken

    if (wanted.layers is None) == (wanted.drop is None):
        raise ConfigError("prune: give either --layers, such as 21-25, or --drop with a number of layers")
    if wanted.layers is not None and wanted.record is not None:
        raise ConfigError(f"--record {wanted.record}: only with --drop, which chooses layers by it; leave one out")
    refuse_taken(Path(wanted.out))
    refuse_no_model(wanted.path)


def prune(wanted: Prune) -> tuple[list[int], dict[str, float]]:
    """Do it.

    Returns:
        The layers that were removed, and the differences of `lab.model.handover.hand_over`.

    Raises:
        ValueError: layers that the model does not have, or all of them; a record without what --by needs; a model
            that computes something else without them; or what `hand_over` raises.
    """
    import torch

    import normalization
    from lab.checkpoint.search import resolve
    from lab.diagnostics import targets
    from lab.errors import ConfigError, RunError
    from lab.model.handover import TOLERANCE, hand_over
    from lab.model.shrink import difference_to_skipping, without
    from normalization.api import family_of

    target = targets.of_path(resolve(wanted.path))
    model = target.load(dtype=wanted.dtype, device=torch.device("cpu"))
    depth = len(normalization.decoder_layers(model))
    if wanted.layers is not None:
        removed = numbers(wanted.layers, depth)
        why = "chosen by hand"
    else:
        assert wanted.drop is not None
        if not 0 < wanted.drop < depth:
            raise ConfigError(f"--drop {wanted.drop}: must be 1 to {depth - 1}, since the model has {depth} layers")
        removed = least(_record(wanted, target, model), wanted.drop, wanted.by)
        why = f"chosen by {wanted.by}"
    smaller = without(model, removed)
    difference = difference_to_skipping(smaller, model, removed)
    if not difference <= TOLERANCE[model.dtype]:
        raise RunError(
            f"the model without layers {ranges(removed)} computes something else than the whole one that skips them "
            f"(logits differ by {difference:.1e} of the largest), so nothing was written: its layers depend on their "
            "numbers in a way that its config does not show"
        )
    tokenizer = target.tokenizer()

    def save(folder: Path) -> None:
        smaller.save_pretrained(folder)
        if tokenizer is not None:
            tokenizer.save_pretrained(folder)

    out = Path(wanted.out)
    stock = normalization.spec(smaller).scheme == family_of(smaller).stock_scheme
    load = "from transformers import AutoModelForCausalLM\n\n"
    if not stock:
        load = f"import normalization  # of depthlab\n{load}"
    differences = hand_over(
        Path(target.source),
        smaller,
        out,
        save=save,
        how=f"`{target.name}` without {len(removed)} of its {depth} layers: {ranges(removed)} (counted from 1), {why}; "
        "made by depthlab. It computes what the model computes when those layers are skipped. To win back what it "
        f"lost, train it on: `depthlab pretrain --model.checkpoint {out.name} ...`.",
        load=f'{load}model = AutoModelForCausalLM.from_pretrained("{out.name}")',
        bare=False,
        original="the whole model",
    )
    return removed, differences


def numbers(text: str, depth: int) -> list[int]:
    """`3-5,8` as layers, each once and in order.

    Raises:
        ConfigError: not such a text, a layer twice, one that the model does not have, or all of them.
    """
    from lab.errors import ConfigError

    found: list[int] = []
    for part in text.split(","):
        if not (match := re.fullmatch(r"\s*(\d+)\s*(?:-\s*(\d+)\s*)?", part)):
            raise ConfigError(
                f"--layers {text}: {part!r} is no layer and no range; write layers such as 21-25 or 3-5,8"
            )
        first, last = int(match[1]), int(match[2] or match[1])
        if not 1 <= first <= last <= depth:
            raise ConfigError(f"--layers {text}: {part.strip()} is not within 1-{depth}, the model's layers")
        found += range(first, last + 1)
    twice = sorted({layer for layer in found if found.count(layer) > 1})
    if twice:
        raise ConfigError(f"--layers {text}: names layer {twice[0]} twice")
    if len(found) == depth:
        raise ConfigError(f"--layers {text}: names every layer of the model; leave at least one")
    return sorted(found)


def ranges(layers: Sequence[int]) -> str:
    """The inverse of `numbers`: [3, 4, 5, 8] as `3-5, 8`."""
    runs: list[list[int]] = []
    for layer in layers:
        if runs and layer == runs[-1][-1] + 1:
            runs[-1].append(layer)
        else:
            runs.append([layer])
    return ", ".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)


def least(record: Record, drop: int, by: str) -> list[int]:
    """The layers, counted from 1, that a record would miss least.

    Raises:
        RunError: the record lacks what `by` needs.
    """
    import numpy as np

    from lab.errors import RunError

    def figure(name: str) -> Any:
        try:
            return record.figure(name).values
        except KeyError as error:
            raise RunError(f"--by {by}: {error.args[0]}") from error

    if by == "angular":
        # d(h_l, h_(l+n)): removing layers l + 1 .. l + n makes layer l + n + 1 read h_l in place of h_(l+n).
        after = int(np.argmin(figure("angular/distance").diagonal(drop)))
        return list(range(after + 1, after + drop + 1))
    values = figure({"removal": "removal/increase", "influence": "angular/influence"}[by])
    return sorted(int(index) + 1 for index in np.argsort(values, kind="stable")[:drop])


def _record(wanted: Prune, target: Target, model: PreTrainedModel) -> Record:
    """The record to choose by: the one that is named, the model's own, or one that is made now."""
    from lab.diagnostics.measurement import measure
    from lab.diagnostics.record import load
    from lab.diagnostics.runs import Plan
    from lab.errors import RunError

    if wanted.record is not None:
        record = load(wanted.record)
        if record.model["layers"] != model.config.num_hidden_layers:
            raise RunError(
                f"--record {wanted.record}: is of a model of {record.model['layers']} layers, and {target.name} has "
                f"{model.config.num_hidden_layers}"
            )
        return record
    path = target.record_path(None)
    diagnostic = NEEDED[wanted.by]
    if path.is_file():
        record = load(path)
        if record.model.get("digest") == target.about(model)["digest"] and diagnostic in record.diagnostics:
            return record
    print(f"measuring {diagnostic} (no record of these weights has it)", flush=True)
    return measure(model, Plan((diagnostic,)).probe_for(target), only=diagnostic)
