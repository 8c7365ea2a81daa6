"""A local transformers model: batched, with its chat template, and the probability method."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evaluators.errors import ConfigError
from evaluators.judges import Abilities, Backend, CallError, judge
from evaluators.messages import Call, Message, Reply, folded
from evaluators.reading.ending import LAID
from evaluators.reading.probabilities import expectation
from evaluators.reading.thoughts import split
from evaluators.values import Usage

_SCORE_LINE = re.compile(r"^[^\n]{0,80}\bscore(?: of (?:the )?assistant [12])?[^\w\n:=]{0,8}[:=]", re.I | re.M)


@dataclass
class _Waiting:
    call: Call
    reply: asyncio.Future[Reply]


@judge("hf")
class HuggingFace:
    """`hf:PATH`: a folder or hub name of a causal LM. Deterministic given --seed, whatever is batched together.

    With --scores probabilities, the explanation is generated, then the score lines are laid before the model, and the
    score is its expectation under the model's probabilities of the digits.
    """

    worth_caching = True

    def __init__(self, argument: str, backend: Backend) -> None:
        # Late: nobody who asks a server should wait for torch.
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        if not argument:
            raise ConfigError("--judge hf: name a folder or a model of the hub, as in hf:my-model")
        device = backend.device or ("cuda" if torch.cuda.is_available() else "cpu")
        try:
            self._tokenizer = AutoTokenizer.from_pretrained(argument, padding_side="left")
            # fp32 on a CPU, where half precision is slow; the checkpoint's own elsewhere.
            dtype = torch.float32 if device == "cpu" else "auto"
            model, report = AutoModelForCausalLM.from_pretrained(argument, dtype=dtype, output_loading_info=True)
            if absent := sorted(report["missing_keys"]):
                raise ValueError(f"{len(absent)} weights of its config are missing, such as {absent[0]}")
            self._model = model.to(device).eval()
        except Exception as error:  # files, remote code, memory, a device that is not there
            reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
            raise ConfigError(f"--judge hf:{argument}: cannot be loaded: {reason}") from error
        if self._tokenizer.pad_token_id is None:
            self._tokenizer.pad_token = self._tokenizer.eos_token
        self.name = f"hf:{argument}"
        weights = _fingerprint(Path(argument)) or getattr(self._model.config, "_commit_hash", None) or "hub"
        number = f"{str(self._model.dtype).removeprefix('torch.')}:{self._model.device.type}"
        self.identity = f"hf:{argument}@{weights}:{number}:{backend.seed}"
        self._options = dict(backend.options)
        if self._options:
            self.identity += f" {json.dumps(self._options, sort_keys=True)}"
        self._context = backend.context
        self.concurrency: int | None = backend.batch
        self._batch = backend.batch
        self._seed = backend.seed
        self._torch = torch
        self._takes_system = True
        self._waiting: list[_Waiting] = []
        self._worker: asyncio.Task[None] | None = None
        self._digits = {number: self._digit(number) for number in range(10)}

    async def ask(self, call: Call) -> Reply:
        """One reply, from the next batch. Raises CallError for whatever goes wrong in making it."""
        waiting = _Waiting(call, asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._work())
        return await waiting.reply

    async def _work(self) -> None:
        await asyncio.sleep(0)  # everyone who is about to ask joins the batch
        while self._waiting:
            batch, self._waiting = self._waiting[: self._batch], self._waiting[self._batch :]
            for length in {waiting.call.sampling.max_tokens for waiting in batch}:
                await self._answer([waiting for waiting in batch if waiting.call.sampling.max_tokens == length])

    async def _answer(self, alike: Sequence[_Waiting]) -> None:
        """Settle every one of them; what fails together is tried one by one, so that a call fails by itself alone."""
        try:
            replies = await asyncio.to_thread(self._reply, [waiting.call for waiting in alike])
        except Exception as error:  # memory, templates, tokenizers, remote code: whatever it is, others go on
            if len(alike) > 1:
                for waiting in alike:
                    await self._answer([waiting])
            elif not alike[0].reply.done():
                reason = " ".join(str(error).split())[:200]
                alike[0].reply.set_exception(CallError(f"{type(error).__name__}: {reason}"))
            return
        for waiting, reply in zip(alike, replies, strict=True):
            if not waiting.reply.done():
                waiting.reply.set_result(reply)

    def _reply(self, calls: Sequence[Call]) -> list[Reply]:
        prompts = [self._prompt(call) for call in calls]
        texts, finishes, lengths = self._generate(prompts, calls)
        usages = [
            Usage(len(asked), length) for asked, length in zip(self._encode(prompts)["input_ids"], lengths, strict=True)
        ]
        replies = [Reply(*reply) for reply in zip(texts, usages, finishes, strict=True)]
        # Single responses have one score line, pairs two: only alike ones can be scored together.
        for count in (1, 2):
            # A reply that was cut off within its thoughts has not come to a judgement yet.
            rows = [row for row, call in enumerate(calls) if _scores_asked(call) == count and not replies[row].unclosed]
            if rows:
                scored = self._expected([(calls[row], prompts[row], texts[row]) for row in rows], count)
                for row, (text, expected) in zip(rows, scored, strict=True):
                    replies[row] = Reply(text, usages[row], LAID, expected)
        return replies

    def _generate(self, prompts: Sequence[str], calls: Sequence[Call]) -> tuple[list[str], list[str], list[int]]:
        """Texts, why they ended, and their lengths in tokens."""
        from transformers import LogitsProcessorList

        torch, tokenizer = self._torch, self._tokenizer
        inputs = self._encode(prompts, padding=True, return_tensors="pt").to(self._model.device)
        start = inputs["input_ids"].shape[1]
        sampler = _gumbel_sampler(torch, [_seed_of(self._seed, call) for call in calls], calls)
        with torch.inference_mode():
            output = self._model.generate(
                **inputs,
                max_new_tokens=calls[0].sampling.max_tokens,
                do_sample=False,
                logits_processor=LogitsProcessorList([sampler]),
                pad_token_id=tokenizer.pad_token_id,
                temperature=None,
                top_p=None,
                top_k=None,
                repetition_penalty=1.0,
            )[:, start:]
        ends = self._model.generation_config.eos_token_id
        ends = set(ends if isinstance(ends, list) else [ends]) | {tokenizer.eos_token_id}
        texts, finishes, lengths = [], [], []
        for row in output.tolist():
            stop = next((at for at, token in enumerate(row) if token in ends), None)
            kept = row if stop is None else row[:stop]
            texts.append(tokenizer.decode(kept, skip_special_tokens=True))
            finishes.append("length" if stop is None else "stop")
            lengths.append(len(kept))
        return texts, finishes, lengths

    def _expected(self, written: Sequence[tuple[Call, str, str]], count: int) -> list[tuple[str, tuple[float, ...]]]:
        """Lay the score lines before the model, after its explanation, for each (call, prompt, explanation)."""
        names = ["Score"] if count == 1 else ["Score of Assistant 1", "Score of Assistant 2"]
        texts = []
        for _, _, text in written:
            said = text.rfind(split(text).text)
            line = _SCORE_LINE.search(text, max(said, 0))
            texts.append((text[: line.start()] if line else text).rstrip())
        expected: list[tuple[float, ...]] = [()] * len(written)
        for name in names:
            laid = [f"{prompt}{text}\n{name}:" for (_, prompt, _), text in zip(written, texts, strict=True)]
            scores = self._scores(laid, [call.scale for call, _, _ in written])
            expected = [(*before, score) for before, score in zip(expected, scores, strict=True)]
            texts = [f"{text}\n{name}: {round(score)}" for text, score in zip(texts, scores, strict=True)]
        return list(zip(texts, expected, strict=True))

    def _scores(self, texts: Sequence[str], scales: Sequence[tuple[int, int]]) -> list[float]:
        """E[score] over the digits, as the token after a space or, in tokenizers without such, after the space."""
        spaced = all(token is not None for token in self._digits.values())
        plain = {number: self._tokenizer.encode(str(number), add_special_tokens=False)[-1] for number in range(10)}
        tokens = self._digits if spaced else plain
        inputs = self._encode([text if spaced else f"{text} " for text in texts], padding=True, return_tensors="pt")
        with self._torch.inference_mode():
            output = self._model.generate(
                **inputs.to(self._model.device),
                max_new_tokens=1,
                do_sample=False,
                output_logits=True,
                return_dict_in_generate=True,
                pad_token_id=self._tokenizer.pad_token_id,
                temperature=None,
                top_p=None,
                top_k=None,
            )
        logs = output.logits[0].float().log_softmax(-1)
        return [
            expectation({number: float(row[tokens[number]]) for number in range(low, high + 1)})
            for row, (low, high) in zip(logs, scales, strict=True)
        ]

    def _digit(self, number: int) -> int | None:
        """The token " 7", if the tokenizer has one."""
        tokens = self._tokenizer.encode(f" {number}", add_special_tokens=False)
        return tokens[0] if len(tokens) == 1 else None

    def _prompt(self, call: Call) -> str:
        if not self._tokenizer.chat_template:
            return "\n\n".join(self._without_specials(message.content) for message in call.messages) + "\n\n"
        messages = call.messages if self._takes_system else folded(call.messages)
        try:
            return self._rendered(messages)
        except Exception:
            # Gemma's and the first Mistral's templates know no system role, and say so by an exception of their own.
            if folded(messages) == messages:
                raise
            text = self._rendered(folded(messages))
            self._takes_system = False
            return text

    def _rendered(self, messages: Sequence[Message]) -> str:
        turns = [{"role": message.role, "content": self._without_specials(message.content)} for message in messages]
        return self._tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True, **self._options)

    def _without_specials(self, text: str) -> str:
        """A text that names this tokenizer's special tokens must not become them."""
        for token in self._tokenizer.all_special_tokens:
            if len(token) > 1:
                text = text.replace(token, f"{token[0]} {token[1:]}")
        return text

    def _encode(self, prompts: Sequence[str], **options: Any) -> Any:
        # A chat template has written the special tokens already.
        return self._tokenizer(list(prompts), add_special_tokens=not self._tokenizer.chat_template, **options)

    def coordinates(self, call: Call) -> tuple[object, ...]:
        """Messages and sampling say it all."""
        return ()

    async def abilities(self) -> Abilities:
        """The model's context; it follows no schema."""
        known = self._context or getattr(self._model.config, "max_position_embeddings", None)
        return Abilities(known, structured=False)

    def count_tokens(self, text: str) -> int:
        """By its own tokenizer."""
        return len(self._tokenizer.encode(text, add_special_tokens=False))

    async def close(self) -> None:
        """Wait for the batch that is under way."""
        if self._worker is not None:
            await asyncio.wait([self._worker])


def _scores_asked(call: Call) -> int:
    """Scores to be had by probabilities: 0 where they are not asked for."""
    if not call.sampling.probabilities or call.place.task != "review":
        return 0
    return 1 if call.place.pair.is_single else 2


def _gumbel_sampler(torch: Any, seeds: Sequence[int], calls: Sequence[Call]) -> Any:
    """argmax(logits / T + Gumbel noise) is a draw from softmax(logits / T); each row has a generator of its own."""
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    temperatures = [1.0 if call.sampling.temperature is None else call.sampling.temperature for call in calls]

    def process(_: Any, logits: Any) -> Any:
        rows = []
        for row, generator, temperature in zip(logits, generators, temperatures, strict=True):
            if temperature == 0:
                rows.append(row)
                continue
            uniform = torch.rand(row.shape, generator=generator).clamp_min(1e-20).to(row.device)
            rows.append(row.float() / temperature - torch.log(-torch.log(uniform)))
        return torch.stack([row.to(logits.dtype) for row in rows])

    return process


def _seed_of(seed: int, call: Call) -> int:
    draw = (call.draw,) if call.draw else ()
    text = repr((seed, call.messages, call.place.index, call.attempt, *draw))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:7])


def _fingerprint(path: Path) -> str | None:
    """Of the files of a folder, by name, size and time: weights that change are another judge. None: it is none."""
    if not path.is_dir():
        return None
    files = sorted(item for item in path.iterdir() if item.suffix in (".json", ".safetensors", ".bin", ".jinja"))
    told = [(item.name, item.stat().st_size, item.stat().st_mtime_ns) for item in files]
    return hashlib.sha256(repr(told).encode()).hexdigest()[:16]
