"""The diagnostics by name."""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, TypeVar

from lab.errors import ConfigError

if TYPE_CHECKING:
    from lab.diagnostics.base import Diagnostic

Kind = TypeVar("Kind", bound="type[Diagnostic]")

_DIAGNOSTICS: dict[str, type[Diagnostic]] = {}


def diagnostic(name: str, *, source: str, cheap: bool = False) -> Callable[[Kind], Kind]:
    """Register the decorated class.

    Args:
        name: what people call it.
        source: where its definition stands: a paper, or `Diagnostic of ours`.
        cheap: it costs about a forward pass or less, so that a training run may wait for it.
    """

    def register(cls: Kind) -> Kind:
        if name in _DIAGNOSTICS:
            raise ValueError(f"two diagnostics are called {name!r}")
        cls.name, cls.source, cls.cheap = name, source, cheap
        _DIAGNOSTICS[name] = cls
        return cls

    return register


@cache
def _import_all() -> None:
    package = import_module("lab.diagnostics.measures")
    for module in pkgutil.iter_modules(package.__path__):
        import_module(f"lab.diagnostics.measures.{module.name}")


def names(*, cheap: bool = False) -> tuple[str, ...]:
    """The registered diagnostics, sorted; the cheap ones on request."""
    _import_all()
    return tuple(sorted(name for name, cls in _DIAGNOSTICS.items() if cls.cheap or not cheap))


def get(name: str) -> type[Diagnostic]:
    """The diagnostic of that name.

    Raises:
        ConfigError: there is none; names the choices and the nearest one.
    """
    _import_all()
    if name not in _DIAGNOSTICS:
        near = get_close_matches(name, _DIAGNOSTICS, n=1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise ConfigError(f"--only {name}: no such diagnostic{hint}; choose from {', '.join(names())}")
    return _DIAGNOSTICS[name]


def chosen(only: str | Sequence[str] | None) -> tuple[str, ...]:
    """The diagnostics that `--only a,b` names, in the order of the registry; all of them for None.

    Raises:
        ConfigError: an unknown name, or none at all.
    """
    if only is None:
        return names()
    wanted = [word.strip() for word in (only.split(",") if isinstance(only, str) else only) if word.strip()]
    if not wanted:
        raise ConfigError(f"--only: name at least one of {', '.join(names())}")
    return tuple(sorted({get(name).name for name in wanted}))
