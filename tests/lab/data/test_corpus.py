"""The built-in corpus is there, is large enough, and is always the same."""

from __future__ import annotations

import sysconfig
from pathlib import Path

from lab.data import DataConfig
from lab.data.builtin import EXCLUDED, builtin_files
from lab.data.documents import Skipped
from lab.data.local import local_source


def test_the_builtin_corpus() -> None:
    files = builtin_files()
    root = Path(sysconfig.get_path("stdlib"))
    assert files == builtin_files() == sorted(files)
    assert sum(path.stat().st_size for path in files) > 5_000_000
    assert all(path.suffix == ".py" and EXCLUDED.isdisjoint(path.relative_to(root).parts) for path in files)
    skipped = Skipped()
    source = local_source(DataConfig())
    documents = list(source.documents(skipped))
    assert len(documents) > 400 and len(documents) + skipped.total() == len(files)
    assert sum(document.size for document in documents) > 5_000_000
    assert source.fingerprint(progress=False) == local_source(DataConfig()).fingerprint(progress=False)
