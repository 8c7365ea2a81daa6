"""Errors that a user can mend: printed as one message with the remedy, without a traceback."""

from __future__ import annotations

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
