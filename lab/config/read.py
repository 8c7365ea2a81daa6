"""From a YAML file and the command line to a checked `RunConfig`: file < flags."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, get_type_hints

import tyro
import yaml
from pydantic import TypeAdapter, ValidationError

from lab.config import words
from lab.config.resume import stored_config
from lab.config.sections import RunConfig
from lab.errors import ConfigError


def parse(argv: Sequence[str], *, prog: str) -> RunConfig:
    """The settings of a run.

    `--config FILE` is the base that flags override; with `--resume` and no file, the stored
    config of the run is.

    Raises:
        ConfigError: an impossible setting, with its flag.
        SystemExit: help was asked for, or a flag is unknown or malformed (tyro has printed which, and the nearest).
    """
    file, flags = _take_config(argv)
    base = load(file) if file is not None else RunConfig()
    run = _cli(flags, base, prog)
    if run.resume is not None and file is None and (stored := stored_config(run)).is_file():
        run = _cli(flags, load(stored), prog)
    return run


def _cli(flags: list[str], base: RunConfig, prog: str) -> RunConfig:
    # Every rank parses; one of them says what is wrong.
    is_main = os.environ.get("RANK", "0") == "0"
    return tyro.cli(RunConfig, args=flags, default=base, prog=prog, console_outputs=is_main)


def _take_config(argv: Sequence[str]) -> tuple[Path | None, list[str]]:
    flags: list[str] = []
    file = None
    words = iter(argv)
    for word in words:
        name, equals, value = word.partition("=")
        if name != "--config":
            flags.append(word)
            continue
        path = value if equals else next(words, None)
        if not path:
            raise ConfigError("--config: name a YAML file")
        file = Path(path)
    return file, flags


def load(path: Path) -> RunConfig:
    """Read a run's YAML file.

    Raises:
        ConfigError: no such file, no YAML, or a key that is unknown, malformed or impossible; names it.
    """
    try:
        content = words.read(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"--config {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"--config {path}: not a YAML file: {error}") from error
    if content is None:
        content = {}
    if not isinstance(content, dict):
        raise ConfigError(f"--config {path}: must hold keys and values, such as `train: {{steps: 300}}`")
    normal = _fields(_underscored(content), RunConfig, path, ())
    try:
        return TypeAdapter(RunConfig).validate_python(normal)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        if isinstance(cause := first.get("ctx", {}).get("error"), ConfigError):
            raise ConfigError(f"--config {path}: {cause}") from error
        key = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"--config {path}: {key}: {first['input']!r}: {first['msg']}") from error


def dump(run: RunConfig) -> str:
    """A run's settings as YAML, every one of them; `load` reads it back."""
    return yaml.safe_dump(_plain(dataclasses.asdict(run)), sort_keys=False, allow_unicode=True)


def _underscored(value: Any) -> Any:
    """Keys may be written as flags are (post-layers) or as fields are (post_layers)."""
    if isinstance(value, Mapping):
        return {str(key).replace("-", "_"): _underscored(inner) for key, inner in value.items()}
    return [_underscored(inner) for inner in value] if isinstance(value, list) else value


def _fields(content: Mapping[str, Any], kind: Any, path: Path, above: tuple[str, ...]) -> dict[str, Any]:
    """The content of a dataclass's section: known keys only, and one value where a list of one is meant."""
    fields = {field.name: field for field in dataclasses.fields(kind)}
    types = get_type_hints(kind)
    section: dict[str, Any] = {}
    for key, value in content.items():
        name = ".".join((*above, key))
        if key not in fields:
            near = get_close_matches(key, fields, n=1)
            hint = f"; did you mean {'.'.join((*above, near[0]))}?" if near else ""
            raise ConfigError(f"--config {path}: unknown key {name}{hint} (keys here: {', '.join(fields)})")
        nested: Any = fields[key].default_factory
        if dataclasses.is_dataclass(nested):
            if not isinstance(value, Mapping):
                raise ConfigError(f"--config {path}: {name}: must hold keys and values, not {value!r}")
            section[key] = _fields(value, nested, path, (*above, key))
        else:
            is_tuple = str(fields[key].type).startswith("tuple")
            one_or_more = [value] if is_tuple and isinstance(value, str) else value
            section[key] = words.meant(one_or_more, types[key])
    return section


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, tuple) else value
