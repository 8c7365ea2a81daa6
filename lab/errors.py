"""Errors that a user can mend: printed as one message with the remedy, without a traceback."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path

EXIT_ERROR = 1
"""Exit code of a run that cannot start or go on."""
EXIT_USAGE = 2
"""Exit code of impossible settings."""


class UserError(ValueError):
    """What is wrong, where, and what to do instead. All ranks raise it alike; rank 0 tells it."""

    reported_by = 0


class ConfigError(UserError):
    """A setting that is unknown or impossible; the message names the flag, its value and the choices."""


class RunError(UserError):
    """A run that cannot start or go on as things are on disk or in the numbers."""


class LostRankError(RunError):
    """Other ranks are gone, so this one cannot go on, nor leave the process group in order."""

    def __init__(self, text: str, *, reported_by: int) -> None:
        super().__init__(text)
        self.reported_by = reported_by
        """The rank that tells it; rank 0 may be gone."""


def tell(error: Exception) -> int:
    """Print what is wrong in one line on standard error, whatever line ends its names and sources hold.

    Returns:
        The exit code.
    """
    print(f"error: {one_line(error)}", file=sys.stderr, flush=True)
    return exit_code(error)


def exit_code(error: Exception) -> int:
    """2 for impossible settings, else 1."""
    return EXIT_USAGE if isinstance(error, ConfigError) else EXIT_ERROR


def one_line(text: object) -> str:
    """A text in one line."""
    return " ".join(str(text).split())


_OF_THE_DISK = (
    errno.EACCES,
    errno.EPERM,
    errno.ENOTDIR,
    errno.EROFS,
    errno.ENOSPC,
    errno.EDQUOT,
    errno.ENAMETOOLONG,
    errno.ELOOP,
)


def of_the_disk(error: OSError) -> str | None:
    """What a person has to know of a file that cannot be read or written; None for any other error."""
    if error.errno not in _OF_THE_DISK:
        return None
    remedy = {
        errno.ENOSPC: "make room on its disk",
        errno.EDQUOT: "make room in the quota",
        errno.EACCES: "ask for the permission, or name another place",
        errno.EPERM: "ask for the permission, or name another place",
    }.get(error.errno, "name another place")
    return f"{_closed(error) or error.filename or 'output'}: {error.strerror}; {remedy}"


def _closed(error: OSError) -> Path | None:
    """The first folder above a file that lets nobody like us through: what has to be opened."""
    if error.errno != errno.EACCES or not isinstance(error.filename, str):
        return None
    above = reversed(Path(error.filename).parents)
    return next((path for path in above if os.path.isdir(path) and not os.access(path, os.X_OK)), None)
