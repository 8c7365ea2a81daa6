"""The registry of normalization schemes. A new scheme is one new file in this folder and nothing else."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from normalization.plan import LayerPlan


@dataclass(frozen=True)
class Option:
    """A keyword option of a scheme: its type, its default and one line of help with the unit."""

    name: str
    type: Any
    default: Any
    help: str


@dataclass(frozen=True)
class Scheme:
    """A pure function (layer 1..L, depth L, options) -> LayerPlan, and what people should know about it."""

    name: str
    plan: Callable[..., LayerPlan]
    source: str
    initialization: str
    """The initialisation that its paper uses: a name in `normalization.initialization`."""
    either: tuple[str, ...] = ()
    """Options that stand in place of one another: the default of one holds while none of them is given."""
    discouraged: Mapping[str, str] = field(default_factory=dict)
    """Initialisations under which the scheme is known to lose its advantage, each with the reason."""

    @property
    def summary(self) -> str:
        """The first line of the plan function's docstring."""
        return (inspect.getdoc(self.plan) or "").splitlines()[0]

    @property
    def options(self) -> dict[str, Option]:
        """The scheme's keyword options, read from the signature of its plan function."""
        hints = get_type_hints(self.plan, include_extras=True)
        found = {}
        for parameter in inspect.signature(self.plan).parameters.values():
            if parameter.kind is inspect.Parameter.KEYWORD_ONLY:
                hint = hints[parameter.name]
                kind, text = get_args(hint) if get_origin(hint) is Annotated else (hint, "")
                found[parameter.name] = Option(parameter.name, kind, parameter.default, text)
        return found

    def resolve(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Every option with its value, defaults included, so that a stored config survives a changed default.

        Raises:
            ValueError: an option that this scheme does not have.
        """
        known = self.options
        for name in options:
            if name not in known:
                has = f"its options: {', '.join(known)}" if known else "it has no options"
                raise ValueError(f"scheme {self.name!r} has no option {name!r}; {has}")
        defaults = {name: option.default for name, option in known.items()}
        if any(options.get(name) is not None for name in self.either):
            defaults |= dict.fromkeys(self.either)
        return defaults | dict(options)

    def plans(self, depth: int, options: Mapping[str, Any]) -> list[LayerPlan]:
        """The plan of every layer, first to last.

        Raises:
            ValueError: an unknown option, or a value that the scheme refuses at this depth.
        """
        resolved = self.resolve(options)
        return [self.plan(layer, depth, **resolved) for layer in range(1, depth + 1)]


_SCHEMES: dict[str, Scheme] = {}
_ALIASES: dict[str, str] = {}


def scheme(
    name: str,
    *,
    source: str,
    aliases: tuple[str, ...] = (),
    either: tuple[str, ...] = (),
    initialization: str = "normal",
    discouraged: Mapping[str, str] | None = None,
) -> Callable[[Callable[..., LayerPlan]], Callable[..., LayerPlan]]:
    """Register the decorated plan function as a scheme."""

    def register(plan: Callable[..., LayerPlan]) -> Callable[..., LayerPlan]:
        for taken in (name, *aliases):
            if taken in _SCHEMES or taken in _ALIASES:
                raise ValueError(f"two normalization schemes are called {taken!r}")
        _SCHEMES[name] = Scheme(name, plan, source, initialization, either, discouraged or {})
        _ALIASES.update(dict.fromkeys(aliases, name))
        return plan

    return register


def get(name: str) -> Scheme:
    """The scheme of that name or alias.

    Raises:
        ValueError: there is none; names the choices and the nearest one.
    """
    canonical = _ALIASES.get(name, name)
    if canonical not in _SCHEMES:
        near = get_close_matches(str(name), [*_SCHEMES, *_ALIASES], n=1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        raise ValueError(f"unknown normalization scheme {name!r}{hint}; choose from {', '.join(names())}")
    return _SCHEMES[canonical]


def names(*, aliases: bool = False) -> tuple[str, ...]:
    """The registered schemes, sorted; with their aliases on request."""
    return tuple(sorted([*_SCHEMES, *_ALIASES] if aliases else _SCHEMES))


for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")
