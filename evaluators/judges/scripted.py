from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from evaluators.errors import ConfigError
from evaluators.judges import Abilities, Backend, CallError, estimated_tokens, judge, refuse_options
from evaluators.messages import Call, Reply
from evaluators.values import Usage

_CONDITIONS = ("id", "task", "layer", "neuron", "order", "index", "attempt")


@judge("scripted")
class Scripted:
    """Replies from a file of JSON Lines: the first line whose conditions all hold answers.

    `{"reply": "...", "task": "review", "id": "a", "layer": 1, "neuron": 2, "order": "21", "contains": "words of the
    prompt"}`; each condition may be left out. `{"error": "..."}` in place of the reply is a call that fails.
    """

    worth_caching = True
    concurrency: int | None = None

    def __init__(self, argument: str, backend: Backend) -> None:
        refuse_options(f"scripted:{argument}", backend)
        path = Path(argument)
        try:
            content = path.read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "not UTF-8"
            raise ConfigError(f"--judge scripted:{argument}: {reason}") from error
        lines = enumerate(content.split("\n"), start=1)  # `splitlines` would cut at U+2028 within a text
        self._replies = [_checked(line, f"{argument}: line {number}") for number, line in lines if line.strip()]
        self.name = f"scripted:{path.name}"
        self.identity = f"scripted:{hashlib.sha256(content.encode()).hexdigest()[:16]}"

    async def ask(self, call: Call) -> Reply:
        """The first reply that fits. Raises CallError where none does, or an error does."""
        place = dict(zip(_CONDITIONS, self.coordinates(call), strict=True))
        prompt = call.messages[-1].content
        for line in self._replies:
            met = all(line[name] == place[name] for name in _CONDITIONS if name in line)
            if met and line.get("contains", "") in prompt:
                if "error" in line:
                    raise CallError(line["error"])
                used = sum(estimated_tokens(message.content) for message in call.messages)
                return Reply(line["reply"], Usage(used, estimated_tokens(line["reply"]), estimated=True), "stop")
        raise CallError(f"no reply in the script for {place}")

    def coordinates(self, call: Call) -> tuple[object, ...]:
        """The values of the conditions."""
        place = call.place
        return (place.pair.id, place.task, place.layer, place.neuron, place.order, place.index, call.attempt)

    async def abilities(self) -> Abilities:
        """Text only."""
        return Abilities(structured=False)

    def count_tokens(self, text: str) -> int:
        """Our estimate."""
        return estimated_tokens(text)

    async def close(self) -> None:
        """Nothing is open."""


def _checked(line: str, where: str) -> Mapping[str, Any]:
    try:
        value = json.loads(line)
    except json.JSONDecodeError as error:
        raise ConfigError(f"--judge scripted:{where}: not JSON: {error.msg}") from error
    known = {*_CONDITIONS, "contains", "reply", "error"}
    if not isinstance(value, dict) or set(value) - known or ("reply" in value) == ("error" in value):
        raise ConfigError(f"--judge scripted:{where}: expected an object with reply or error, and {', '.join(known)}")
    texts = [value.get(name, "") for name in ("reply", "error", "contains")]
    if not all(isinstance(text, str) for text in texts):
        raise ConfigError(f"--judge scripted:{where}: reply, error and contains must be texts")
    return value
