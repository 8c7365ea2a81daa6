"""`accelerate launch lab/pretrain.py`: parse, build, train."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from accelerate import Accelerator
    from transformers import PreTrainedModel

    from lab.config import RunConfig
    from lab.console import Console
    from lab.data import Corpus

EXIT_ERROR = 1
EXIT_USAGE = 2


def main(argv: Sequence[str] | None = None, *, prog: str = "lab/pretrain.py") -> int:
    """Run one pre-training; the exit code is 0 when it is complete, 75 when it was asked to stop and has saved,
    2 for impossible settings, 1 for a run that cannot go on.
    """
    is_main = os.environ.get("RANK", "0") == "0"
    quieten()
    from lab.errors import ConfigError, UserError
    from lab.settings import parse
    from lab.signals import EXIT_STOPPED

    try:
        complete = pretrain(parse(sys.argv[1:] if argv is None else argv, prog=prog))
    except UserError as error:
        if is_main:
            print(f"error: {error}", file=sys.stderr, flush=True)
        return EXIT_USAGE if isinstance(error, ConfigError) else EXIT_ERROR
    return 0 if complete else EXIT_STOPPED


def pretrain(run: RunConfig) -> bool:
    """Train as a `RunConfig` says; every rank calls it. True when complete, False when asked to stop.

    Raises:
        UserError: settings, data or numbers with which the run cannot go on; the message says what to do.
    """
    from transformers import AutoTokenizer

    from lab import checkpoint, metrics, rundir
    from lab.console import Console
    from lab.data import load_tokenizer, prepare
    from lab.distributed import make_accelerator
    from lab.models import build_model
    from lab.settings import differences, load
    from lab.train import Trainer

    rundir.refuse_existing(run)
    accelerator = make_accelerator(run)
    is_main = accelerator.is_main_process
    console = Console(enabled=is_main)
    folder = Path(run.run_dir)
    resume_from = None
    if run.resume is not None:
        resume_from = checkpoint.find(folder, run.resume, say=console.warn)
        for line in differences(load(folder / rundir.CONFIG), run):
            console.warn(f"going on with another setting: {line}")
        if is_main:
            checkpoint.clean(folder)
            moved = metrics.rewind(folder, checkpoint.read_trainer(resume_from)["step"])
            console.say(f"going on from {resume_from}" + (f" ({moved} later records set aside)" if moved else ""))

    show_progress = accelerator.is_local_main_process and sys.stderr.isatty()
    if resume_from is None:
        tokenizer = load_tokenizer(run.data, progress=show_progress)
    else:
        tokenizer = AutoTokenizer.from_pretrained(resume_from)
    corpus = prepare(run.data, tokenizer, seed=run.train.seed, progress=show_progress)

    from accelerate.utils import set_seed

    set_seed(run.train.seed)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if resume_from is None:
            model = build_model(run, tokenizer_size=len(tokenizer), eos_token_id=tokenizer.eos_token_id)
        else:
            model = checkpoint.load_model(
                resume_from, dtype="float32", attn_implementation=run.model.attention
            )
    for warning in caught:
        if issubclass(warning.category, UserWarning):
            console.warn(str(warning.message))
    corpus.check_vocabulary(model.config.vocab_size)

    trainer = Trainer(run, model, corpus, tokenizer, accelerator, console, resume_from)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    derived = {
        "parameters": parameters,
        "steps": run.steps,
        "tokens_per_step": run.tokens_per_step,
        "tokens": run.tokens,
        "flops_per_token": trainer.flops_per_token,
        "flops": trainer.flops_per_token * run.tokens,
        "micro_batches_per_step": run.train.global_batch // (run.train.micro_batch * accelerator.num_processes),
    }
    if is_main:
        rundir.create(run, derived=derived, data=corpus.summary(), world_size=accelerator.num_processes)
        tokenizer.save_pretrained(folder / rundir.TOKENIZER)
        name = run.model.checkpoint or run.model.config or run.model.preset
        _introduce(run, model, corpus, accelerator, console, derived)
    accelerator.wait_for_everyone()
    return trainer.run()


def _introduce(
    run: RunConfig,
    model: PreTrainedModel,
    corpus: Corpus,
    accelerator: Accelerator,
    console: Console,
    derived: dict[str, Any],
) -> None:
    """Say what is about to be trained, and every quantity that follows from the settings."""
    import normalization
    from lab.console import count

    spec = normalization.spec(model)
    given = ", ".join(f"{key}={value}" for key, value in spec.options.items() if value is not None)
    name = run.model.checkpoint or run.model.config or run.model.preset
    data = corpus.summary()
    size = f"{count(data['train_tokens'])} tokens" if data.get("train_tokens") else "streamed"
    processes, micro_batches = accelerator.num_processes, derived["micro_batches_per_step"]
    lines = {
        "run": run.run_dir,
        "model": f"{name}: {model.config.num_hidden_layers} layers, {count(derived['parameters'])} parameters",
        "scheme": f"{spec.scheme}{f' ({given})' if given else ''}",
        "data": f"{' '.join(run.data.source)}: {size} to train on, {count(data['heldout_tokens'])} held out, vocabulary "
        f"{model.config.vocab_size:,}",
        "budget": f"{run.steps:,} steps x {run.tokens_per_step:,} tokens = {count(run.tokens)} tokens, "
        f"{count(derived['flops'], billion='G')}FLOP",
        "machine": f"{processes} process{'es' if processes > 1 else ''} on {accelerator.device.type}, "
        f"{run.train.precision}, {micro_batches} micro-batch{'es' if micro_batches > 1 else ''} of "
        f"{run.train.micro_batch} x {run.data.block_length} tokens per process and step",
    }
    for head, text in lines.items():
        console.say(f"{head:<8} {text}")
    if skipped := {reason: number for reason, number in data.get("skipped", {}).items() if number}:
        console.warn("skipped " + ", ".join(f"{number:,} x {reason}" for reason, number in skipped.items()))


def quieten() -> None:
    """Silence what other packages say at import or at every save, which no user of ours can act on."""
    import logging

    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    # Said on every machine without a GPU as soon as anything imports DeepSpeed.
    logging.getLogger("DeepSpeed").addFilter(lambda record: "Setting accelerator to CPU" not in record.getMessage())
    warnings.filterwarnings("ignore", category=FutureWarning)
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()


if __name__ == "__main__":
    sys.exit(main())
