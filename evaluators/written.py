"""YAML files that people write: UTF-8, no key twice, and one line for what is wrong with one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from evaluators.errors import ConfigError


class _Loader(yaml.SafeLoader):
    """Refuses a key that stands twice, of which PyYAML would take the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                raise yaml.MarkedYAMLError(problem=f"{key.value} stands twice", problem_mark=key.start_mark)
            seen.add(str(key.value))
        return super().construct_mapping(node, deep)


def read_yaml(path: Path, flag: str) -> Any:
    """The content of a file.

    Args:
        flag: what names it, for the message.

    Raises:
        ConfigError: it cannot be read, or is no YAML; says where and what to do.
    """
    try:
        return yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except OSError as error:
        raise ConfigError(f"{flag} {path}: {error.strerror or error}; name a YAML file") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{flag} {path}: not text in UTF-8 (byte {error.start + 1}); save it as UTF-8") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{flag} {path}: not a YAML file: {_fault(error)}") from error


def _fault(error: yaml.YAMLError) -> str:
    mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None) or str(error)
    place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark is not None else ""
    remedy = "; indent with spaces" if "'\\t'" in problem else ""
    return f"{place}{' '.join(problem.split())}{remedy}"
