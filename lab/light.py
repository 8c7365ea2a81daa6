"""Reading a command line without torch: `normalization` is there for its schemes, and runs when it is first used."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec, module_from_spec
from types import ModuleType
from typing import Any

_PACKAGE = "normalization"


class _Deferred(ModuleType):
    """A package whose submodules can be imported before it has run; it runs when a name of its own is asked for.
    importlib's LazyLoader would run it for its `__path__`, which every import of a submodule asks for.
    """

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # what Python looks for in every module
            raise AttributeError(name)
        _run(self)
        return getattr(self, name)


def _run(package: ModuleType) -> None:
    if isinstance(package, _Deferred):
        package.__class__ = ModuleType  # type: ignore[assignment]
        assert package.__spec__ is not None and package.__spec__.loader is not None
        package.__spec__.loader.exec_module(package)


@contextmanager
def without_torch() -> Iterator[None]:
    """Within, the schemes of `normalization` can be imported without its models, which bring torch and transformers.
    What ends in order leaves the package whole; what ends with an error is about to end the process.
    """
    if _PACKAGE not in sys.modules:
        spec = find_spec(_PACKAGE)
        assert spec is not None
        package = module_from_spec(spec)
        package.__class__ = _Deferred
        sys.modules[_PACKAGE] = package
    yield
    _run(sys.modules[_PACKAGE])
