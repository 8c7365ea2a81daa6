"""A run's folder as samples: what people said, what the judge said, in each order, and every review."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from evaluators.aggregation import aggregate
from evaluators.errors import RunError
from evaluators.running.config import JudgeConfig
from evaluators.running.folder import VERDICTS, read_records
from evaluators.running.settings import load
from evaluators.values import Failure, Layer, Review, Verdict

_NOT_READ = ("calls",)


@dataclass(frozen=True)
class Sample:
    """A judged pair."""

    id: str
    digest: str
    query: str
    family: str
    dataset: str
    human: int | None
    winner: int | None
    margin: float | None
    reason: str | None
    lengths: tuple[int, int]
    """Characters of both responses."""
    layers: tuple[Layer, ...]
    systems: tuple[str, str] | None = None
    """What wrote the responses, where the data say."""

    def verdict(self, aggregation: str, tie_margin: float, *, depth: int | None = None) -> Verdict:
        """What another aggregation of the same reviews says, of the first `depth` layers alone."""
        if not self.layers:
            return Verdict(None, None, None, 0, 0, self.reason)
        return aggregate(self.layers[:depth], aggregation, tie_margin)

    def in_order(self, order: str, aggregation: str, tie_margin: float) -> int | None:
        """The winner by the reviews of one answer order alone."""
        layers = [[item for item in layer if item.order == order] for layer in self.layers]
        if not layers or not any(layers):
            return None
        return aggregate(layers, aggregation, tie_margin).winner


@dataclass(frozen=True)
class JudgedRun:
    """All samples of a run that compare two responses."""

    path: Path
    config: JudgeConfig
    samples: tuple[Sample, ...]
    single: int
    """Samples of one response, which have no winner and are left out."""

    @property
    def aggregation(self) -> str:
        """The run's own."""
        return self.config.network.build(len(self.config.judge)).aggregation

    @property
    def tie_margin(self) -> float:
        """The run's own, in the aggregation's unit."""
        return self.config.network.build(len(self.config.judge)).tie_margin

    @property
    def both_orders(self) -> bool:
        """Whether the judge saw both answer orders."""
        return self.config.network.build(len(self.config.judge)).both_orders

    @property
    def labelled(self) -> tuple[Sample, ...]:
        """Samples of which people said something."""
        return tuple(sample for sample in self.samples if sample.human is not None)


def read_run(
    folder: str | Path, *, flag: str = "RUN", watch: Callable[[Mapping[str, Any]], object] = lambda record: None
) -> JudgedRun:
    """Read a folder that `depthlab judge run` wrote.

    Args:
        watch: is given every record, which is not kept.

    Raises:
        RunError: no such run, or one that holds no comparison.
        ConfigError: its settings cannot be read.
    """
    path = Path(folder)
    for name in (VERDICTS, "config.yaml"):
        if not (path / name).is_file():
            raise RunError(f"{flag} {folder}: holds no {name}; name the folder of a judge's run")
    config = load(path / "config.yaml")
    samples, single = [], 0
    for record in read_records(path / VERDICTS):
        watch(record)
        if record["response2"] is None:
            single += 1
        else:
            samples.append(_sample(record))
    if not samples:
        raise RunError(f"{flag} {folder}: no sample with two responses is judged in it")
    if twice := [name for name, count in Counter(sample.id for sample in samples).items() if count > 1]:
        raise RunError(f"{flag} {folder}: has two verdicts for {twice[0]!r}; delete one from {VERDICTS}")
    return JudgedRun(path, config, tuple(samples), single)


def _sample(record: Mapping[str, Any]) -> Sample:
    verdict = record["verdict"]
    return Sample(
        id=record["id"],
        digest=record["digest"],
        query=record["query"],
        family=record["family"],
        dataset=record["dataset"],
        human=None if record["human"] is None else int(record["human"]),
        winner=verdict["winner"],
        margin=verdict["margin"],
        reason=verdict["reason"],
        lengths=(len(record["response1"]), len(record["response2"])),
        layers=tuple(_layer(layer) for layer in record["layers"]),
        systems=None if record.get("system1") is None else (record["system1"], record["system2"]),
    )


def _layer(items: Sequence[Mapping[str, Any]]) -> Layer:
    return [_item(item, Failure if "reason" in item else Review) for item in items]


def _item(item: Mapping[str, Any], kind: type[Review] | type[Failure]) -> Review | Failure:
    known = {field.name for field in fields(kind)} - set(_NOT_READ)
    values = {name: value for name, value in item.items() if name in known}
    if "scores" in values:
        values["scores"] = tuple(values["scores"])
    return kind(**values)
