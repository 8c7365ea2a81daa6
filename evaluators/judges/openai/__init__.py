"""Any server that speaks the OpenAI interface: hosted, vLLM, llama.cpp, Ollama, `transformers serve`."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

from evaluators.errors import ConfigError, RunError
from evaluators.judges import Abilities, Backend, CallError, NoSchemaError, estimated_tokens, judge
from evaluators.judges.openai import refusals, reply
from evaluators.judges.openai.address import VARIABLE, client, where
from evaluators.judges.openai.clients import Clients
from evaluators.judges.openai.keys import Mask, read_key
from evaluators.judges.openai.request import Manners, build, check_options, is_about_schema, refused_option
from evaluators.judges.openai.told import Told, from_response, one_line, shortened, what_it_is
from evaluators.messages import Call, Reply
from evaluators.models import models

_CONTEXT_FIELDS = ("max_model_len", "context_length", "context_window", "max_context_length")
_POLL_S = 0.02


class _Response(NamedTuple):
    status: int
    headers: Mapping[str, str]
    raw: bytes
    moved_to: str | None
    """Where redirects ended; None: there was none."""


@judge("openai")
class OpenAI:
    """`openai:MODEL` on a server, with the key of an environment variable.

    What a server does not take (a seed, a temperature, the name of a limit, ...) is found out by each call for itself,
    and from the first that worked without it on, it is not sent any more.
    """

    worth_caching = True
    concurrency: int | None = None

    def __init__(self, argument: str, backend: Backend) -> None:
        if not argument:
            raise ConfigError("--judge openai: name the model, as in openai:gpt-4o-mini")
        url, named_by = where(backend.base_url, backend.url_flag)
        key = read_key(backend.key_env)
        if not key and not named_by and backend.needs_key:
            raise ConfigError(f"--judge openai:{argument}: set {backend.key_env} to your key, or name a --base-url")
        check_options(backend.options, f"openai:{argument}")
        # Late: it takes half a second, which --help should not.
        import httpx2
        import openai

        self._openai, self._httpx = openai, httpx2
        self.name = argument
        self.where = f"{url} (from {named_by})" if named_by == VARIABLE else url
        """The server, for people."""
        self.identity = f"openai:{argument}@{url}"
        if backend.options:
            self.identity += f" {json.dumps(backend.options, sort_keys=True)}"
        self.account = f"{url} {backend.key_env or ''}"
        """Whose limits its calls count against."""
        self._asked = refusals.Asked(f"openai:{argument}", url, backend.key_env, bool(key), "")
        self._mask = Mask(key)
        self._options = backend.options
        beside = {"headers": backend.options.get("extra_headers"), "params": backend.options.get("extra_query")}
        self._beside: Any = {name: texts for name, texts in beside.items() if texts}
        self._timeout_s = backend.timeout_s
        self._clients = Clients(partial(client, url, key, backend.timeout_s))
        known = models().get(argument)
        self._context = backend.context
        self._known_context = None if known is None else known.context
        self._manners = Manners()
        if known is not None:
            other = "max_tokens" if known.limit == "max_completion_tokens" else "max_completion_tokens"
            self._manners = Manners(known.limit, other, frozenset(known.omits))
        self._worked = False
        self._in_flight = 0
        self._in_doubt = 0

    async def ask(self, call: Call) -> Reply:
        """One chat completion. Raises as `Judge.ask` does."""
        self._in_flight += 1
        try:
            return await self._ask(call)
        finally:
            self._in_flight -= 1

    async def _ask(self, call: Call) -> Reply:
        prompt = "\n".join(message.content for message in call.messages)
        begun = manners = self._manners
        while True:
            request = build(call, self.name, manners, self._options)
            response = await self._post(request)
            body = self._completion(response)
            told = from_response(*response) if response.status >= 300 else reply.error_in(body)
            if told is None:
                break
            asked = replace(self._asked, prompt=prompt)
            if (error := refusals.final(told, self._line(told), asked)) is not None:
                raise error
            if "response_format" in request and call.schema is not None and is_about_schema(told, prompt):
                # Where schemas have worked, it is about this one call.
                lasting = refusals.schema_lasts(told, prompt) and not self._worked
                raise NoSchemaError(f"{self.name} takes no JSON schema ({self._line(told)})", lasting=lasting)
            better = manners.after(told, request, prompt)
            if better is None:
                raise await self._refusal(told, asked)
            manners = better
        self._worked = True
        if manners is not begun:
            self._manners = self._manners.learned_from(manners)
        if "logprobs" in manners.without and call.sampling.probabilities and call.place.task == "review":
            raise RunError(f"openai:{self.name} gives no token probabilities; use --scores text")
        return reply.read(body, call, f"openai:{self.name}", adapted=manners.differences(call))

    async def _post(self, request: dict[str, Any]) -> _Response:
        """Raises CallError where nothing comes back."""
        late = f"no reply within {self._timeout_s:g} s"
        try:
            # The SDK's own timeout is per read: a slow body would pass it.
            async with asyncio.timeout(self._timeout_s):
                with self._clients.one() as client:
                    # `post` is what `chat.completions.create` calls; its checks of our types take as long as all else.
                    response = await client.post(
                        "/chat/completions", body=request, cast_to=self._httpx.Response, options=self._beside
                    )
        except (TimeoutError, self._openai.APITimeoutError) as error:
            raise CallError(late, kind="outage") from error
        except self._openai.APIStatusError as error:
            response = error.response
        except self._openai.APIConnectionError as error:
            cause = error.__cause__ or error
            reason = self._masked(f"{type(cause).__name__}: {cause}")
            if isinstance(cause, self._httpx.TooManyRedirects):
                raise RunError(f"openai:{self.name}: {self._asked.url}: {reason}; check --base-url") from error
            raise CallError(f"connection: {reason}", kind="outage") from error
        except (ValueError, self._openai.OpenAIError) as error:
            raise CallError(f"the request failed: {self._masked(str(error))}", retry=True) from error
        moved_to = str(response.url) if response.history else None
        return _Response(response.status_code, response.headers, response.content, moved_to)

    def _completion(self, response: _Response) -> Any:
        """The JSON of a response that is no refusal.

        Raises:
            CallError: it holds none; says what it holds.
        """
        if response.status >= 300:
            return None
        try:
            return json.loads(response.raw)
        except (ValueError, RecursionError) as error:
            kind = response.headers.get("content-type", "")
            if "json" in kind and response.raw.lstrip()[:1] in (b"{", b"["):
                raise CallError(f"the reply cannot be read: {self._masked(str(error))}", retry=True) from error
            moved = "" if response.moved_to is None else f" after a redirect to {response.moved_to}"
            what = self._masked(what_it_is(response.headers, response.raw))
            # A gateway's page in the midst of a run will go away; before anything has worked, the URL is wrong.
            raise CallError(f"{self._asked.url} {what}{moved}", kind="outage" if self._worked else "call") from error

    def _masked(self, text: str) -> str:
        return shortened(self._mask(one_line(text)))

    def _line(self, told: Told) -> str:
        return shortened(self._mask(told.line))

    async def _refusal(self, told: Told, asked: refusals.Asked) -> Exception:
        line = self._line(told)
        if (option := refused_option(told, self._options, asked.prompt)) is not None:
            return RunError(f"openai:{self.name}: the server refuses --option {option} ({line})")
        error = refusals.other(told, line, asked)
        if error is not None:
            return error
        # A 403 that says nothing: of this sample if anything works, which the calls in flight may still show.
        self._in_doubt += 1
        try:
            async with asyncio.timeout(self._timeout_s):
                while not self._worked and self._in_flight > self._in_doubt:
                    await asyncio.sleep(_POLL_S)
        except TimeoutError:
            pass
        finally:
            self._in_doubt -= 1
        return CallError(line) if self._worked else refusals.key_refused(line, asked)

    def coordinates(self, call: Call) -> tuple[object, ...]:
        """Messages and sampling say it all."""
        return ()

    async def abilities(self) -> Abilities:
        """The context of the model: from the user, the server's list of models if it tells, or the table of models."""
        if self._context is not None:
            return Abilities(context=self._context)
        try:
            async with asyncio.timeout(min(10.0, self._timeout_s)):
                with self._clients.one() as client:
                    response = await client.get("/models", cast_to=self._httpx.Response)
                listed = json.loads(response.content)
        except self._openai.APIStatusError as error:
            # Many servers have no such list; one that is still loading its model may tell later.
            return Abilities(self._known_context, answered=error.status_code < 500)
        except (ValueError, RecursionError):
            return Abilities(self._known_context)
        except (TimeoutError, self._openai.OpenAIError):
            return Abilities(self._known_context, answered=False)
        entries = listed.get("data") if isinstance(listed, dict) else None
        named = [item for item in entries if isinstance(item, dict)] if isinstance(entries, list) else []
        own: Mapping[str, Any] = next((item for item in named if item.get("id") == self.name), {})
        sizes = [size for name in _CONTEXT_FIELDS if isinstance(size := own.get(name), int) and size > 0]
        return Abilities(context=min(sizes, default=self._known_context))

    def count_tokens(self, text: str) -> int:
        """Our estimate: the server's tokenizer is not at hand."""
        return estimated_tokens(text)

    async def close(self) -> None:
        """Close the connections."""
        await self._clients.close()
