"""Any server that speaks the OpenAI interface: hosted, vLLM, llama.cpp, Ollama, `transformers serve`."""

from __future__ import annotations

import asyncio
import email.utils
import os
import time
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from evaluators.errors import ConfigError, RunError
from evaluators.judges import Abilities, Backend, CallError, NoSchemaError, estimated_tokens, judge
from evaluators.messages import Call, Reply
from evaluators.reading.probabilities import expected_score, tokens_from
from evaluators.reading.scores import Scores, parse_scores
from evaluators.reading.thoughts import from_message, split
from evaluators.values import Usage

DEFAULT_URL = "https://api.openai.com/v1"
_TOP = 20
_CONTEXT_FIELDS = ("max_model_len", "context_length", "context_window", "max_context_length")


@judge("openai")
class OpenAI:
    """`openai:MODEL` on `--base-url`, with the key of an environment variable."""

    worth_caching = True
    concurrency: int | None = None

    def __init__(self, argument: str, backend: Backend) -> None:
        if not argument:
            raise ConfigError("--judge openai: name the model, as in openai:gpt-4o-mini")
        # Late: it takes half a second, which --help should not.
        import openai

        self._openai = openai
        self._key = os.environ.get(backend.key_env, "")
        if not self._key and backend.base_url is None:
            raise ConfigError(f"--judge openai:{argument}: set {backend.key_env} to your key, or name a --base-url")
        url = (backend.base_url or DEFAULT_URL).rstrip("/")
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username:
            raise ConfigError(
                f"--base-url {parts.scheme}://{parts.hostname}: write http(s)://HOST[:PORT]/v1, without a key"
            )
        self.name = argument
        self.identity = f"openai:{argument}@{url}"
        self._timeout_s = backend.timeout_s
        # Its own retries are off: they would pass by our limits, our counts and our budget, and know of no other call.
        self._client = openai.AsyncOpenAI(
            api_key=self._key or "none", base_url=url, timeout=backend.timeout_s, max_retries=0
        )
        self._limit_name = "max_tokens"
        self._sends_seed = True

    async def ask(self, call: Call) -> Reply:
        """One chat completion. Raises as `Judge.ask` does."""
        try:
            async with asyncio.timeout(self._timeout_s):  # the SDK's own is per read: a slow body would pass it
                # `post` is what `chat.completions.create` calls; its checks of our types take as long as all else.
                completion = await self._client.post("/chat/completions", body=self._request(call), cast_to=object)
        except TimeoutError as error:
            raise CallError(f"no reply within {self._timeout_s:g} s", retry=True, outage=True) from error
        except self._openai.APIStatusError as error:
            if self._adapted(error, call):
                return await self.ask(call)
            raise self._refusal(error, call) from error
        except self._openai.APITimeoutError as error:
            raise CallError(f"no reply within {self._timeout_s:g} s", retry=True, outage=True) from error
        except self._openai.APIConnectionError as error:
            cause = error.__cause__ or error
            reason = self._without_key(f"{type(cause).__name__}: {cause}")
            raise CallError(f"connection: {reason}", retry=True, outage=True) from error
        except (ValueError, self._openai.OpenAIError) as error:
            reason = self._without_key(str(error))[:200]
            raise CallError(f"the reply cannot be read: {reason}", retry=True) from error
        return self._reply(completion, call)

    def _request(self, call: Call) -> dict[str, Any]:
        sampling = call.sampling
        request: dict[str, Any] = {
            "model": self.name,
            "messages": [{"role": message.role, "content": message.content} for message in call.messages],
            self._limit_name: sampling.max_tokens,
        }
        if sampling.temperature is not None:
            request["temperature"] = sampling.temperature
        if sampling.seed is not None and self._sends_seed:
            # Several reviews of one neuron are several draws.
            request["seed"] = sampling.seed + 1000 * call.place.index + call.attempt
        if sampling.probabilities and call.place.task == "review":
            request |= {"logprobs": True, "top_logprobs": _TOP}
        if call.schema is not None:
            schema = {"name": call.place.task, "schema": call.schema, "strict": True}
            request["response_format"] = {"type": "json_schema", "json_schema": schema}
        return request

    def _adapted(self, error: Any, call: Call) -> bool:
        """Whether the server wants the same request said in another way, and we now do so."""
        message = str(error)
        if error.status_code not in (400, 422):
            return False
        if "max_completion_tokens" in message and self._limit_name == "max_tokens":
            self._limit_name = "max_completion_tokens"
            return True
        if "'seed'" in message or '"seed"' in message:
            sent, self._sends_seed = self._sends_seed, False
            return sent
        return False

    def _refusal(self, error: Any, call: Call) -> Exception:
        status, message = error.status_code, self._without_key(_message(error))
        told = f"HTTP {status}: {message}"
        if status in (401, 403):
            return RunError(f"the server refuses the key ({told}); check the key's environment variable (--key-env)")
        if status == 404:
            return RunError(
                f"openai:{self.name}: {told}; check the model's name and --base-url {self._client.base_url}"
            )
        if status == 429 and ("insufficient_quota" in message or "insufficient_quota" in str(error.body)):
            return RunError(f"the account has no money left ({told})")
        if status in (400, 422):
            return self._bad_request(message.lower(), told, call)
        retry = status in (408, 409, 425, 429) or status >= 500
        return CallError(told, retry=retry, retry_after_s=_retry_after_s(error.response.headers), outage=status >= 500)

    def _bad_request(self, message: str, told: str, call: Call) -> Exception:
        if call.schema is not None and any(word in message for word in ("response_format", "json_schema", "schema")):
            return NoSchemaError(told)
        if "temperature" in message:
            return RunError(f"{told}; use --temperatures None for the server's default")
        if "logprobs" in message:
            return RunError(f"{told}; use --scores text")
        if "context" in message and ("length" in message or "token" in message):
            return CallError(f"the prompt does not fit the model ({told}); give its size with --context-tokens")
        return CallError(told)

    def _reply(self, completion: Any, call: Call) -> Reply:
        """What is in the JSON, whatever its shape: servers differ."""
        choices = _get(completion, "choices")
        choice = choices[0] if isinstance(choices, list) and choices else None
        message = _get(choice, "message")
        text, thoughts = from_message(message) if isinstance(message, dict) else ("", "")
        usage = _usage(_get(completion, "usage"), call, text)
        if not isinstance(message, dict):
            raise CallError("the reply holds no message", retry=True, usage=usage)
        finish = _get(choice, "finish_reason")
        if refusal := message.get("refusal"):
            raise CallError(f"the model refuses: {str(refusal)[:200]}", usage=usage)
        if finish == "content_filter":
            raise CallError("the server's content filter withheld the reply", usage=usage)
        if not text.strip() and not thoughts and finish != "length":
            raise CallError("the reply is empty", retry=True, usage=usage)
        expected = None
        if call.sampling.probabilities and call.place.task == "review":
            tokens = _get(_get(choice, "logprobs"), "content")
            if not isinstance(tokens, list) or not tokens:
                raise RunError(f"openai:{self.name} gives no token probabilities; use --scores text")
            expected = _expected(text, tokens, call)
        return Reply(text, usage, finish if isinstance(finish, str) else None, expected, thoughts)

    def _without_key(self, text: str) -> str:
        return text.replace(self._key, "***") if self._key else text

    def coordinates(self, call: Call) -> tuple[object, ...]:
        """Messages and sampling say it all."""
        return ()

    async def abilities(self) -> Abilities:
        """The context of the model, from the server's list of models where it tells."""
        try:
            async with asyncio.timeout(min(10.0, self._timeout_s)):
                listed = await self._client.models.list()
                entries = [entry.to_dict() async for entry in listed]
        except (TimeoutError, ValueError, TypeError, AttributeError, self._openai.OpenAIError):
            return Abilities()  # many servers have no such list; the first call shows what is wrong
        own: Mapping[str, Any] = next((entry for entry in entries if entry.get("id") == self.name), {})
        sizes = [own[name] for name in _CONTEXT_FIELDS if isinstance(own.get(name), int) and own[name] > 0]
        return Abilities(context=min(sizes, default=None))

    def count_tokens(self, text: str) -> int:
        """Our estimate: the server's tokenizer is not at hand."""
        return estimated_tokens(text)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()


def _message(error: Any) -> str:
    body = error.body
    text = body.get("message") if isinstance(body, dict) else None
    return str(text or error.message)[:300]


def _get(value: Any, name: str) -> Any:
    return value.get(name) if isinstance(value, dict) else None


def _usage(reported: Any, call: Call, text: str) -> Usage:
    """As reported, if that can be true; else our estimate, marked as one."""
    prompt, completion = _get(reported, "prompt_tokens"), _get(reported, "completion_tokens")
    if isinstance(prompt, int) and isinstance(completion, int) and prompt > 0 and completion >= 0:
        cached = _get(_get(reported, "prompt_tokens_details"), "cached_tokens")
        return Usage(prompt, completion, cached if isinstance(cached, int) and 0 <= cached <= prompt else 0)
    asked = sum(estimated_tokens(message.content) for message in call.messages)
    return Usage(asked, estimated_tokens(text), estimated=True)


def _expected(content: str, listed: Sequence[Any], call: Call) -> tuple[float, ...] | None:
    """None where the tokens are of another shape, or do not spell the scores of the text."""
    text = split(content).text
    count = 1 if call.place.pair.is_single else 2
    scores = parse_scores(text, call.scale, count=count, structured=call.schema is not None)
    tokens = tokens_from(listed)
    return expected_score(text, scores.spans, tokens, call.scale) if tokens and isinstance(scores, Scores) else None


def _retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Seconds, from `retry-after-ms`, or `retry-after` in seconds or as a date (RFC 9110, 10.2.3)."""
    milliseconds, value = headers.get("retry-after-ms"), headers.get("retry-after")
    try:
        if milliseconds is not None:
            return max(0.0, float(milliseconds) / 1000)
        return None if value is None else max(0.0, float(value))
    except ValueError:
        date = email.utils.parsedate_tz(value) if value is not None else None
        return max(0.0, email.utils.mktime_tz(date) - time.time()) if date is not None else None
