"""One run from its settings: find where to go on, data, model, trainer; say what is about to happen; train."""

from __future__ import annotations

import math
import sys
import warnings
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from transformers import AutoTokenizer, PreTrainedModel

import normalization
from lab import checkpoint, metrics, rundir
from lab.config import RunConfig
from lab.console import Console, count
from lab.data import Corpus, load_tokenizer, prepare
from lab.distributed import make_accelerator
from lab.models import build_model, source_of
from lab.settings import differences, load, stored_config
from lab.shards import whole_shape
from lab.train import Trainer


def pretrain(run: RunConfig) -> bool:
    """Train as the settings say; every rank calls it.

    Returns:
        True when the run is complete, False when it was asked to stop and has saved a checkpoint.

    Raises:
        UserError: settings, data or numbers with which the run cannot start or go on; the message says what to do.
    """
    if run.resume is None:
        rundir.refuse_existing(Path(run.run_dir))
    accelerator = make_accelerator(run)
    console = Console(enabled=accelerator.is_main_process)
    resume_from = _resume_point(run, accelerator, console) if run.resume is not None else None

    console.say(f"preparing the data (tokenised text is kept in {run.data.cache_root})")
    show_progress = accelerator.is_local_main_process and sys.stderr.isatty()
    if resume_from is None:
        tokenizer = load_tokenizer(run.data, progress=show_progress)
    else:
        tokenizer = AutoTokenizer.from_pretrained(resume_from)
    corpus = prepare(run.data, tokenizer, seed=run.train.seed, progress=show_progress)

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        if resume_from is None:
            model = build_model(run, tokenizer_size=len(tokenizer), eos_token_id=tokenizer.eos_token_id)
        else:
            model = checkpoint.load_model(resume_from, dtype="float32", attn_implementation=run.model.attention)
    for warning in caught:
        console.warn(str(warning.message))
    corpus.check_vocabulary(model.config.vocab_size)

    trainer = Trainer(run, model, corpus, tokenizer, accelerator, console, resume_from)
    derived = _derived(run, trainer, accelerator)
    if accelerator.is_main_process:
        rundir.create(run, derived=derived, data=corpus.summary(), world_size=accelerator.num_processes)
        tokenizer.save_pretrained(Path(run.run_dir) / rundir.TOKENIZER)
        _introduce(run, model, corpus, accelerator, console, derived)
    accelerator.wait_for_everyone()
    return trainer.run()


def _resume_point(run: RunConfig, accelerator: Accelerator, console: Console) -> Path:
    """The checkpoint to go on from; what came after it in the run's folder is put aside."""
    folder = Path(run.run_dir)
    found = checkpoint.find(folder, run.resume or "latest", say=console.warn)
    if folder.resolve() not in found.resolve().parents:
        rundir.refuse_existing(folder)
    if (stored := stored_config(run)).is_file():
        for line in differences(load(stored), run):
            console.warn(f"going on with another setting: {line}")
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        step = checkpoint.read_trainer(found)["step"]
        checkpoint.clean(folder)
        records, later = metrics.rewind(folder, step), checkpoint.set_aside_after(folder, step)
        console.say(f"going on from {found}")
        if records or later:
            console.say(f"set aside: {records} later records, later checkpoints of steps {later or 'none'}")
    return found


def _derived(run: RunConfig, trainer: Trainer, accelerator: Accelerator) -> dict[str, Any]:
    """What follows from the settings."""
    return {
        "parameters": sum(math.prod(whole_shape(parameter)) for parameter in trainer.bare_model.parameters()),
        "steps": run.steps,
        "tokens_per_step": run.tokens_per_step,
        "tokens": run.tokens,
        "flops_per_token": trainer.flops_per_token,
        "flops": trainer.flops_per_token * run.tokens,
        "micro_batches_per_step": run.train.global_batch // (run.train.micro_batch * accelerator.num_processes),
    }


def _introduce(
    run: RunConfig,
    model: PreTrainedModel,
    corpus: Corpus,
    accelerator: Accelerator,
    console: Console,
    derived: dict[str, Any],
) -> None:
    spec = normalization.spec(model)
    depth = model.config.num_hidden_layers
    sources = run.data.source
    source = " ".join(sources) if len(sources) <= 3 else f"{len(sources)} files and folders"
    tokens_per_step = f"{run.tokens_per_step:,} tokens"
    if run.train.tokens is None:
        budget = f"{run.steps:,} steps x {tokens_per_step} = {count(run.tokens)} tokens"
    else:
        budget = f"{run.tokens:,} tokens in {run.steps:,} steps of {tokens_per_step}"
    given = ", ".join(f"{key}={value}" for key, value in spec.options.items() if value is not None)
    data = corpus.summary()
    size = f"{count(data['train_tokens'])} tokens" if data.get("train_tokens") else "streamed"
    processes, micro_batches = accelerator.num_processes, derived["micro_batches_per_step"]
    lines = {
        "run": run.run_dir,
        "model": f"{source_of(run)}: {depth} layers, {count(derived['parameters'])} parameters",
        "scheme": f"{spec.scheme}{f' ({given})' if given else ''}",
        "data": f"{source}: {size} to train on, {count(data['heldout_tokens'])} held out, "
        f"vocabulary {model.config.vocab_size:,}",
        "budget": f"{budget}, {count(derived['flops'], billion='G')}FLOP",
        "machine": f"{processes} process{'es' if processes > 1 else ''} on {accelerator.device.type}, "
        f"{run.train.precision}, {micro_batches} micro-batch{'es' if micro_batches > 1 else ''} of "
        f"{run.train.micro_batch} x {run.data.block_length} tokens per process and step",
    }
    for head, text in lines.items():
        console.say(f"{head:<8} {text}")
    first = data.get("first_skipped", {})
    skipped = [
        f"{number:,} {reason}" + (f" (first in {first[reason]})" if reason in first else "")
        for reason, number in data["skipped"].items()
    ]
    if skipped:
        console.warn(f"documents skipped: {', '.join(skipped)}")
    wanted = run.data.bpe_vocabulary
    if wanted is not None and data["vocabulary"] < wanted:
        console.warn(
            f"--data.tokenizer {run.data.tokenizer}: the text has no more than {data['vocabulary']:,} entries to merge"
        )
