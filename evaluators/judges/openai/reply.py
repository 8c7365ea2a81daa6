"""What is in a completion, whatever its shape: servers differ."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from evaluators.errors import RunError
from evaluators.judges import CallError, estimated_tokens
from evaluators.judges.openai.told import Told, from_json, one_line, shortened
from evaluators.judges.openai.usage import completion_tokens, reported
from evaluators.messages import Call, Reply
from evaluators.reading.probabilities import expected_score, tokens_from
from evaluators.reading.scores import Scores, parse_scores
from evaluators.reading.thoughts import from_message, split
from evaluators.values import Usage

_STOPPED = re.compile(r"stop|eos(?:_token)?|end(?:_turn)?|stop_sequence|completed?|finished")
_CUT = re.compile(r"(?:model_)?length|max_(?:output_|completion_)?tokens|token_limit|incomplete")
_WITHHELD = re.compile(
    r"content[_-]filter(?:ed)?|safety|prohibited_content|recitation|blocklist|sensitive|moderation|refusal|spii|language"
    r"|guardrail_intervened|model_armor"
)
_BROKEN = re.compile(r"error|abort(?:ed)?|cancell?ed|timeout|network_error|insufficient_system_resource")


def error_in(body: Any) -> Told | None:
    """An error where a completion should be, or in it: `{"error": {...}}` with status 200."""
    if not isinstance(body, Mapping):
        return None
    choice = _choice(body)
    found = next((error for holder in (body, choice) if (error := _get(holder, "error"))), None)
    if found and not _said(_get(choice, "message"))[0]:
        return from_json({"error": found}, 200)
    if "choices" not in body and any(body.get(name) for name in ("detail", "message", "msg")):
        return from_json(body, 200)
    return None


def read(body: Any, call: Call, judge: str, *, adapted: tuple[str, ...]) -> Reply:
    """The reply in a completion.

    Raises:
        CallError: there is none; says what there is in its place. Nothing is billed that was not reported.
        RunError: token probabilities were asked for, and there are none.
    """
    message, choice = _get(_choice(body), "message"), _choice(body)
    usage = reported(_get(body, "usage") or _get(body, "usageMetadata"))
    if not isinstance(message, Mapping):
        raise CallError("the reply holds no message", retry=True, usage=usage)
    text, thoughts = _said(message)
    finish = _finish(choice, body, call)
    if finish == "withheld":
        raise CallError("the server's content filter withheld the reply", kind="moderated", usage=usage)
    if finish and _BROKEN.fullmatch(finish):
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
        adapted=adapted,
    )


def _choice(body: Any) -> Any:
    choices = _get(body, "choices")
    return choices[0] if isinstance(choices, list) and choices else None


def _said(message: Any) -> tuple[str, str]:
    """Text and thoughts."""
    return from_message(message) if isinstance(message, Mapping) else ("", "")


def _nothing(message: Mapping[str, Any], thoughts: str, usage: Usage | None) -> CallError:
    calls = message.get("tool_calls") or message.get("function_call")
    if calls:
        name = _get(_get(calls[0] if isinstance(calls, list) else {"function": calls}, "function"), "name")
        return CallError(f"the model called a tool ({one_line(str(name))[:60]}) in place of an answer", usage=usage)
    if thoughts:
        field = next((name for name in ("reasoning_content", "reasoning", "thinking") if message.get(name)), "content")
        return CallError(f"the reply holds only thoughts ({field}), and no text", usage=usage)
    return CallError("the reply is empty", retry=True, usage=usage)


def _finish(choice: Any, body: Any, call: Call) -> str | None:
    """`stop`, `length` for what was cut off whatever it is called, `withheld`, or what the server says."""
    said = _get(choice, "finish_reason")
    finish = said.lower() if isinstance(said, str) else None
    if finish and _WITHHELD.fullmatch(finish):
        return "withheld"
    if (finish and _CUT.fullmatch(finish)) or completion_tokens(_get(body, "usage")) >= call.sampling.max_tokens:
        return "length"
    return "stop" if finish and _STOPPED.fullmatch(finish) else finish


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
    said = split(text).text
    count = 1 if call.place.pair.is_single else 2
    scores = parse_scores(said, call.scale, count=count, structured=call.schema is not None)
    known = tokens_from(tokens)
    return expected_score(said, scores.spans, known, call.scale) if known and isinstance(scores, Scores) else None


def _get(value: Any, name: str) -> Any:
    return value.get(name) if isinstance(value, Mapping) else None
