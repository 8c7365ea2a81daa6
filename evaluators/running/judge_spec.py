"""One judge of a run: who, where, with which options, within which limits and at what price."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from typing import Annotated, Any

import tyro
import yaml

from evaluators.errors import ConfigError

_AT_URL = re.compile(r"@(https?://[^#]*)(?:#(.*))?$", re.IGNORECASE | re.DOTALL)
_URL_WITHOUT_SCHEME = re.compile(r"@((?:localhost|\d+(?:\.\d+){3}|\[[0-9a-f:]+\])(?::\d+)?(?:/.*)?)$", re.IGNORECASE)


@dataclass(frozen=True)
class JudgeSpec:
    """A judge as it is named on the command line (`openai:MODEL@URL#KEY_VARIABLE`) or in a YAML file.

    What is None is the run's own setting (`--base-url`, `--key-env`, `--concurrency`, ...).
    """

    name: str
    """SCHEME:NAME."""
    base_url: str | None = None
    key_env: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    """In addition to the run's `--option`, which they go before."""
    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None
    concurrency: int | None = None
    timeout: float | None = None
    price: Mapping[str, Any] | None = None
    """USD per million tokens: input, output, and if they differ cached_input and reasoning."""
    context: int | None = None
    """Tokens of prompt and reply together."""

    def __post_init__(self) -> None:
        where = f"--judge {self.name}"
        for name in ("requests_per_minute", "tokens_per_minute", "concurrency", "timeout", "context"):
            value = getattr(self, name)
            number = not isinstance(value, bool) and isinstance(value, (int, float))
            if value is not None and not (number and value > 0):
                raise ConfigError(f"{where}: {name} {value!r}: must be a positive number")
            if value is not None and name in ("concurrency", "context") and not isinstance(value, int):
                raise ConfigError(f"{where}: {name} {value!r}: must be a whole number")
        for name in ("name", "base_url", "key_env"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, str) or not value.strip()):
                raise ConfigError(f"{where}: {name} {value!r}: must be a text")
        for name in ("options", "price"):
            value = getattr(self, name)
            if value is not None and not isinstance(value, Mapping):
                raise ConfigError(f"{where}: {name} {value!r}: must hold keys and values")

    @classmethod
    def parse(cls, text: str) -> JudgeSpec:
        """From the command line. The model may hold `@`, `:` and `/`; a URL begins with http.

        Raises:
            ConfigError: a URL without its scheme, or no name of a variable after `#`.
        """
        if bare := _URL_WITHOUT_SCHEME.search(text):
            raise ConfigError(f"--judge {text}: write @http://{bare[1]}")
        if (at := _AT_URL.search(text)) is None:
            return cls(text)
        if at[2] is not None and not at[2].isidentifier():
            raise ConfigError(
                f"--judge {text[: at.end(1)]}#...: the variable that holds the key follows #, not the key"
            )
        return cls(text[: at.start()], at[1], at[2])

    @classmethod
    def load(cls, value: Any) -> JudgeSpec:
        """From a YAML file: a text as on the command line, or a mapping of the fields.

        Raises:
            ConfigError: a key that is unknown or missing, or an impossible value; names it.
        """
        if isinstance(value, JudgeSpec):
            return value
        if isinstance(value, str):
            return cls.parse(value)
        known = [item.name for item in fields(cls)]
        if not isinstance(value, Mapping) or not isinstance(value.get("name"), str):
            raise ConfigError(
                f"judge: {value!r}: write SCHEME:NAME, or keys and values with a name ({', '.join(known)})"
            )
        given = {str(key).replace("-", "_"): item for key, item in value.items()}
        for key in given:
            if key not in known:
                near = get_close_matches(key, known, n=1)
                hint = f"did you mean {near[0]}? " if near else ""
                raise ConfigError(f"judge {given['name']}: unknown key {key}; {hint}choose from {', '.join(known)}")
        named = cls.parse(given.pop("name"))
        for key in ("base_url", "key_env"):
            given.setdefault(key, getattr(named, key))
        return cls(named.name, **{key: item for key, item in given.items() if item is not None})

    @property
    def text(self) -> str:
        """As on the command line, without the variable of its key."""
        return self.name if self.base_url is None else f"{self.name}@{self.base_url}"

    def plain(self) -> str | dict[str, Any]:
        """As `load` reads it; a text where that says all."""
        default = JudgeSpec(self.name, self.base_url)
        if self == default:
            return self.text
        return {item.name: value for item in fields(self) if (value := getattr(self, item.name)) not in (None, {})}

    def science(self) -> list[Any]:
        """What decides its replies."""
        return [self.name, self.base_url, dict(self.options), self.context]


JudgeFlag = Annotated[
    JudgeSpec,
    tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar="SCHEME:NAME[@URL]",
        instance_from_str=lambda words: JudgeSpec.parse(words[0]),
        is_instance=lambda value: isinstance(value, JudgeSpec),
        str_from_instance=lambda spec: [spec.text],
    ),
]
"""`JudgeSpec` as a flag."""


def parse_options(texts: Sequence[str], flag: str = "--option") -> dict[str, Any]:
    """`NAME=VALUE` texts; a value is JSON or YAML if it can be read as such, else a text.

    Raises:
        ConfigError: no name, or braces that are no JSON.
    """
    options: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name.strip():
            raise ConfigError(f"{flag} {text}: write NAME=VALUE, as in reasoning_effort=low")
        options[name.strip()] = _value(f"{flag} {name.strip()}", value)
    return options


def _value(name: str, text: str) -> Any:
    try:
        value = json.loads(text, parse_constant=_refuse)
    except ValueError:
        if not text.lstrip().startswith(("{", "[")):
            # YAML's `no`, dates and octal numbers would surprise: what is no JSON is a text, but for True and False.
            return {"true": True, "false": False}.get(text.strip().lower(), text)
        try:
            value = yaml.safe_load(text)
            json.dumps(value, allow_nan=False)
        except (yaml.YAMLError, TypeError, ValueError) as error:
            raise ConfigError(f"{name}={text}: neither JSON nor YAML") from error
    return value


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is not JSON")
