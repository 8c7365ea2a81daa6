"""Hand a model on as a folder: written beside, compared with the original on real and random tokens, then named."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

import normalization
from lab.checkpoint import manifest
from lab.errors import RunError
from lab.modes import as_umask, refuse_taken
from lab.runfolder.folder import ENVIRONMENT, versions

TOLERANCE = {torch.float64: 1e-4, torch.float32: 1e-4, torch.bfloat16: 3e-2, torch.float16: 4e-3}
"""Difference between logits, as `difference` counts it, that rounding explains."""

LENGTH, _POSITIONS, _STRETCHES = 2048, 256, 8
"""Tokens of an input, since some faults grow with the position; at how many of them logits are compared; and in how
many stretches, where experts are."""

_LOGITS = """
import sys, torch
from safetensors.torch import load_file, save_file
if sys.argv[1] == "bare":
    sys.modules["normalization"] = None  # as if depthlab were not installed
else:
    import normalization
from transformers import AutoModelForCausalLM
model = AutoModelForCausalLM.from_pretrained(sys.argv[2], trust_remote_code=sys.argv[1] == "bare", dtype="auto").eval()
kept = load_file(sys.argv[4])
with torch.no_grad():
    logits = {
        name: model(ids, use_cache=False, logits_to_keep=kept[name]).logits.float()
        for name, ids in load_file(sys.argv[3]).items()
    }
save_file(logits, sys.argv[5])
"""


def hand_over(
    source: Path,
    model: PreTrainedModel,
    out: Path,
    *,
    save: Callable[[Path], None],
    how: str,
    load: str,
    bare: bool,
    original: str = "",
) -> dict[str, float]:
    """Write a model's folder with tokenizer, generation config and model card, and check it before it gets its name.

    Args:
        source: where `model` was loaded from; its tokenizer is handed on.
        model: the original, whose logits the folder must give.
        out: must not exist.
        save: writes weights and config into a folder.
        how: for the model card: how this was made.
        load: for the model card: the lines of Python that load it.
        bare: load the folder for the check without this package, with `trust_remote_code=True`.
        original: for the model card: what the model from `source` is called, where `model` is no longer the same.

    Returns:
        `random` and, where there is a tokenizer, `text`: the `difference` between logits in the check, in the type of
        `model`.

    Raises:
        RunError: `out` exists, or the folder computes something else than `model`; nothing is left of it then.
    """
    refuse_taken(out)
    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        save(partial)
        tokenizer = _tokenizer(source)
        if tokenizer is not None:
            tokenizer.save_pretrained(partial)
        differences = _compare(model, partial, _probe(model, tokenizer), bare=bare)
        allowed = TOLERANCE[next(model.parameters()).dtype]
        worst = max(differences.values(), key=lambda value: (math.isnan(value), value))
        if not worst <= allowed:
            raise RunError(
                f"the exported model computes something else: its logits differ by {worst:.2e} of the largest, and "
                f"rounding in {next(model.parameters()).dtype} explains {allowed:.0e}. Nothing was written. Export "
                "from float32 weights (--dtype float32)"
            )
        (partial / "README.md").write_text(
            _card(source, model, out.name, how, load, differences, original), encoding="utf-8"
        )
        as_umask(partial)
        os.replace(partial, out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return differences


def _tokenizer(source: Path) -> PreTrainedTokenizerBase | None:
    if not (source / "tokenizer_config.json").is_file():
        return None
    return AutoTokenizer.from_pretrained(source)


def longest_input(model: PreTrainedModel) -> int:
    """Tokens that a comparison feeds a model: as many as it has positions, 2,048 at most."""
    return min(LENGTH, getattr(model.config, "max_position_embeddings", None) or LENGTH)


def positions(length: int) -> Tensor:
    """Where logits are compared: (P,), the first to the last of `length` tokens, evenly."""
    return torch.linspace(0, length - 1, min(length, _POSITIONS)).round().long()


def difference(found: Tensor, wanted: Tensor, model: nn.Module) -> float:
    """How far logits (1, P, V) are apart: the largest difference as a share of the largest logit.

    Where there are experts, rounding alone sends a token that is near the border of two to the other one. There the
    median token of a stretch of positions counts, of the stretch where it is worst.
    """
    each = (found - wanted).abs().amax(-1)[0] / wanted.abs().max()
    if normalization.experts(model):
        each = torch.stack([stretch.median() for stretch in each.chunk(_STRETCHES)])
    return float(each.max())


def _probe(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None) -> dict[str, Tensor]:
    length = longest_input(model)
    generator = torch.Generator().manual_seed(0)
    probe = {"random": torch.randint(model.config.vocab_size, (1, length), generator=generator)}
    if tokenizer is not None:
        text = Path(textwrap.__file__).read_text(encoding="utf-8")
        probe["text"] = tokenizer(text, return_tensors="pt")["input_ids"][:, :length].contiguous()
    return probe


@torch.no_grad()
def _compare(model: PreTrainedModel, folder: Path, probe: dict[str, Tensor], *, bare: bool) -> dict[str, float]:
    """Load the folder in a process of its own, as its users will, in the type in which it is stored."""
    kept = {name: positions(ids.shape[1]) for name, ids in probe.items()}
    files = [folder / f".{name}.safetensors" for name in ("probe", "kept", "logits")]
    save_file(probe, files[0])
    save_file(kept, files[1])
    words = ["bare" if bare else "stock", str(folder), *map(str, files)]
    environment = {**os.environ, "HF_MODULES_CACHE": str(folder / ".modules")}
    done = subprocess.run(
        [sys.executable, "-c", _LOGITS, *words], env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RunError(f"the exported folder does not load: {done.stderr.strip().splitlines()[-1]}")
    found = load_file(files[-1])
    for file in files:
        file.unlink()
    shutil.rmtree(folder / ".modules", ignore_errors=True)
    differences = {}
    for name, ids in probe.items():
        wanted = model.eval()(ids.to(model.device), use_cache=False, logits_to_keep=kept[name].to(model.device)).logits
        differences[name] = difference(found[name], wanted.float().cpu(), model)
    return differences


def _card(
    source: Path,
    model: PreTrainedModel,
    name: str,
    how: str,
    load: str,
    differences: dict[str, float],
    original: str,
) -> str:
    spec = normalization.spec(model)
    plans = normalization.plans(model)
    given = {key: value for key, value in spec.options.items() if value is not None}
    measured = ", ".join(f"{value:.1e} ({kind} tokens)" for kind, value in differences.items())
    of = "the median token's largest" if normalization.experts(model) else "largest"
    lines = [
        "---",
        "library_name: transformers",
        f"tags: [depthlab, normalization-{spec.scheme}]",
        "---",
        "",
        f"# {name}",
        "",
        how,
        "",
        "```python",
        load.strip(),
        "```",
        "",
        "| | |",
        "|---|---|",
        f"| scheme | {spec.scheme}{f' {given}' if given else ''} |",
        f"| architecture | {model.config.model_type.removeprefix('depthlab_')}, {len(plans)} layers, "
        f"{sum(p.numel() for p in model.parameters()):,} parameters |",
        f"| first layer | x <- {plans[0]} |",
        f"| last layer | x <- {plans[-1]} |",
        *(f"| {f'{original}: ' if original else ''}{key} | {value} |" for key, value in _training(source).items()),
        f"| type | {str(model.dtype).removeprefix('torch.')} |",
        f"| check | {of} difference of logits to the original, as a share of the largest logit, in this type at up to "
        f"{longest_input(model):,} positions: {measured} |",
        f"| made with | {', '.join(f'{key} {value}' for key, value in versions().items())} |",
        "",
    ]
    return "\n".join(lines)


def _training(source: Path) -> dict[str, Any]:
    """What is known of how a checkpoint of ours was trained."""
    try:
        found = manifest.read(source)
    except ValueError:
        return {}
    known: dict[str, Any] = {"trained for": f"{found.step:,} steps, {found.tokens:,} tokens"}
    if found.eval_loss is not None:
        known["held-out loss"] = f"{found.eval_loss:.4f} nats per token"
    environment = source.parents[1] / ENVIRONMENT
    if environment.is_file():
        known["code"] = f"git revision {json.loads(environment.read_text(encoding='utf-8'))['git']}"
    return known
