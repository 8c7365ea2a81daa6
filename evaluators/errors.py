"""Errors that a user can mend: printed as one message with the remedy, without a traceback."""

from __future__ import annotations

EXIT_ERROR = 1
EXIT_USAGE = 2
EXIT_STOPPED = 75
"""Asked to stop, or the budget is spent: everything is saved, and the same command goes on."""


class UserError(Exception):
    """What is wrong, where, and what to do instead.

    No ValueError: parsers of flags and files take those for their own, and wrap the message in theirs.
    """


class ConfigError(UserError):
    """A setting that is unknown or impossible; the message names the flag, its value and the choices."""


class RunError(UserError):
    """A run that cannot start or go on: data, folders, a server that refuses."""
