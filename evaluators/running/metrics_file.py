"""A run's `metrics.json`: the counts of `judge run`, and beside them the "statistics" of `judge metrics` and `report`.

It is always of the verdicts that stand beside it: before the first of a run's new verdicts is written it is deleted,
and at the run's end it is there again. Statistics are kept only where no verdict came or went, since they would be of
other samples.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from evaluators.errors import RunError

METRICS = "metrics.json"


def write_counts(folder: Path, counts: Mapping[str, Any]) -> None:
    """Write what a run has come to; keeps statistics that are there and of as many samples.

    Raises:
        RunError: the file cannot be read or written.
    """
    statistics = _read(folder).get("statistics")
    if statistics is not None and _samples(statistics) == counts["samples"]:
        counts = {**counts, "statistics": statistics}
    write_json(folder / METRICS, counts)


def _samples(statistics: Mapping[str, Any]) -> int:
    return int(statistics["samples"] + statistics["single_responses_left_out"])


def write_statistics(folder: Path, statistics: Mapping[str, Any]) -> None:
    """Add statistics to the counts, in place of earlier ones. Raises RunError as `write_counts`."""
    write_json(folder / METRICS, {**_read(folder), "statistics": statistics})


def refused(folder: Path) -> dict[str, str] | None:
    """Number of a line of the data that the run passed over -> why; None where no run has come to its end here."""
    data = _read(folder).get("data")
    return None if data is None else dict(data["refused"])


def forget(folder: Path) -> None:
    """Delete the file, because the verdicts are about to change."""
    (folder / METRICS).unlink(missing_ok=True)


def _read(folder: Path) -> dict[str, Any]:
    path = folder / METRICS
    try:
        return dict(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else {}
    except OSError as error:
        raise RunError(f"{path}: {error.strerror}") from error
    except (ValueError, TypeError) as error:
        raise RunError(f"{path}: is no JSON object; delete it") from error


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Beside, then renamed. Raises RunError where it cannot be written."""
    part = path.with_suffix(".json.part")
    try:
        part.write_text(
            json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False, default=dataclasses.asdict) + "\n",
            encoding="utf-8",
        )
        os.replace(part, path)
    except OSError as error:
        raise RunError(f"{path}: {error.strerror}") from error
