"""One run from its settings: find where to go on, data, model, trainer; say what is about to happen; train."""

from __future__ import annotations

import math
import sys
import warnings
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

import normalization
from lab.checkpoint import load_model
from lab.checkpoint.folder import clean
from lab.checkpoint.progress import read_progress
from lab.checkpoint.retention import set_aside_after
from lab.checkpoint.search import LATEST, find_or_none
from lab.config.read import load
from lab.config.resume import differences, stored_config
from lab.config.sections import RunConfig
from lab.data import Corpus, load_tokenizer, prepare
from lab.model.build import build_model, source_of
from lab.model.ids import agree_on_ids
from lab.parallel.accelerator import make_accelerator
from lab.parallel.collectives import together
from lab.parallel.heartbeat import Heartbeat
from lab.parallel.sharding import whole_shape
from lab.runfolder import metrics
from lab.runfolder.console import Console
from lab.runfolder.folder import CONFIG, TOKENIZER, refuse_existing
from lab.runfolder.folder import create as create_run_folder
from lab.runfolder.text import count
from lab.training.loop import Trainer
from lab.training.signals import STOP_FILE


def pretrain(run: RunConfig) -> bool:
    """Train as the settings say; every rank calls it.

    Returns:
        True when the run is complete, False when it was asked to stop and has saved a checkpoint.

    Raises:
        UserError: settings, data or numbers with which the run cannot start or go on; the message says what to do.
    """
    if run.resume is None:
        refuse_existing(Path(run.run_dir))
    accelerator = make_accelerator(run)
    console = Console(enabled=accelerator.is_main_process)
    with Heartbeat(run.train.hang_timeout).watching() as heartbeat:
        heartbeat.at("finding the checkpoint", limited=False)
        resume_from = together(lambda: _resume_point(run, console)) if run.resume is not None else None
        # Every rank must have looked before one of them tidies up.
        together(lambda: _tidy(run, resume_from, accelerator, console))

        console.say(f"preparing the data (tokenised text is kept in {run.data.cache_root})")
        heartbeat.at("preparing the data", limited=False)
        tokenizer, corpus = together(lambda: _load_data(run, resume_from, accelerator))

        heartbeat.at("building the model", limited=False)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", UserWarning)
            model = together(lambda: _load_model(run, resume_from, tokenizer))
        for warning in caught:
            console.warn(str(warning.message))
        corpus.check_vocabulary(model.config.vocab_size)
        agree_on_ids(model, tokenizer)

        heartbeat.at("sharing the model out")
        trainer = Trainer(run, model, corpus, tokenizer, accelerator, console, heartbeat, resume_from)
        derived = _derived(run, trainer, accelerator)

        def create() -> None:
            if accelerator.is_main_process:
                create_run_folder(run, derived=derived, data=corpus.summary(), world_size=accelerator.num_processes)
                tokenizer.save_pretrained(Path(run.run_dir) / TOKENIZER)

        together(create)
        if accelerator.is_main_process:
            _introduce(run, model, corpus, accelerator, console, derived)
        return trainer.run()


def _resume_point(run: RunConfig, console: Console) -> Path | None:
    """The checkpoint to go on from; None where `auto` finds none."""
    folder = Path(run.run_dir)
    found = find_or_none(folder, run.resume or LATEST, say=console.warn)
    if found is None:
        if not (folder / CONFIG).is_file():
            refuse_existing(folder)
        return None
    if folder.resolve() not in found.resolve().parents:
        refuse_existing(folder)
    if (stored := stored_config(run)).is_file():
        for line in differences(load(stored), run):
            console.warn(f"going on with another setting: {line}")
    return found


def _tidy(run: RunConfig, resume_from: Path | None, accelerator: Accelerator, console: Console) -> None:
    """Put aside what came after the checkpoint in the run's folder, and take back an old request to stop."""
    folder = Path(run.run_dir)
    if not accelerator.is_main_process:
        return
    (folder / STOP_FILE).unlink(missing_ok=True)
    if run.resume is None or (resume_from is None and not (folder / CONFIG).is_file()):
        return
    step = read_progress(resume_from).step if resume_from is not None else 0
    clean(folder)
    records, later = metrics.rewind(folder, step, say=console.warn), set_aside_after(folder, step)
    console.say(
        f"going on from {resume_from}" if resume_from else f"no whole checkpoint in {folder} yet: starting anew"
    )
    if records or later:
        console.say(f"set aside: {records} later records, later checkpoints of steps {later or 'none'}")


def _load_data(
    run: RunConfig, resume_from: Path | None, accelerator: Accelerator
) -> tuple[PreTrainedTokenizerBase, Corpus]:
    show_progress = accelerator.is_local_main_process and sys.stderr.isatty()
    if resume_from is None:
        tokenizer = load_tokenizer(run.data, progress=show_progress)
    else:
        tokenizer = AutoTokenizer.from_pretrained(resume_from)
    corpus = prepare(run.data, tokenizer, seed=run.train.seed, progress=show_progress)
    corpus.evaluated_blocks(run.eval.blocks)  # what it refuses, it should refuse before the first step
    return tokenizer, corpus


def _load_model(run: RunConfig, resume_from: Path | None, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    if resume_from is None:
        return build_model(run, tokenizer_size=len(tokenizer), eos_token_id=tokenizer.eos_token_id)
    return load_model(resume_from, dtype="float32", attn_implementation=run.model.attention)


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
    if data["train_tokens"]:
        budget += f" ({run.tokens / data['train_tokens']:.3g} passes over the text)"
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
