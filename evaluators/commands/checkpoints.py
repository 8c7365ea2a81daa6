"""Answers of a trained checkpoint to a list of prompts: greedy, so that the same checkpoint always answers the same."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from evaluators.errors import RunError


def answers(checkpoint: Path, prompts: Sequence[str], *, max_new_tokens: int, flag: str) -> Iterator[str]:
    """What the model goes on with after each prompt, without the prompt; with its chat template if it has one.

    Raises:
        RunError: the folder is no checkpoint or a damaged one, has no tokenizer, or a prompt leaves no room in the
            model's context.
    """
    import torch
    from transformers import AutoTokenizer
    from transformers.utils import logging as transformers_logging

    # The one place where evaluators touches it: its loader knows the model types of checkpoints trained here, and
    # refuses damaged ones. The judges themselves need none of it.
    from lab.checkpoint import load_model
    from lab.errors import UserError

    if not (checkpoint / "config.json").is_file():
        raise RunError(
            f"{flag} {checkpoint}: holds no config.json; name a checkpoint, such as RUN/checkpoints/step-000300"
        )
    transformers_logging.disable_progress_bar()  # a bar for each load would stand between our lines
    # A run keeps one tokenizer for all its checkpoints.
    homes = [checkpoint, checkpoint.parent.parent / "tokenizer"]
    home = next((home for home in homes if (home / "tokenizer_config.json").is_file()), None)
    if home is None:
        raise RunError(f"{flag} {checkpoint}: has no tokenizer, in itself or in {homes[1]}")
    try:
        model = load_model(checkpoint).eval()
        tokenizer = AutoTokenizer.from_pretrained(home)
    except UserError as error:
        raise RunError(f"{flag} {error}") from error
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise RunError(f"{flag} {checkpoint}: cannot be loaded: {(str(error).splitlines() or ['?'])[0]}") from error
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model.to(device)
    longest = getattr(model.config, "max_position_embeddings", None)
    for number, prompt in enumerate(prompts, start=1):
        text = prompt
        if tokenizer.chat_template:
            message = [{"role": "user", "content": prompt}]
            text = tokenizer.apply_chat_template(message, tokenize=False, add_generation_prompt=True)
        inputs = tokenizer(text, return_tensors="pt", return_token_type_ids=False).to(device)
        size = inputs["input_ids"].shape[1]
        if longest is not None and size + max_new_tokens > longest:
            raise RunError(
                f"--prompts: prompt {number} has {size} tokens; with --max-new-tokens {max_new_tokens} that is more "
                f"than the {longest} of {checkpoint}"
            )
        with torch.inference_mode():
            ids = model.generate(
                **inputs,
                max_new_tokens=max_new_tokens,
                do_sample=False,
                pad_token_id=tokenizer.pad_token_id or tokenizer.eos_token_id,
            )
        yield tokenizer.decode(ids[0, size:], skip_special_tokens=True)
