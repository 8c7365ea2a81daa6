"""One fake server per vendor's manners, each as that vendor's users reported it.

What it refuses, how it says so, how it answers and counts: `server.manner = vendors.o_series`, on real sockets, at any
concurrency.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from typing import Any

from tests.evaluators.server import REVIEW, ROLES, Answer

Manner = Callable[[dict[str, Any], int], Answer | None]
USAGE = {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110}


def prompt_of(body: dict[str, Any]) -> str:
    return "\n".join(message["content"] for message in body["messages"])


def text_for(body: dict[str, Any]) -> str:
    return ROLES if "From which perspectives" in prompt_of(body) else REVIEW


def completion(message: Any, *, usage: Any = USAGE, finish: Any = "stop", **choice: Any) -> Answer:
    message = {"role": "assistant", "content": message} if isinstance(message, str) else message
    whole = {"index": 0, "message": message, "finish_reason": finish, **choice}
    return Answer(
        {"id": "c", "object": "chat.completion", "created": 0, "model": "m", "choices": [whole], "usage": usage}
    )


def refusal(status: int, message: str, **more: Any) -> Answer:
    return Answer(
        {"error": {"message": message, "type": "invalid_request_error", "param": None, "code": None, **more}}, status
    )


def o_series(body: dict[str, Any], number: int) -> Answer:
    """OpenAI's reasoning models."""
    if "max_tokens" in body:
        words = (
            "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."
        )
        return refusal(400, words, param="max_tokens", code="unsupported_parameter")
    if body.get("temperature", 1) != 1:
        words = (
            "Unsupported value: 'temperature' does not support 0 with this model. Only the default (1) is supported."
        )
        return refusal(400, words, param="temperature", code="unsupported_value")
    if body.get("logprobs"):
        return refusal(403, "You are not allowed to request logprobs from this model.")
    details = {"reasoning_tokens": 192}
    return completion(
        text_for(body),
        usage={**USAGE, "completion_tokens": 202, "total_tokens": 302, "completion_tokens_details": details},
    )


def mistral(body: dict[str, Any], number: int) -> Answer:
    """Fields that it does not know are forbidden, all told at once; magistral's replies are lists of parts."""
    unknown = [name for name in ("seed", "logprobs", "top_logprobs") if name in body]
    if unknown:
        detail = [
            {
                "type": "extra_forbidden",
                "loc": ["body", name],
                "msg": "Extra inputs are not permitted",
                "input": body[name],
            }
            for name in unknown
        ]
        return Answer({"object": "error", "message": {"detail": detail}, "type": "invalid_request_error"}, 422)
    parts = [
        {"type": "thinking", "thinking": [{"type": "text", "text": "Score of Assistant 1: 1, perhaps?"}]},
        {"type": "text", "text": text_for(body)},
    ]
    return completion({"role": "assistant", "content": parts})


def gemini(body: dict[str, Any], number: int) -> Answer:
    """Errors in a list, thoughts in the total only."""
    if "seed" in body:
        words = 'Invalid JSON payload received. Unknown name "seed": Cannot find field.'
        return Answer([{"error": {"code": 400, "message": words, "status": "INVALID_ARGUMENT"}}], 400)
    return completion(text_for(body), usage={"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 2120})


def xai(body: dict[str, Any], number: int) -> Answer:
    """A safety check with 403, in words about permission and a key; thoughts outside of the completion."""
    if "anthrax" in prompt_of(body):
        code = "The caller does not have permission to execute the specified operation"
        return Answer({"code": code, "error": "Content violates usage guidelines. Team: T, API key ID: K"}, 403)
    details = {"reasoning_tokens": 1000}
    return completion(text_for(body), usage={**USAGE, "total_tokens": 1110, "completion_tokens_details": details})


def gemma(body: dict[str, Any], number: int) -> Answer:
    """A chat template without a system role, behind vLLM."""
    if any(message["role"] == "system" for message in body["messages"]):
        return Answer(
            {
                "object": "error",
                "message": "System role not supported",
                "type": "BadRequestError",
                "param": None,
                "code": 400,
            },
            400,
        )
    return completion(text_for(body))


def deepseek(body: dict[str, Any], number: int) -> Answer:
    """No JSON schema; thoughts in a field of their own."""
    if "response_format" in body:
        return refusal(400, "This response_format type is unavailable now")
    return completion({"role": "assistant", "content": text_for(body), "reasoning_content": "Score of Assistant 1: 3"})


def fireworks(body: dict[str, Any], number: int) -> Answer | None:
    """At most 5 likeliest tokens, and every token in bytes."""
    if body.get("top_logprobs", 0) > 5:
        return refusal(400, "top_logprobs must be between 0 and 5")
    text = "好的\nScore of Assistant 1: 8\nScore of Assistant 2: 6"
    tokens = [
        {
            "token": chr(byte),
            "bytes": [byte],
            "logprob": -0.1,
            "top_logprobs": [{"token": chr(byte), "bytes": [byte], "logprob": None if byte < 32 else -0.1}],
        }
        for byte in text.encode()
    ]
    return completion(text, logprobs={"content": tokens} if body.get("logprobs") else None)


def old(body: dict[str, Any], number: int) -> Answer:
    """A server from before max_completion_tokens, seeds and system messages, which tells one thing at a time."""
    for name in ("max_completion_tokens", "seed", "temperature", "response_format"):
        if name in body:
            return Answer({"detail": f"unknown field `{name}`"}, 422)
    return completion(text_for(body))


def after(calls: int, status: int, words: str, **more: Any) -> Manner:
    """Answers so many calls, and then refuses all."""
    return lambda body, number: completion(text_for(body)) if number < calls else refusal(status, words, **more)


def loading(seconds: float) -> Manner:
    """vLLM while it loads its model, from the first call on."""
    ready: list[float] = []

    def manner(body: dict[str, Any], number: int) -> Answer:
        ready.append(time.monotonic() + seconds)
        return refusal(503, "Model is loading") if time.monotonic() < ready[0] else completion(text_for(body))

    return manner


def limited(per_second: float, headers: dict[str, str] | None = None) -> Manner:
    """Refuses what comes faster."""
    lock, state = threading.Lock(), {"next": 0.0}

    def manner(body: dict[str, Any], number: int) -> Answer:
        with lock:
            now = time.monotonic()
            if now < state["next"]:
                return Answer(
                    {"error": {"message": "Rate limit reached", "type": "requests", "code": "rate_limit_exceeded"}},
                    429,
                    headers=headers or {},
                )
            state["next"] = max(now, state["next"]) + 1 / per_second
        return completion(text_for(body))

    return manner


def slow(seconds: float) -> Manner:
    def manner(body: dict[str, Any], number: int) -> Answer:
        plain = completion(text_for(body))
        return Answer(plain.body, wait_s=seconds)

    return manner


def events(body: dict[str, Any], number: int) -> Answer:
    """Streams, though nobody asked."""
    chunk = json.dumps({"choices": [{"index": 0, "delta": {"content": "8"}, "finish_reason": None}]})
    return Answer(f"data: {chunk}\n\ndata: [DONE]\n\n", kind="text/event-stream")
