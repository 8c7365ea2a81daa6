"""For test_accumulation.py: gradients of accumulated micro-batches, against their sums in fp32 and in bf16."""

from __future__ import annotations

import json
import sys
from contextlib import nullcontext
from pathlib import Path

import torch
from deepspeed.utils import safe_get_full_grad
from transformers import LlamaForCausalLM

from lab.config.read import parse
from lab.model.build import build_model
from lab.model.loss import token_loss_sum
from lab.parallel import launched
from lab.parallel.accelerator import describe, make_accelerator
from lab.parallel.sharding import sharding_of
from lab.training.optim import build_optimizer

MICRO_BATCHES, WORLD = 8, 2


def main(out: str, *flags: str) -> None:
    run = parse(flags, prog="test")
    with launched.only_places():
        accelerator = make_accelerator(run)
    rank = accelerator.process_index
    model = build_model(run, tokenizer_size=97, eos_token_id=None).train()
    names = [name for name, _ in model.named_parameters()]
    optimizer = build_optimizer(model, run.optim, accelerator.device)
    prepared, optimizer = accelerator.prepare(model, optimizer)
    sharding = sharding_of(accelerator, prepared, optimizer)
    tokens = torch.randint(0, 97, (MICRO_BATCHES, WORLD, 2, 16), generator=torch.Generator().manual_seed(1))
    engine = prepared if sharding.name.startswith("zero") else None

    for number in range(MICRO_BATCHES):
        last = number == MICRO_BATCHES - 1
        with nullcontext() if engine or last else accelerator.no_sync(prepared):
            ids = tokens[number, rank]
            loss = token_loss_sum(prepared(input_ids=ids, use_cache=False).logits, ids)
            if engine is None:
                accelerator.backward(loss)
            else:
                engine.backward(loss, scale_wrt_gas=False)
                if not last:
                    engine.step()
    ours = {
        name: (safe_get_full_grad(parameter) if engine else parameter.grad.full_tensor()).float().clone()
        for name, parameter in zip(names, model.parameters(), strict=True)
    }
    types = {str(sharding.weight(parameter).dtype) for parameter in model.parameters()}

    # The same micro-batches in one process, each alone, with bf16 weights (and no bf16 buffer); ranks average.
    alone = LlamaForCausalLM(model.config).train()
    for mine, parameter in zip(alone.parameters(), model.parameters(), strict=True):
        mine.data = sharding.whole(parameter).bfloat16()
    exact = {name: torch.zeros_like(gradient) for name, gradient in ours.items()}
    rounded = {name: torch.zeros_like(gradient, dtype=torch.bfloat16) for name, gradient in ours.items()}
    for micro in tokens:
        for ids in micro:
            alone.zero_grad()
            token_loss_sum(alone(input_ids=ids, use_cache=False).logits, ids).backward()
            for name, parameter in alone.named_parameters():
                exact[name] += parameter.grad.float() / WORLD
                rounded[name] += parameter.grad / WORLD

    def error(found: dict[str, torch.Tensor]) -> float:
        squares = sum(float((found[name].float() - exact[name]).square().sum()) for name in names)
        return (squares / sum(float(gradient.square().sum()) for gradient in exact.values())) ** 0.5

    if rank == 0:
        content = {
            "ours": error(ours),
            "bf16": error(rounded),
            "weights": sorted(types),
            "told": vars(describe(accelerator, run)),
        }
        Path(out).write_text(json.dumps(content))
    accelerator.wait_for_everyone()
    accelerator.end_training()


if __name__ == "__main__":
    main(*sys.argv[1:])
