"""The built-in corpus: the source text of the installed Python standard library."""

from __future__ import annotations

import sysconfig
from pathlib import Path

from lab.data.errors import DataError

EXCLUDED = frozenset({"__pycache__", "dist-packages", "encodings", "idle_test", "site-packages", "test", "tests"})
"""Folders left out: third-party packages, tests, and tables of character codes (`encodings`)."""


def builtin_files() -> list[Path]:
    """The `.py` files of the standard library, about 10 MB of English and code, in sorted order.

    Raises:
        DataError: this Python was installed without its source.
    """
    root = Path(sysconfig.get_path("stdlib"))
    files = [path for path in sorted(root.rglob("*.py")) if EXCLUDED.isdisjoint(path.relative_to(root).parts)]
    if not files:
        raise DataError(
            f"--data.source builtin: this Python has no standard library source in {root}; give files, a "
            "folder or a Hugging Face data set with --data.source"
        )
    return files
