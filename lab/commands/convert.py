"""`depthlab convert CHECKPOINT --to lns --out DIR`."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from evaluators import command_line


@dataclass(frozen=True)
class Convert:
    """Turn a pretrained Pre-LN checkpoint into LayerNorm Scaling without changing what it computes: the norm weights
    of layer l are multiplied by sqrt(l), which the scheme divides out again. Then train it on.
    """

    path: Annotated[str, tyro.conf.Positional]
    """A stock Pre-LN checkpoint: a folder or a hub name."""
    out: str
    """Folder to write; it must not exist yet."""
    to: str = "lns"
    """The scheme. Only lns can be reached without changing what the model computes."""


def main(argv: Sequence[str], *, prog: str) -> int:
    """Exit code 0; 1 where nothing was written; 2 for an impossible setting."""
    wanted = command_line.read(Convert, argv, prog=prog)
    from lab.errors import tell
    from lab.light import without_torch
    from lab.quiet import quieten

    try:
        with without_torch():
            _check(wanted)
        quieten()
        differences = convert(wanted)
    except ValueError as error:
        return tell(error)
    for kind, difference in differences.items():
        print(f"same logits on {kind} tokens: largest difference {difference:.1e} of the largest logit")
    print(
        f"wrote {wanted.out}; go on with depthlab pretrain --model.checkpoint {wanted.out} --normalization.scheme lns"
    )
    return 0


def _check(wanted: Convert) -> None:
    """Raises UserError for what can be told before torch is loaded."""
    from lab.checkpoint.search import refuse_no_model
    from lab.errors import ConfigError
    from lab.modes import refuse_taken
    from normalization.schemes import get

    try:
        scheme = get(wanted.to).name
    except ValueError as error:
        raise ConfigError(f"--to {wanted.to}: {error}") from error
    if scheme != "lns":
        raise ConfigError(
            f"--to {wanted.to}: there is no conversion. {scheme} moves or adds a norm on the residual stream, so no "
            "choice of weights makes it compute what the Pre-LN model computes; only a scale behind an existing norm "
            "(lns) can be undone by that norm's weights. To start training from the weights all the same: depthlab "
            f"pretrain --model.checkpoint {wanted.path} --normalization.scheme {wanted.to}"
        )
    refuse_taken(Path(wanted.out))
    refuse_no_model(wanted.path)


def convert(wanted: Convert) -> dict[str, float]:
    """Do it; returns the differences of `lab.model.handover.hand_over`.

    Raises:
        ValueError: another scheme than lns (says why there is no conversion), a model that is not stock Pre-LN, or
            what `hand_over` raises.
    """
    import normalization
    from lab.checkpoint import load_model
    from lab.checkpoint.search import resolve
    from lab.model.handover import hand_over

    _check(wanted)
    source = resolve(wanted.path)
    model = load_model(source)
    converted = normalization.from_pre_ln(copy.deepcopy(model))
    out = Path(wanted.out)
    return hand_over(
        Path(source),
        model,
        out,
        save=converted.save_pretrained,
        how=f"`{Path(wanted.path).name}` turned into LayerNorm Scaling by depthlab: the norm weights of layer l times "
        "sqrt(l), so that it computes the same logits. Meant to be trained on.",
        load="import normalization  # of depthlab\nfrom transformers import AutoModelForCausalLM\n\n"
        f'model = AutoModelForCausalLM.from_pretrained("{out.name}")',
        bare=False,
    )
