"""The one exception that `lab.data` raises at users."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from lab.errors import UserError


class DataError(UserError):
    """A setting, file or saved position that cannot be used; the message says which and what to do."""


def did_you_mean(name: str, choices: Iterable[str]) -> str:
    """`"; did you mean 'x', 'y'?"` for the choices close to `name`, or an empty string."""
    close = difflib.get_close_matches(name, list(choices), n=3)
    return f"; did you mean {', '.join(map(repr, close))}?" if close else ""


def missing_field(where: str, field: str, present: Iterable[str]) -> DataError:
    """The error for a record at `where` that lacks the field named by `--data.field`."""
    names = list(present)
    listed = ", ".join(map(repr, names)) or "none"
    return DataError(f"{where}: no field {field!r} (--data.field). Fields there: {listed}{did_you_mean(field, names)}")
