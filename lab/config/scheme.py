"""The section `normalization` of the settings, made from the schemes that there are."""

from __future__ import annotations

import dataclasses
from dataclasses import field
from typing import Annotated, Any

import tyro

from lab.errors import ConfigError
from normalization.schemes import get as get_scheme  # not from the package, which brings torch
from normalization.schemes import names as scheme_names
from normalization.specification import NormalizationSpec


class _Normalization:
    """Where the norms stand and how the streams around them are scaled."""

    scheme: str
    final_norm: bool

    def __post_init__(self) -> None:
        try:
            self.spec()
        except ValueError as error:
            raise ConfigError(f"--normalization.scheme {self.scheme}: {error}") from error

    def spec(self) -> NormalizationSpec:
        """The scheme with the options that were given."""
        given = {name: getattr(self, name) for name in _scheme_options() if getattr(self, name) is not None}
        return NormalizationSpec.make(self.scheme, final_norm=self.final_norm, **given)


def _scheme_options() -> dict[str, tuple[Any, str]]:
    """Option -> (type, help) over all schemes, so that a new scheme's options are flags without an edit here."""
    options: dict[str, tuple[Any, str]] = {}
    for name in scheme_names():
        for option in get_scheme(name).options.values():
            if option.name in options and options[option.name][0] != option.type:
                raise TypeError(f"two schemes give the option {option.name!r} different types")
            earlier = f"{options[option.name][1]}; " if option.name in options else ""
            default = "" if option.default is None else f" ({option.default} if not given)"
            options[option.name] = (option.type, f"{earlier}{name}: {option.help or option.name}{default}")
    return options


def _scheme_field(kind: Any, text: str, default: Any) -> tuple[Any, Any]:
    # An option of several types is a text on the command line; YAML and Python may give any of them.
    if kind is Any:
        text_only = tyro.conf.arg(help=text, constructor=str, help_behavior_hint="")
        return Annotated[kind, text_only], field(default=default)
    return Annotated[kind, tyro.conf.arg(help=text)], field(default=default)


NormalizationConfig: Any = dataclasses.make_dataclass(
    "NormalizationConfig",
    [
        (
            "scheme",
            Annotated[
                str,
                tyro.conf.arg(
                    # Checked by the registry, which knows the nearest name; shown as the choices that there are.
                    metavar="{" + ",".join(scheme_names(aliases=True)) + "}",
                    help=" ".join(f"{name}: {get_scheme(name).summary.rstrip('.')}." for name in scheme_names()),
                ),
            ],
            field(default="pre"),
        ),
        (
            "final_norm",
            *_scheme_field(
                bool,
                "Keep the model's final norm (post and deepnorm normalise twice with it, as published).",
                True,
            ),
        ),
        *(
            (name, *_scheme_field(kind if kind is Any else kind | None, text[0].upper() + text[1:] + ".", None))
            for name, (kind, text) in _scheme_options().items()
        ),
    ],
    bases=(_Normalization,),
    frozen=True,
    namespace={"__doc__": _Normalization.__doc__, "__module__": __name__},
)
