"""One run from its settings: find where to go on, data, model, trainer; say what is about to happen; train."""

from __future__ import annotations

import dataclasses
import math
import sys
import warnings
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

import normalization
from lab.checkpoint import load_model, manifest
from lab.checkpoint.folder import FOLDER, SUPERSEDED, clean
from lab.checkpoint.retention import bytes_set_aside, keeps_no_best, set_aside_after
from lab.config.read import load
from lab.config.resume import differences
from lab.config.sections import RunConfig
from lab.data import Corpus, load_tokenizer, prepare
from lab.errors import ConfigError
from lab.model.build import build_model, source_of
from lab.model.ids import agree_on_ids
from lab.monitors import check as check_monitors
from lab.parallel import launched
from lab.parallel.accelerator import describe, make_accelerator
from lab.parallel.collectives import on_main, together
from lab.parallel.heartbeat import Heartbeat
from lab.parallel.sharding import whole_shape
from lab.runfolder import metrics
from lab.runfolder.console import Console
from lab.runfolder.folder import CONFIG, TOKENIZER, refuse_existing
from lab.runfolder.folder import create as create_run_folder
from lab.runfolder.text import count
from lab.runfolder.writer import Writer
from lab.training.loop import Trainer
from lab.training.process import Process
from lab.training.signals import STOP_FILE, StopRequest
from lab.training.start import Start, refuse_others, settings_of


def pretrain(run: RunConfig, settings: Callable[..., RunConfig] | None = None) -> bool:
    """Train as the settings say; every rank calls it.

    Args:
        run: the settings.
        settings: gives them anew, as `lab.training.start.parse` does, once the checkpoint that they depend on can be
            verified; left out, they are what `run` says.

    Returns:
        True when the run is complete, False when it was asked to stop and has saved a checkpoint.

    Raises:
        UserError: settings, data or numbers with which the run cannot start or go on; the message says what to do.
    """
    if run.resume is None:
        refuse_existing(Path(run.run_dir))
    check_monitors(run.monitors)
    with launched.only_places() as not_read:
        return _pretrain(run, settings, not_read)


def _pretrain(run: RunConfig, settings: Callable[..., RunConfig] | None, not_read: Sequence[str]) -> bool:
    accelerator = make_accelerator(run)
    run = dataclasses.replace(run, parallel=describe(accelerator, run))
    console = Console(enabled=accelerator.is_main_process)
    for line in not_read:
        console.warn(line)
    # Signals are given back last: until then one that comes again changes nothing.
    with ExitStack() as signals, Heartbeat(run.train.hang_timeout).watching() as heartbeat, ExitStack() as folder:

        def begin() -> Start:
            folder.enter_context(Writer(Path(run.run_dir), console.say))
            if settings is None or run.resume is None:
                start = Start.of(run, console.warn)
            else:
                found = settings(check=manifest.verify, say=console.warn)
                start = Start.of(dataclasses.replace(found, parallel=run.parallel), say=lambda text: None)
            _tidy(start, console)
            return start

        heartbeat.at("finding the checkpoint", limited=False)
        start = on_main(begin)
        together(lambda: refuse_others(run, start.run))
        run = dataclasses.replace(start.run, parallel=run.parallel)

        console.say(f"preparing the data (tokenised text is kept in {run.data.cache_root})")
        heartbeat.at("preparing the data", limited=False)
        tokenizer, corpus = together(lambda: _load_data(run, start, accelerator))

        heartbeat.at("building the model", limited=False)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", UserWarning)
            model = together(lambda: _load_model(run, start, tokenizer))
        for warning in caught:
            console.warn(str(warning.message))
        corpus.check_vocabulary(model.config.vocab_size)
        agree_on_ids(model, tokenizer)

        heartbeat.at("sharing the model out")
        trainer = Trainer(run, model, corpus, tokenizer, Process(accelerator, console, heartbeat), start.checkpoint)
        derived = _derived(run, trainer, accelerator)

        def create() -> None:
            if accelerator.is_main_process:
                create_run_folder(
                    run,
                    derived=derived,
                    data=corpus.summary(),
                    world_size=accelerator.num_processes,
                    session=start.session(),
                )
                tokenizer.save_pretrained(Path(run.run_dir) / TOKENIZER)

        together(create)
        if accelerator.is_main_process:
            _introduce(run, model, corpus, accelerator, console, derived)
        stop_request = StopRequest(Path(run.run_dir), looks_for_file=accelerator.is_main_process)
        return trainer.run(signals.enter_context(stop_request))


def _tidy(start: Start, console: Console) -> None:
    """Put aside what came after the checkpoint in the run's folder, and take back an old request to stop."""
    folder = Path(start.run.run_dir)
    (folder / STOP_FILE).unlink(missing_ok=True)
    if start.checkpoint is not None:
        console.say(f"going on from {start.checkpoint}")
    elif (folder / CONFIG).is_file():
        console.say(f"no checkpoint in {folder} yet: starting anew")
    for line in start.changed:
        console.warn(f"going on with another setting: {line}")
    if start.branch is None and (folder / CONFIG).is_file():
        if start.checkpoint is not None:
            _tell_left(start, load(folder / CONFIG), console)
        clean(folder, console.warn)
        records, later = (
            metrics.rewind(folder, start.position.step, say=console.warn),
            set_aside_after(folder, start.position.step),
        )
        if records or later:
            console.say(f"set aside: {records} later records, later checkpoints of steps {later or 'none'}")
        if size := bytes_set_aside(folder):
            console.say(f"{folder / FOLDER / SUPERSEDED} holds {count(size)}B that nothing deletes by itself")


def _tell_left(start: Start, last: RunConfig, console: Console) -> None:
    """Say which settings a session changed that went on from this checkpoint before, if they are not taken over."""
    assert start.checkpoint is not None
    with suppress(ConfigError):
        left = {line.partition(":")[0] for line in differences(start.run, last)}
        for line in differences(settings_of(start.checkpoint), last):
            if line.partition(":")[0] in left:
                console.say(f"an earlier session went on from here with {line}; give the flag to have it again")


def _load_data(run: RunConfig, start: Start, accelerator: Accelerator) -> tuple[PreTrainedTokenizerBase, Corpus]:
    show_progress = accelerator.is_local_main_process and sys.stderr.isatty()
    if start.checkpoint is None:
        tokenizer = load_tokenizer(run.data, progress=show_progress)
    else:
        tokenizer = AutoTokenizer.from_pretrained(start.checkpoint)
    corpus = prepare(run.data, tokenizer, seed=run.train.seed, progress=show_progress)
    corpus.evaluated_blocks(run.eval.blocks)  # what it refuses, it should refuse before the first step
    return tokenizer, corpus


def _load_model(run: RunConfig, start: Start, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    if start.checkpoint is None:
        return build_model(run, tokenizer_size=len(tokenizer), eos_token_id=tokenizer.eos_token_id)
    model = load_model(start.checkpoint, dtype="float32", attn_implementation=run.model.attention)
    carried, wanted = normalization.spec(model), run.normalization.spec()
    if carried.to_dict() != wanted.to_dict():
        raise ConfigError(
            f"--normalization.scheme {wanted.scheme}: the model in {start.checkpoint} has "
            f"{carried.to_dict()}, not {wanted.to_dict()} as its {CONFIG} says; one of the two is not its own"
        )
    return model


def _derived(run: RunConfig, trainer: Trainer, accelerator: Accelerator) -> dict[str, Any]:
    """What follows from the settings."""
    return {
        "parameters": sum(math.prod(whole_shape(parameter)) for parameter in trainer.learner.bare.parameters()),
        "steps": trainer.budget.steps,
        "tokens_per_step": run.tokens_per_step,
        "tokens": trainer.budget.tokens,
        "flops_per_token": trainer.logbook.flops_per_token,
        "flops": trainer.logbook.flops_per_token * trainer.budget.tokens,
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
        budget = f"{derived['steps']:,} steps x {tokens_per_step} = {count(derived['tokens'])} tokens"
    else:
        budget = f"{derived['tokens']:,} tokens in {derived['steps']:,} steps of {tokens_per_step}"
    given = ", ".join(f"{key}={value}" for key, value in spec.options.items() if value is not None)
    data = corpus.summary()
    if data["train_tokens"]:
        budget += f" ({derived['tokens'] / data['train_tokens']:.3g} passes over the text)"
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
    if (best := keeps_no_best(run.eval.every, run.checkpoint, derived["steps"])) is not None:
        console.warn(best)
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
