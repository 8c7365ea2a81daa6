"""`depthlab export CHECKPOINT_OR_RUN --to stock|remote-code --out DIR`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import tyro

from evaluators import command_line


@dataclass(frozen=True)
class Export:
    """Write a checkpoint for people who do not have depthlab. The result is compared with the original, on random and
    on real tokens, before it gets its name.
    """

    path: Annotated[str, tyro.conf.Positional]
    """A checkpoint, or a run folder (its newest checkpoint)."""
    out: str
    """Folder to write; it must not exist yet."""
    to: Literal["stock", "remote-code"] = "stock"
    """stock: a plain Llama, Qwen, GPT-2, ... checkpoint that any program loads; LayerNorm Scaling is folded into the
    norm weights, other schemes cannot be. remote-code: a folder with its own code, for any scheme, that loads with
    trust_remote_code=True."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Type of the weights; auto is what the checkpoint has."""


def main(argv: Sequence[str], *, prog: str) -> int:
    """Exit code 0; 1 where nothing was written; 2 for an impossible setting."""
    wanted = command_line.read(Export, argv, prog=prog)
    from lab.errors import tell
    from lab.light import without_torch
    from lab.modes import refuse_taken
    from lab.quiet import quieten

    try:
        with without_torch():
            from lab.checkpoint.search import refuse_no_model

            refuse_taken(Path(wanted.out))
            refuse_no_model(wanted.path)
        quieten()
        differences = export(wanted)
    except ValueError as error:
        return tell(error)
    for kind, difference in differences.items():
        print(f"same logits on {kind} tokens: largest difference {difference:.1e} of the largest logit")
    print(f"wrote {wanted.out}; its README.md says how to load it")
    return 0


def export(wanted: Export) -> dict[str, float]:
    """Do it; returns the differences of `lab.model.handover.hand_over`.

    Raises:
        ValueError: a scheme that cannot be folded, an unknown family, or what `hand_over` raises.
    """
    import normalization
    from lab.checkpoint import load_model
    from lab.checkpoint.search import resolve
    from lab.model.handover import hand_over
    from lab.runfolder.folder import versions
    from normalization.remote import save_with_code

    source = resolve(wanted.path)
    model = load_model(source, dtype=wanted.dtype)
    scheme = normalization.spec(model).scheme
    out = Path(wanted.out)
    if wanted.to == "stock":
        folded = normalization.fold(model)
        return hand_over(
            Path(source),
            model,
            out,
            save=folded.save_pretrained,
            how=f"A stock checkpoint, exported by depthlab from a model with the normalization scheme `{scheme}`, "
            "whose scales are folded into the weights of its norms. It computes the same logits.",
            load="from transformers import AutoModelForCausalLM\n\n"
            f'model = AutoModelForCausalLM.from_pretrained("{out.name}")',
            bare=False,
        )
    return hand_over(
        Path(source),
        model,
        out,
        save=partial(save_with_code, model, version=versions()["depthlab"]),
        how=f"A model with the normalization scheme `{scheme}`, exported by depthlab with the code that it needs.",
        load="from transformers import AutoModelForCausalLM\n\n"
        f'model = AutoModelForCausalLM.from_pretrained("{out.name}", trust_remote_code=True)',
        bare=True,
    )
