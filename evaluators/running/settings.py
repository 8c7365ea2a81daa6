"""From a YAML file and the command line to a checked `JudgeConfig`: file < flags."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar, get_origin, get_type_hints

import yaml
from pydantic import TypeAdapter, ValidationError

from evaluators import command_line
from evaluators.errors import ConfigError
from evaluators.registry import Plugin
from evaluators.running.config import JudgeConfig
from evaluators.running.judge_spec import JudgeSpec
from evaluators.written import read_yaml

ConfigT = TypeVar("ConfigT", bound=JudgeConfig)
_OPTIONS = ("option", "preset_option", "format_option")
_SEVERAL = ("--plugin", *(f"--{name.replace('_', '-')}" for name in _OPTIONS))
_FREE = ("out", "data", "limit", "skip_refused", "retry_unscored", "money", "caching")
_FREE_OF_SERVER = (
    "key_env",
    "concurrency",
    "requests_per_minute",
    "tokens_per_minute",
    "timeout",
    "retries",
    "backoff",
    "breaker",
    "give_up",
    "batch",
    "device",
)


def parse(argv: Sequence[str], *, prog: str) -> JudgeConfig:
    """The settings of a run. Raises ConfigError and SystemExit as `parse_as`."""
    return parse_as(JudgeConfig, argv, prog=prog)


def parse_as(kind: type[ConfigT], argv: Sequence[str], *, prog: str) -> ConfigT:
    """The settings of a `kind` that may have more than those of a run.

    Raises:
        ConfigError: an impossible setting, with its flag.
        SystemExit: help was asked for, or a flag is unknown or malformed (tyro has printed which, and the nearest).
    """
    file, flags = _take_config(argv)
    default = None if file is None else load_as(file, kind)
    listed = {"config": "YAML file with settings under the same names, in their sections; flags override it."}
    return command_line.read(kind, flags, prog=prog, default=default, elsewhere=listed, flat=True).complete()


def load(path: Path, *, plugins: bool = True) -> JudgeConfig:
    """Read a run's YAML file. Raises ConfigError as `load_as`."""
    return load_as(path, JudgeConfig, plugins=plugins)


def load_as(path: Path, kind: type[ConfigT], *, plugins: bool = True) -> ConfigT:
    """Read a YAML file of settings.

    Args:
        plugins: run the files of code that it names; a folder that is only looked at runs none.

    Raises:
        ConfigError: no such file, no YAML, or a key that is unknown, malformed or impossible; names it.
    """
    content = read_yaml(path, "--config")
    if not isinstance(content, dict):
        raise ConfigError(f"--config {path}: must hold keys and values, such as `data: pairs.jsonl`")
    known = _known(content if plugins else {**content, "plugin": ()}, kind, path, "")
    try:
        return TypeAdapter(kind).validate_python(known)
    except ConfigError as error:
        raise ConfigError(f"--config {path}: {error}") from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"--config {path}: {key}: {first['input']!r}: {first['msg']}") from error


def dump(config: JudgeConfig) -> str:
    """All settings as YAML; `load` reads it back."""
    return yaml.safe_dump(plain(config), sort_keys=False, allow_unicode=True)


def plain(config: JudgeConfig) -> dict[str, Any]:
    """All settings as dicts, lists, numbers and texts."""
    settings = dataclasses.asdict(config) | {"judge": [judge.plain() for judge in config.judge]}
    return json.loads(json.dumps(settings))


def digest(config: JudgeConfig, prompts: str) -> str:
    """Of all settings that decide what judges are asked and how verdicts are made, with the prompts' own digest."""
    return hashlib.sha256(json.dumps([_science(plain(config)), prompts], sort_keys=True).encode()).hexdigest()[:16]


def differences(stored: Mapping[str, Any], wanted: JudgeConfig) -> list[str]:
    """Settings that change what a run that goes on would compute, as `network.depth: 2 -> 3`."""
    before, after = _flat(_science(stored)), _flat(_science(plain(wanted)))
    return [
        f"{name}: {before.get(name)} -> {after.get(name)}"
        for name in {**before, **after}
        if before.get(name) != after.get(name)
    ]


def _science(settings: Mapping[str, Any]) -> dict[str, Any]:
    kept = {name: value for name, value in settings.items() if name not in _FREE}
    server = {name: value for name, value in kept.get("server", {}).items() if name not in _FREE_OF_SERVER}
    judges = [JudgeSpec.load(judge).science() for judge in kept.get("judge", [])]
    kept |= {"server": server, "judge": judges, "network": {**kept.get("network", {})}}
    # Folders of before these settings were there go on.
    plugins = [Plugin.of(plugin).sha256[:16] for plugin in kept.pop("plugin", [])]
    added: tuple[tuple[dict[str, Any], str, list[str]], ...] = (
        (kept, "plugin", plugins),
        (kept, "format_option", []),
        (kept["network"], "preset_option", []),
    )
    for section, name, default in added:
        if not section.setdefault(name, default):
            del section[name]
    return kept


def _flat(nested: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    names: dict[str, Any] = {}
    for key, value in nested.items():
        names |= _flat(value, f"{above}{key}.") if isinstance(value, Mapping) else {f"{above}{key}": value}
    return names


def _take_config(argv: Sequence[str]) -> tuple[Path | None, list[str]]:
    """The file of --config, and the flags without it; of those that may stand several times, all values together."""
    flags: list[str] = []
    several: dict[str, list[str]] = {}
    file = None
    words = iter(argv)
    into = flags
    for word in words:
        name, equals, value = word.partition("=")
        if name == "--config":
            path = value if equals else next(words, None)
            if not path:
                raise ConfigError("--config: name a YAML file")
            file = Path(path)
        elif name in _SEVERAL:  # tyro would take the last
            into = several.setdefault(name, [])
            into += [value] if equals else []
            into = flags if equals else into
        else:
            into = flags if word.startswith("--") else into
            into.append(word)
    return file, [*flags, *(part for name, values in several.items() for part in (name, *values))]


def _known(content: Mapping[str, Any], kind: Any, path: Path, above: str) -> dict[str, Any]:
    """The content of a section: known keys only."""
    known = {item.name: item for item in dataclasses.fields(kind)}
    types = get_type_hints(kind)
    section: dict[str, Any] = {}
    for spelled, value in content.items():
        key = str(spelled).replace("-", "_")
        if key not in known:
            near = get_close_matches(key, known, n=1)
            hint = f"; did you mean {above}{near[0]}?" if near else ""
            raise ConfigError(f"--config {path}: unknown key {above}{key}{hint} (keys here: {', '.join(known)})")
        nested: Any = known[key].default_factory
        if dataclasses.is_dataclass(nested):
            if not isinstance(value, Mapping):
                raise ConfigError(f"--config {path}: {above}{key}: must hold keys and values, not {value!r}")
            section[key] = _known(value, nested, path, f"{above}{key}.")
        else:
            is_tuple = get_origin(types[key]) is tuple
            if key in _OPTIONS and isinstance(value, Mapping):
                section[key] = tuple(f"{name}={json.dumps(item)}" for name, item in value.items())
            else:
                section[key] = (value,) if is_tuple and isinstance(value, (str, Mapping)) else value
    for key, read in (("judge", JudgeSpec.load), ("plugin", Plugin.of)):
        if isinstance(section.get(key), (list, tuple)):
            section[key] = tuple(map(read, section[key]))
    return section
