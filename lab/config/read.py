"""From a YAML file and the command line to a checked `RunConfig`: file < flags."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, get_type_hints

import yaml
from pydantic import TypeAdapter, ValidationError

from evaluators import command_line
from evaluators import yaml_words as words
from lab.config.sections import RunConfig
from lab.errors import ConfigError


def parse(
    argv: Sequence[str], *, prog: str, stored: Callable[[str, str], RunConfig | None] = lambda resume, run_dir: None
) -> RunConfig:
    """The settings of a run: defaults, or with `--resume` those of the run that goes on; then `--config FILE`; then
    flags.

    Args:
        argv: the words of the command line.
        prog: its name, for messages.
        stored: gives the settings of what `--resume` and `--run-dir` name; None if that is a run that starts.

    Raises:
        ConfigError: an impossible setting, with its flag.
        SystemExit: help was asked for, or a flag is unknown or malformed (tyro has printed which, and the nearest).
    """
    file, flags = _take_config(argv)
    content = {} if file is None else _content(file)
    resume = _value("resume", flags, content.get("resume"))
    base = None
    if resume is not None and not {"-h", "--help"} & set(flags):
        base = stored(resume, _value("run_dir", flags, content.get("run_dir")) or RunConfig().run_dir)
    if file is not None:
        base = _load(file, content, over=base)
    return _cli(flags, base or RunConfig(), prog)


def _value(name: str, flags: list[str], otherwise: Any) -> str | None:
    """What a flag will be, before the others can be read: they depend on it."""
    found = None if otherwise is None else str(otherwise)
    for number, word in enumerate(flags):
        flag, equals, value = word.partition("=")
        if flag.replace("-", "_") == f"__{name}":
            value = value if equals else "".join(flags[number + 1 : number + 2])
            found = value if value and value != "None" else None
    return found


def _cli(flags: list[str], base: RunConfig, prog: str) -> RunConfig:
    # Every rank parses; one of them says what is wrong.
    is_main = os.environ.get("RANK", "0") == "0"
    listed = {"config": "YAML file with settings under the same names; flags override it."}
    return command_line.read(RunConfig, flags, prog=prog, default=base, elsewhere=listed, console_outputs=is_main)


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
    return _load(path, _content(path), over=None)


def _content(path: Path) -> dict[str, Any]:
    try:
        content = words.read(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"--config {path}: {error.strerror}; name a YAML file") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"--config {path}: not a YAML file: {words.fault(error)}") from error
    if content is None:
        content = {}
    if not isinstance(content, dict):
        raise ConfigError(f"--config {path}: must hold keys and values, such as `train: {{steps: 300}}`")
    return _fields(_underscored(content), RunConfig, path, ())


def _load(path: Path, content: dict[str, Any], *, over: RunConfig | None) -> RunConfig:
    """The settings of a file; where it says nothing those of `over`, or the defaults."""
    normal = content if over is None else _laid_over(dataclasses.asdict(over), content)
    try:
        return TypeAdapter(RunConfig).validate_python(normal)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        if isinstance(cause := first.get("ctx", {}).get("error"), ConfigError):
            raise ConfigError(f"--config {path}: {cause}") from error
        key = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"--config {path}: {key}: {first['input']!r}: {first['msg']}") from error


def _laid_over(base: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """The settings of `base` with those that are given; of two that say the same thing in two ways, only the given."""
    train = given.get("train", {})
    for one, other in (("steps", "tokens"), ("tokens", "steps")):
        if train.get(one) is not None and other not in train:
            base["train"][other] = None
    return {
        key: _laid_over(value, given[key]) if isinstance(value, dict) and key in given else given.get(key, value)
        for key, value in base.items()
    }


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
