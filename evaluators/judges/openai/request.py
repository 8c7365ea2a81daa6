"""The request, as a server wants it: what was asked for, without what this server has refused."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from evaluators.errors import ConfigError
from evaluators.judges.openai.told import Told
from evaluators.messages import Call, folded

TOP = 20
FEWER_TOP = 5
"""Likeliest tokens that are asked for at each place, and that servers which allow less than 20 allow."""
_LIMITS = ("max_tokens", "max_completion_tokens")
_RESERVED = ("messages", "model", "stream", "n", *_LIMITS)
_NOT_IN_BODY = ("extra_headers", "extra_query")
_MENTIONS = {
    "limit": re.compile(r"\bmax_(?:completion_)?tokens\b", re.IGNORECASE),
    "seed": re.compile(r"\bseeds?\b", re.IGNORECASE),
    "temperature": re.compile(r"\btemperature\b", re.IGNORECASE),
    "logprobs": re.compile(r"\b(?:top_)?log_?probs?\b", re.IGNORECASE),
    "system": re.compile(
        r"\b(?:system|developer)['\"`]?[ _-](?:role|messages?|prompts?|instructions?)\b|['\"`]system['\"`]"
        r"|\broles?\b.{0,30}\bsystem\b|roles must alternate|only user and assistant roles",
        re.IGNORECASE,
    ),
    "schema": re.compile(
        r"response_?format|response format|json_?(?:schema|object|mode)|json schema|structured[ _]outputs?"
        r"|\bschema\b|guided_?(?:json|decoding)|\bgrammar\b|generate json|json_validate_failed",
        re.IGNORECASE,
    ),
}
_REFUSES = re.compile(
    r"\b(?:un|not? )?(?:support|allow|permit|recogni[sz]|enabl|accept|implement|available)\w*"
    r"|\bunknown\b|\bunexpected\b|\binvalid\b|\bonly\b|\bmust\b|n't\b|\bcannot\b|\bextra\b|\bdeprecated\b",
    re.IGNORECASE,
)
_STATUSES = (400, 422)
_DOUBTFUL_STATUSES = (403, 404, 500, 501)
"""With these, something else may be meant: the words must say that something is not taken."""


@dataclass(frozen=True)
class Manners:
    """How a server wants to be asked."""

    limit: str = "max_tokens"
    """Name of the parameter that bounds a reply."""
    other_limit: str | None = "max_completion_tokens"
    """What to try if that name is refused; None: both were."""
    without: frozenset[str] = frozenset()
    top: int = TOP
    system: bool = True

    def learned_from(self, used: Manners) -> Manners:
        """Together with those with which a call has worked."""
        named = used if used.other_limit is None else self
        return Manners(
            named.limit,
            named.other_limit,
            self.without | used.without,
            min(self.top, used.top),
            self.system and used.system,
        )

    def after(self, told: Told, request: Mapping[str, Any], prompt: str) -> Manners | None:
        """Those to try after a refusal; None where it is about nothing that this request has and could do without."""
        better = self
        if "seed" in request and _is_about("seed", told, prompt):
            better = replace(better, without=better.without | {"seed"})
        if "temperature" in request and _is_about("temperature", told, prompt):
            better = replace(better, without=better.without | {"temperature"})
        if "logprobs" in request and _is_about("logprobs", told, prompt):
            fewer = self.top > FEWER_TOP
            better = replace(better, top=FEWER_TOP) if fewer else replace(better, without=better.without | {"logprobs"})
        if request["messages"][0]["role"] == "system" and _is_about("system", told, prompt):
            better = replace(better, system=False)
        if better is self and self.other_limit is not None and _is_about("limit", told, prompt):
            better = replace(better, limit=self.other_limit, other_limit=None)
        return None if better == self else better

    def differences(self, call: Call) -> tuple[str, ...]:
        """What a call that asks for more is asked without, in words."""
        sampling = call.sampling
        scored = sampling.probabilities and call.place.task == "review"
        found = {
            f"{self.limit} in place of max_tokens": self.limit != "max_tokens",
            "no seed": "seed" in self.without and sampling.seed is not None,
            "no temperature": "temperature" in self.without and sampling.temperature is not None,
            f"top_logprobs {self.top}": scored and self.top < TOP,
            "the system message in the first message": not self.system and call.messages[0].role == "system",
        }
        return tuple(words for words, holds in found.items() if holds)


def is_about_schema(told: Told, prompt: str) -> bool:
    """Whether it is the JSON schema that was refused."""
    return _is_about("schema", told, prompt)


def _is_about(name: str, told: Told, prompt: str) -> bool:
    """By the fields that the server names; by its words only where it names none."""
    if told.status not in (*_STATUSES, *_DOUBTFUL_STATUSES):
        return False
    if told.parameters:
        if name == "system":
            return any(re.fullmatch(r"messages.*role", field) for field in told.parameters)
        return any(_MENTIONS[name].search(field) for field in told.parameters if not field.startswith("messages"))
    return told.says(_MENTIONS[name], prompt) and (told.status in _STATUSES or told.says(_REFUSES, prompt))


def refused_option(told: Told, options: Mapping[str, Any], prompt: str) -> str | None:
    """The free option that the server names."""
    if told.status not in _STATUSES:
        return None
    names = [*options, *(options.get("extra_body") or {})]
    for name in names:
        mention = re.compile(rf"\b{re.escape(name)}\b")
        if any(mention.search(field) for field in told.parameters):
            return name
        if not told.parameters and told.says(mention, prompt):
            return name
    return None


def check_options(options: Mapping[str, Any], judge: str) -> None:
    """Raises ConfigError for options that would make a reply unreadable or another one than is recorded."""
    body = options.get("extra_body")
    if body is not None and not isinstance(body, Mapping):
        raise ConfigError(f"{judge}: --option extra_body={body!r}: must be a JSON object")
    for name in (*options, *(body or {})):
        if name in _RESERVED:
            instead = "use --max-tokens" if name in _LIMITS else "it cannot be set"
            raise ConfigError(f"{judge}: --option {name}: {instead}")
    for name in _NOT_IN_BODY:
        texts = options.get(name, {})
        if not isinstance(texts, Mapping) or not all(isinstance(text, str) for text in texts.values()):
            raise ConfigError(f"{judge}: --option {name}: must be a JSON object of texts")
    for name in options.get("extra_headers", {}):
        if name.lower() in ("authorization", "api-key", "x-api-key"):
            raise ConfigError(f"{judge}: --option extra_headers: a key belongs in the variable that --key-env names")


def build(call: Call, model: str, manners: Manners, options: Mapping[str, Any]) -> dict[str, Any]:
    """The body of a request; options go before what we would send, and null leaves a parameter out."""
    sampling = call.sampling
    messages = call.messages if manners.system else folded(call.messages)
    request: dict[str, Any] = {
        "model": model,
        "messages": [{"role": message.role, "content": message.content} for message in messages],
        manners.limit: sampling.max_tokens,
    }
    if sampling.temperature is not None:
        request["temperature"] = sampling.temperature
    if sampling.seed is not None:
        # Several reviews of one neuron are several draws.
        request["seed"] = sampling.seed + 1000 * call.place.index + 100_000 * call.draw + call.attempt
    if sampling.probabilities and call.place.task == "review":
        request |= {"logprobs": True, "top_logprobs": manners.top}
    if call.schema is not None:
        schema = {"name": call.place.task, "schema": call.schema, "strict": True}
        request["response_format"] = {"type": "json_schema", "json_schema": schema}
    for name in manners.without:
        request.pop(name, None)
        if name == "logprobs":
            request.pop("top_logprobs", None)
    own = {name: value for name, value in options.items() if name not in (*_NOT_IN_BODY, "extra_body")}
    request |= own | dict(options.get("extra_body") or {})
    return {name: value for name, value in request.items() if value is not None}
