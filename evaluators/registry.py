"""Things under a name: judges, presets, benchmarks."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from typing import Generic, TypeVar

from evaluators.errors import ConfigError

T = TypeVar("T")


class Registry(Generic[T]):
    """Name -> thing. Where a package is named, its files are imported when a name is first looked up."""

    def __init__(self, kind: str, package: str = "", path: Sequence[str] = ()) -> None:
        self._kind = kind
        self._package = package
        self._path = path
        self._things: dict[str, T] = {}
        self._complete = False

    def add(self, name: str, thing: T) -> None:
        """Register; two of one name are a mistake in the code."""
        if name in self._things:
            raise ValueError(f"two {self._kind}s are called {name!r}")
        self._things[name] = thing

    def register(self, name: str) -> Callable[[T], T]:
        """Decorator that registers what it decorates."""

        def decorate(thing: T) -> T:
            self.add(name, thing)
            return thing

        return decorate

    def names(self) -> list[str]:
        """All names, sorted."""
        return sorted(self._load())

    def get(self, name: str, *, flag: str) -> T:
        """The thing of that name.

        Raises:
            ConfigError: there is none; names the flag, the nearest and the choices.
        """
        things = self._load()
        if name not in things:
            near = get_close_matches(name, things, n=1)
            hint = f"did you mean {near[0]}? " if near else ""
            raise ConfigError(f"{flag} {name}: no such {self._kind}; {hint}choose from {', '.join(sorted(things))}")
        return things[name]

    def _load(self) -> dict[str, T]:
        if not self._complete:
            for module in pkgutil.iter_modules(self._path):
                importlib.import_module(f"{self._package}.{module.name}")
            self._complete = True
        return self._things
