"""Things under a name: judges, presets, formats. They come from this package, from installed ones, and from files.

An installed package offers one by an entry point of the group `depthlab.judges`, `depthlab.architectures` or
`depthlab.benchmarks`: its name is the thing's, its value the class or function. It is imported when it is asked for.
A file (`--plugin`) registers what is in it as the modules here do.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import pkgutil
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any, Generic, TypeVar

from evaluators.errors import ConfigError, UserError

T = TypeVar("T")
Registered = list[tuple["Registry[Any]", str, Any]]

_taking: list[Registered] = []
"""Where a plug-in that is being imported registers, innermost last."""
_files: dict[tuple[str, str], Registered] = {}
"""Path and SHA-256 of files that were run -> what they registered."""


class Registry(Generic[T]):
    """Name -> thing. Where a package is named, its files are imported when a name is first looked up."""

    def __init__(self, kind: str, group: str, package: str = "", path: Sequence[str] = ()) -> None:
        self.kind = kind
        self.group = group
        self._package = package
        self._path = path
        self._things: dict[str, T] = {}
        self._others: dict[str, tuple[T, str]] = {}
        """Of plug-ins: the thing and where it comes from."""
        self._complete = False

    def add(self, name: str, thing: T) -> None:
        """Register; two of one name in this package are a mistake in the code."""
        # A plug-in may be the first to import a module of ours.
        if _taking and not getattr(thing, "__module__", "").startswith("evaluators."):
            _taking[-1].append((self, name, thing))
            return
        if name in self._things:
            raise ValueError(f"two {self.kind}s are called {name!r}")
        self._things[name] = thing

    def register(self, name: str) -> Callable[[T], T]:
        """Decorator that registers what it decorates."""

        def decorate(thing: T) -> T:
            self.add(name, thing)
            return thing

        return decorate

    def names(self) -> list[str]:
        """All names, sorted."""
        return sorted({*self._load(), *self._others, *self._installed()})

    def get(self, name: str, *, flag: str) -> T:
        """The thing of that name.

        Raises:
            ConfigError: there is none (names the flag, the nearest and the choices), or its package is broken.
        """
        own = self._load()
        if name in own:
            return own[name]
        if name not in self._others and (points := self._installed().get(name)):
            self._import(name, points, flag)
        if name not in self._others:
            near = get_close_matches(name, self.names(), n=1)
            hint = f"did you mean {near[0]}? " if near else ""
            raise ConfigError(f"{flag} {name}: no such {self.kind}; {hint}choose from {', '.join(self.names())}")
        return self._others[name][0]

    def origin(self, name: str) -> str:
        """Where a plug-in comes from: its package and version, or the SHA-256 of its file. Empty for our own."""
        if name in self._load():
            return ""
        if name in self._others:
            return self._others[name][1]
        return ", ".join(map(_named, self._installed().get(name, [])))

    def offer(self, name: str, thing: T, origin: str) -> None:
        """Take a plug-in's, in place of one of another file. Raises ConfigError where the name is one of our own."""
        if name in self._load():
            raise ConfigError(f"{self.kind} {name} is built in; choose another name")
        self._others[name] = (thing, origin)

    def _installed(self) -> dict[str, list[EntryPoint]]:
        found: dict[str, list[EntryPoint]] = {}
        for point in _points().select(group=self.group):
            found.setdefault(point.name, []).append(point)
        return found

    def _import(self, name: str, points: Sequence[EntryPoint], flag: str) -> None:
        if len(points) > 1:
            raise ConfigError(f"{flag} {name}: {' and '.join(map(_named, points))} both offer it; uninstall one")
        [point] = points
        registered: Registered = []
        _taking.append(registered)
        try:
            thing = point.load()
        except UserError:
            raise
        except (Exception, SystemExit) as error:
            raise ConfigError(f"{flag} {name}: plug-in {_named(point)} ({point.value}): {told(error)}") from error
        finally:
            _taking.pop()
        if not isinstance(thing, ModuleType):
            registered.append((self, name, thing))
        for registry, other, found in registered:
            registry.offer(other, found, _named(point))

    def _load(self) -> dict[str, T]:
        if not self._complete:
            for module in pkgutil.iter_modules(self._path):
                importlib.import_module(f"{self._package}.{module.name}")
            self._complete = True
        return self._things


@dataclass(frozen=True)
class Plugin:
    """A file of Python that registers judges, presets or formats."""

    path: str
    sha256: str = ""
    """Of the file; empty: any."""

    @classmethod
    def of(cls, value: Any) -> Plugin:
        """From a path, or a mapping with path and sha256. Raises ConfigError for anything else."""
        if isinstance(value, Plugin):
            return value
        given = {"path": value} if isinstance(value, str) else value
        if not isinstance(given, dict) or set(given) - {"path", "sha256"} or not isinstance(given.get("path"), str):
            raise ConfigError(f"plugin: {value!r}: write the path of a Python file")
        return cls(**given)


def use(plugins: Sequence[Plugin]) -> tuple[Plugin, ...]:
    """Run each file once and take what it registers; returns them with their hashes.

    Raises:
        ConfigError: a file cannot be read, is not the one whose hash is given, fails (names its line), registers
            nothing, or what another of them or this package has under the same name.
    """
    used, taken = [], dict[tuple[str, str], str]()
    for plugin in plugins:
        path = str(Path(plugin.path).expanduser().resolve())
        try:
            content = Path(path).read_bytes()
        except OSError as error:
            raise ConfigError(f"--plugin {plugin.path}: {error.strerror}; name a file of Python") from error
        digest = hashlib.sha256(content).hexdigest()
        if plugin.sha256 not in ("", digest):
            raise ConfigError(
                f"--plugin {plugin.path}: is another file than these settings were made with (SHA-256 {digest[:12]}, "
                f"not {plugin.sha256[:12]}); bring that one back, or take its sha256 out of the settings"
            )
        if (path, digest) not in _files:
            _files[path, digest] = _run(plugin.path, path, content, digest)
        for registry, name, thing in _files[path, digest]:
            if (other := taken.setdefault((registry.kind, name), plugin.path)) != plugin.path:
                raise ConfigError(f"--plugin {plugin.path}: {registry.kind} {name} stands in {other} already")
            try:
                registry.offer(name, thing, digest)
            except ConfigError as error:
                raise ConfigError(f"--plugin {plugin.path}: {error}") from error
        used.append(Plugin(plugin.path, digest))
    return tuple(used)


def _run(shown: str, path: str, content: bytes, digest: str) -> Registered:
    module = ModuleType(f"depthlab_plugin_{digest[:16]}")
    module.__file__ = path
    sys.modules[module.__name__] = module  # where dataclasses look for what their annotations name
    registered: Registered = []
    _taking.append(registered)
    try:
        exec(compile(content, path, "exec", dont_inherit=True), module.__dict__)
    except (Exception, SystemExit) as error:
        del sys.modules[module.__name__]
        raise ConfigError(f"--plugin {shown}: {told(error, path)}") from error
    finally:
        _taking.pop()
    names = [(registry.kind, name) for registry, name, _ in registered]
    if twice := [f"{kind} {name}" for kind, name in dict.fromkeys(names) if names.count((kind, name)) > 1]:
        raise ConfigError(f"--plugin {shown}: registers {twice[0]} twice")
    if not registered:
        raise ConfigError(f"--plugin {shown}: registers nothing; decorate a judge, an architecture or a benchmark")
    return registered


def told(error: BaseException, path: str | None = None) -> str:
    """An error of a plug-in's code in one line, with the line it comes from: the last one in `path`, if given."""
    what = " ".join(f"{type(error).__name__}: {error}".split())
    if isinstance(error, SyntaxError) and error.filename:
        where = "" if error.filename == path else f"{error.filename} "
        return f"{where}line {error.lineno}: {type(error).__name__}: {error.msg}"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if path in (None, frame.filename)]
    if not frames:
        return what
    where = "" if path is not None else f"{frames[-1].filename} "
    return f"{where}line {frames[-1].lineno}: {what}"


@functools.cache
def _points() -> Any:
    """Of all groups, because finding them takes a while (its type is another one in Python 3.12)."""
    return entry_points()


def _named(point: EntryPoint) -> str:
    return "an unknown package" if point.dist is None else f"{point.dist.name} {point.dist.version}"
