"""Data that can be read once only, such as a pipe, as a file that can be read again."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import IO, Any

from evaluators.errors import RunError


class Source:
    """A file of samples. What is no regular file is copied once, for as long as this lives."""

    def __init__(self, name: str) -> None:
        """Raises RunError where a pipe cannot be read."""
        self.path = Path(name)
        self._copy: IO[Any] | None = None
        if not self.path.exists() or self.path.is_file() or self.path.is_dir():
            return
        try:
            self._copy = tempfile.NamedTemporaryFile(suffix=self.path.suffix)  # noqa: SIM115 - deleted with this
            with self.path.open("rb") as pipe:
                shutil.copyfileobj(pipe, self._copy)
            self._copy.flush()
        except OSError as error:
            raise RunError(f"--data {name}: {error.strerror or error}") from error
        self.path = Path(self._copy.name)

    def named(self, text: str, name: str) -> str:
        """A message about the copy, as one about what it was copied from."""
        return text if self._copy is None else text.replace(str(self.path), name)
