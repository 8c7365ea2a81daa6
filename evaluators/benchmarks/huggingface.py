from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from evaluators.benchmarks import Line, benchmark
from evaluators.errors import RunError


@benchmark("hf")
def huggingface(path: Path) -> Iterator[Line]:
    """A Hugging Face data set, NAME or NAME:SPLIT (train if not given), or a folder that `save_to_disk` wrote."""
    import datasets  # takes a second, which other formats should not wait for

    name, _, split = str(path).partition(":")
    try:
        if Path(name).is_dir() and any((Path(name) / file).exists() for file in ("dataset_info.json", "state.json")):
            rows = datasets.load_from_disk(name)
        elif (Path(name) / "dataset_dict.json").exists():
            rows = datasets.load_from_disk(name)[split or "train"]
        else:
            rows = datasets.load_dataset(name, split=split or "train")
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        # What datasets raises: no such set, split, connection or format; its message's first line says which.
        reason = str(error).strip().splitlines()[:1]
        raise RunError(f"--data {path}: {type(error).__name__}: {reason[0] if reason else 'cannot be read'}") from error
    for number, row in enumerate(rows, start=1):
        yield number, dict(row)
