"""From a YAML file and the command line to a checked `RunConfig`: file < flags."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import tyro
import yaml
from pydantic import TypeAdapter, ValidationError

from lab.config.sections import RunConfig
from lab.errors import ConfigError

_FREE_ON_RESUME = ("run_dir", "resume", "eval", "monitors", "checkpoint", "log")
_FREE_FLAGS = (
    "data.workers",
    "data.cache_dir",
    "train.micro_batch",
    "train.compile",
    "train.activation_checkpointing",
    "train.hang_timeout",
)
_FIXED_ON_RESUME = ("model", "normalization", "data", "train.seed")


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


def stored_config(run: RunConfig) -> Path:
    """The config.yaml of the run that `--resume` goes on from: the run folder's, or that of a checkpoint's run."""
    folder = Path(run.run_dir) if run.resume in (None, "latest", "auto") else Path(str(run.resume)).resolve().parents[1]
    return folder / "config.yaml"


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
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
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


def differences(stored: RunConfig, wanted: RunConfig) -> list[str]:
    """Settings that change what a run that goes on will compute, each as `train.steps: 300 -> 600`.

    Raises:
        ConfigError: model, normalization, data or seed differ: that would be another run.
    """
    before, after = flat(dataclasses.asdict(stored)), flat(dataclasses.asdict(wanted))
    changed = [name for name in after if before.get(name) != after[name]]
    told = []
    for name in changed:
        if name.split(".")[0] in _FREE_ON_RESUME or name in _FREE_FLAGS:
            continue
        line = f"{name}: {before.get(name)} -> {after[name]}"
        if name in _FIXED_ON_RESUME or name.split(".")[0] in _FIXED_ON_RESUME:
            flag = "--" + name.replace("_", "-")
            raise ConfigError(f"{flag}: cannot change when a run goes on ({line}); start a new --run-dir for it")
        told.append(line)
    return told


def _underscored(value: Any) -> Any:
    """Keys may be written as flags are (post-layers) or as fields are (post_layers)."""
    if isinstance(value, Mapping):
        return {str(key).replace("-", "_"): _underscored(inner) for key, inner in value.items()}
    return [_underscored(inner) for inner in value] if isinstance(value, list) else value


def _fields(content: Mapping[str, Any], kind: Any, path: Path, above: tuple[str, ...]) -> dict[str, Any]:
    """The content of a dataclass's section: known keys only, and one value where a list of one is meant."""
    fields = {field.name: field for field in dataclasses.fields(kind)}
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
            section[key] = (value,) if is_tuple and isinstance(value, str) else value
    return section


def flat(nested: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """Nested settings by their dotted names, such as `train.steps`."""
    names: dict[str, Any] = {}
    for key, value in nested.items():
        names |= flat(value, f"{above}{key}.") if isinstance(value, Mapping) else {f"{above}{key}": value}
    return names


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, tuple) else value
