"""A run folder, or the record of any diagnosed model, as typed data. What is missing or broken becomes a notice."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from lab.checkpoint import manifest
from lab.checkpoint.folder import FOLDER, SUPERSEDED, path_of
from lab.config.names import flat
from lab.diagnostics.record import Record, load
from lab.diagnostics.values import Figure
from lab.errors import RunError
from lab.report.paths import check, check_one
from lab.runfolder import metrics
from lab.runfolder.history import history

CONFIG = "config.yaml"
ENVIRONMENT = "environment.json"
DIAGNOSTICS = "diagnostics"


@dataclass(frozen=True)
class Run:
    """What is known of one run or model."""

    name: str
    path: Path
    config: dict[str, Any]
    """Settings by their dotted names; empty for a model that was not trained here."""
    environment: dict[str, Any]
    metrics: list[dict[str, Any]]
    records: dict[int | None, Record]
    """Step -> record, in order; the key None for a model that has no step."""
    notices: list[str] = field(default_factory=list)

    @property
    def seed(self) -> Any:
        """The seed, None if it is not known."""
        return self.config.get("train.seed")

    @property
    def steps(self) -> list[int]:
        """Steps at which there is a record."""
        return [step for step in self.records if step is not None]

    def record(self, step: int | None) -> Record | None:
        """The record at a step; that of a model without steps belongs to all of them."""
        return self.records.get(step, self.records.get(None))

    def figure(self, name: str, step: int | None) -> Figure | None:
        """A figure such as `angular/distance`, where it was measured."""
        record = self.record(step)
        diagnostic, _, figure = name.partition("/")
        return None if record is None else record.diagnostics.get(diagnostic, {}).get(figure)

    def series(self, name: str) -> tuple[list[int], list[float]]:
        """Steps and values of a metric; NaN where the value was not finite."""
        found = [(entry["step"], entry[name]) for entry in self.metrics if name in entry and "step" in entry]
        return [step for step, _ in found], [_number(value) for _, value in found]

    def last(self, name: str) -> float | None:
        """The last value of a metric."""
        values = self.series(name)[1]
        return values[-1] if values else None

    def recent(self, name: str) -> float | None:
        """The median of a metric over the last tenth of the run's steps, or over its last 10 values if those are more:
        one step's value is mostly noise."""
        steps, values = self.series(name)
        if not values or math.isnan(values[-1]):
            return self.last(name)
        tenth = sum(step > 0.9 * steps[-1] for step in steps)
        return statistics.median(value for value in values[-max(tenth, 10) :] if not math.isnan(value))


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else float("nan")


def read(path: str | Path) -> Run:
    """Read a run folder, a record (`.json`), or a folder of records.

    Raises:
        RunError: there is nothing of the kind at `path`; a single record that cannot be read.
    """
    path = Path(path)
    check_one(path)
    if path.suffix == ".json" and not path.is_dir():
        record = load(path)
        return Run(_record_name(record, path), path, {}, {}, [], {record.model.get("step"): record})
    notices: list[str] = []
    is_run = (path / CONFIG).is_file() or (path / metrics.NAME).is_file()
    folder = path / DIAGNOSTICS if (path / DIAGNOSTICS).is_dir() else path
    records = {} if is_run and folder == path else _records(folder, notices)
    if is_run:
        records = _of_this_course(path, records, notices)
    if not is_run and not records:
        raise RunError(
            f"{path}: neither a run folder (no {CONFIG}, no {metrics.NAME}) nor a folder of records that can be read"
            + "".join(f"; {notice}" for notice in notices[:3])
        )
    config = flat(_part(path / CONFIG, notices, yaml.safe_load)) if is_run else {}
    environment = _part(path / ENVIRONMENT, notices, json.loads) if is_run else {}
    for step, what in history(environment) if config else ():
        notices.append(f"After step {step}: {what}")
        # With a setting that held from some step on it is another run than if it had held all along. Of which run it is
        # a branch must not keep branches of several seeds apart.
        place, short = f"after step {step}", "branch" if what.startswith("branch") else what
        config[place] = f"{config[place]}; {short}" if place in config else short
    entries = _metrics(path, notices) if is_run else []
    if is_run and not records and not any("record" in notice for notice in notices):
        notices.append(f"No diagnostics yet; measure its checkpoints with: depthlab diagnose {path}")
    return Run(path.resolve().name, path, config, environment, entries, records, notices)


def read_all(paths: list[str]) -> list[Run]:
    """Read several, and give those with equal names names that tell them apart.

    Raises:
        ConfigError: one is named twice.
        RunError: what `read` raises.
    """
    check(paths)
    runs = [read(path) for path in paths]
    names = [run.name for run in runs]
    return [run if names.count(run.name) == 1 else Run(str(run.path), *list(vars(run).values())[1:]) for run in runs]


def _record_name(record: Record, path: Path) -> str:
    if "step" in record.model:
        return f"{path.resolve().parent.parent.name} {path.stem}"
    return str(record.model.get("name", path.stem))


def _part(path: Path, notices: list[str], parse: Callable[[str], Any]) -> dict[str, Any]:
    """A file of keys and values; empty, with a notice, if it is not there or damaged."""
    try:
        content = parse(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        notices.append(f"{path.name} is missing; what it says is left out")
        return {}
    except (OSError, ValueError, yaml.YAMLError) as error:
        notices.append(f"{path.name} cannot be read ({type(error).__name__}); what it says is left out")
        return {}
    if not isinstance(content, dict):
        notices.append(f"{path.name} holds no keys and values; left out")
        return {}
    return content


def _metrics(run_dir: Path, notices: list[str]) -> list[dict[str, Any]]:
    """All whole records, in the order of the file."""
    if not (run_dir / metrics.NAME).is_file():
        notices.append(f"{metrics.NAME} is missing: no training curves yet")
        return []
    try:
        return metrics.read(run_dir, say=notices.append)
    except OSError as error:
        notices.append(f"{metrics.NAME} cannot be read ({type(error).__name__}); what it says is left out")
        return []


def _records(folder: Path, notices: list[str]) -> dict[int | None, Record]:
    found: list[tuple[int | None, Record]] = []
    for path in sorted(folder.glob("*.json")):
        try:
            record = load(path)
        except (ValueError, OSError, AssertionError, AttributeError) as error:
            notices.append(f"The record {path.name} is left out: {str(error) or type(error).__name__}")
            continue
        found.append((record.model.get("step"), record))
        notices += [f"{path.stem}: {name} was not measured: {why}" for name, why in record.failures.items()]
    found.sort(key=lambda pair: -1 if pair[0] is None else pair[0])
    if len({record.probe.id for _, record in found}) > 1:
        notices.append(
            "Its records were measured on different probes: differences between checkpoints are partly of text"
        )
    return dict(found)


def _of_this_course(run_dir: Path, records: dict[int | None, Record], notices: list[str]) -> dict[int | None, Record]:
    """The records without those of another course: of weights that the checkpoint of their step does not have, or that
    were set aside."""
    kept = {}
    for step, record in records.items():
        digest = record.model.get("digest")
        here = None if step is None else _digest(path_of(run_dir, step))
        aside = [] if step is None or here == digest else (run_dir / FOLDER / SUPERSEDED).glob(f"step-{step:06}*")
        if (here is not None and here != digest) or digest in map(_digest, aside):
            notices.append(
                f"The record of step {step} is left out: it was measured on other weights, of a course that the run "
                f"has left; measure anew with depthlab diagnose {run_dir} --again"
            )
        else:
            kept[step] = record
    return kept


def _digest(checkpoint: Path) -> str | None:
    """Of its weights, by its manifest; None where there is no complete one."""
    try:
        return manifest.read(checkpoint).model_digest()
    except (manifest.DamagedError, KeyError, TypeError):
        return None
