"""What is in a completion, whatever its shape: servers differ."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from evaluators.errors import RunError
from evaluators.judges import CallError, estimated_tokens
from evaluators.judges.openai.told import Told, from_json, one_line, shortened
from evaluators.judges.openai.usage import completion_tokens, reported
from evaluators.messages import Call, Reply
from evaluators.parsing import Scores, parse_scores
from evaluators.probabilities import Token, expected_score
from evaluators.values import Usage

_STOPPED = ("stop", "eos", "eos_token", "end_turn", "stop_sequence", "complete", "completed", "finished", "end")
_CUT = (
    "length",
    "max_tokens",
    "max_output_tokens",
    "model_length",
    "max_completion_tokens",
    "token_limit",
    "incomplete",
)
_WITHHELD = (
    *(
        "content_filter",
        "content-filter",
        "content_filtered",
        "safety",
        "prohibited_content",
        "recitation",
        "blocklist",
    ),
    *("sensitive", "moderation", "refusal", "guardrail_intervened", "spii", "language", "model_armor"),
)
_BROKEN = (
    "error",
    "abort",
    "aborted",
    "cancelled",
    "canceled",
    "timeout",
    "network_error",
    "insufficient_system_resource",
)
_THOUGHTS = ("reasoning_content", "reasoning", "thinking", "thoughts")


def error_in(body: Any) -> Told | None:
    """An error where a completion should be, or in it: `{"error": {...}}` with status 200."""
    if not isinstance(body, Mapping):
        return None
    choice = _choice(body)
    for holder in (body, choice):
        if isinstance(holder, Mapping) and holder.get("error") and not _text(_get(holder, "message"))[0]:
            if holder is body and _text(_get(choice, "message"))[0]:
                continue
            return from_json({"error": holder["error"]}, 200)
    if "choices" not in body and any(body.get(name) for name in ("detail", "message", "msg")):
        return from_json(body, 200)
    return None


def read(body: Any, call: Call, judge: str) -> Reply:
    """The reply in a completion.

    Raises:
        CallError: there is none; says what there is in its place. Nothing is billed that was not reported.
        RunError: token probabilities were asked for, and there are none.
    """
    message, choice = _get(_choice(body), "message"), _choice(body)
    usage = reported(_get(body, "usage") or _get(body, "usageMetadata"))
    if not isinstance(message, Mapping):
        raise CallError("the reply holds no message", retry=True, usage=usage)
    text, thoughts = _text(message)
    finish = _finish(choice, body, call)
    if finish == "withheld":
        raise CallError("the server's content filter withheld the reply", kind="moderated", usage=usage)
    if finish in _BROKEN:
        raise CallError(f"the reply broke off ({finish})", retry=True, usage=usage)
    if not text.strip():
        if refusal := message.get("refusal"):
            told = shortened(one_line(str(refusal)))
            raise CallError(f"the model refuses: {told}", kind="moderated", usage=usage)
        if finish != "length":
            raise _nothing(message, thoughts, usage)
    return Reply(
        text,
        usage or _estimate(call, text),
        finish,
        _expected(text, choice, call, judge),
        thoughts=thoughts,
    )


def _choice(body: Any) -> Any:
    choices = _get(body, "choices")
    return choices[0] if isinstance(choices, list) and choices else None


def _text(message: Any) -> tuple[str, str]:
    """What was said and what was thought, as text that can be stored and sent."""
    content = _get(message, "content")
    said, thought = ([content], []) if isinstance(content, str) else _of_parts(content)
    for name in _THOUGHTS:
        value = _get(message, name)
        if isinstance(value, str) and value and value not in thought:
            thought.append(value)
    return _storable("".join(said)), _storable("\n".join(thought))


def _of_parts(content: Any) -> tuple[list[str], list[str]]:
    said: list[str] = []
    thought: list[str] = []
    for part in content if isinstance(content, list) else ():
        if isinstance(part, str):
            said.append(part)
        elif isinstance(part, Mapping):
            kind = part.get("type")
            if isinstance(part.get("text"), str):
                (thought if kind in _THOUGHTS else said).append(part["text"])
            elif kind in _THOUGHTS:
                inner = part.get(kind)
                thought.extend([inner] if isinstance(inner, str) else _of_parts(inner)[0])
    return said, thought


def _storable(text: str) -> str:
    """A lone half of a surrogate pair, as servers that cut an emoji send, can be neither sent nor stored."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _nothing(message: Mapping[str, Any], thoughts: str, usage: Usage | None) -> CallError:
    calls = message.get("tool_calls") or message.get("function_call")
    if calls:
        name = _get(_get(calls[0] if isinstance(calls, list) else {"function": calls}, "function"), "name")
        return CallError(f"the model called a tool ({one_line(str(name))[:60]}) in place of an answer", usage=usage)
    if thoughts:
        field = next((name for name in _THOUGHTS if message.get(name)), "content")
        return CallError(f"the model only thought: the reply holds {field} and no text", usage=usage)
    return CallError("the reply is empty", retry=True, usage=usage)


def _finish(choice: Any, body: Any, call: Call) -> str | None:
    """`stop`, `length` for what was cut off whatever it is called, `withheld`, or what the server says."""
    said = _get(choice, "finish_reason")
    finish = said.lower() if isinstance(said, str) else None
    if finish in _WITHHELD:
        return "withheld"
    if finish in _CUT or completion_tokens(_get(body, "usage")) >= call.sampling.max_tokens:
        return "length"
    return "stop" if finish in _STOPPED else finish


def _estimate(call: Call, text: str) -> Usage:
    asked = sum(estimated_tokens(message.content) for message in call.messages)
    return Usage(asked, estimated_tokens(text), estimated=True)


def _expected(text: str, choice: Any, call: Call, judge: str) -> tuple[float, ...] | None:
    """None where they are not asked for, or the tokens do not spell the scores of the text."""
    if not call.sampling.probabilities or call.place.task != "review" or not text.strip():
        return None
    tokens = _get(_get(choice, "logprobs"), "content")
    if not isinstance(tokens, list) or not tokens:
        raise RunError(f"{judge} gives no token probabilities; use --scores text")
    scores = parse_scores(text, call.scale, count=1 if call.place.pair.is_single else 2)
    if not isinstance(scores, Scores):
        return None
    return expected_score(text, scores.spans, _tokens(tokens), call.scale)


def _tokens(entries: Sequence[Any]) -> list[Token]:
    return [Token(str(_get(entry, "token") or ""), _top(_get(entry, "top_logprobs"))) for entry in entries]


def _top(entries: Any) -> dict[str, float]:
    """A token without a number (`logprob: null`) has no probability that is known."""
    found = {}
    for entry in entries if isinstance(entries, list) else ():
        token, value = _get(entry, "token"), _get(entry, "logprob")
        if (
            isinstance(token, str)
            and isinstance(value, (int, float))
            and not isinstance(value, bool)
            and not math.isnan(value)
        ):
            found[token] = float(value)
    return found


def _get(value: Any, name: str) -> Any:
    return value.get(name) if isinstance(value, Mapping) else None
