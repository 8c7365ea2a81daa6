"""A run's folder, read back as samples for the statistics."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from evaluators.errors import RunError
from evaluators.network import restored
from evaluators.running.folder import VERDICTS, has_blank, read_records
from evaluators.running.metrics_file import refused
from evaluators.running.settings import load
from evaluators.statistics.clusters import clusters, keys
from evaluators.statistics.runs import JudgedRun, Sample
from evaluators.values import Failure, Layer, Review

_NOT_READ = ("calls",)


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
    samples, shared, single = [], [], 0
    networks: dict[str, Any] = {}
    for record in read_records(path / VERDICTS):
        watch(record)
        network = record.get("run", {}).get("network")
        networks[json.dumps(network, sort_keys=True)] = network
        if record["response2"] is None:
            single += 1
        else:
            samples.append(_sample(record))
            shared.append(keys(record["query"], (record["response1"], record["response2"])))
    if not samples:
        raise RunError(f"{flag} {folder}: no sample with two responses is judged in it")
    if twice := [name for name, count in Counter(sample.id for sample in samples).items() if count > 1]:
        raise RunError(f"{flag} {folder}: has two verdicts for {twice[0]!r}; delete one from {VERDICTS}")
    if len(networks) > 1:
        raise RunError(
            f"{flag} {folder}: holds verdicts of {len(networks)} networks, which have no figures in common; judge into "
            "another folder"
        )
    [stored] = networks.values()
    guessed = None
    if stored is None:
        # Of a version that did not write the network down: its preset's of today.
        config = load(path / "config.yaml", plugins=False)
        network, guessed = config.network.build(len(config.judge)), config.network.preset
    else:
        network = restored(stored)
    together = [replace(sample, cluster=name) for sample, name in zip(samples, clusters(shared), strict=True)]
    return JudgedRun(path, network, tuple(together), single, refused(path), guessed)


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
        language=record.get("language", ""),
        blank=has_blank(record),
    )


def _layer(items: Sequence[Mapping[str, Any]]) -> Layer:
    return [_item(item, Failure if "reason" in item else Review) for item in items]


def _item(item: Mapping[str, Any], kind: type[Review] | type[Failure]) -> Review | Failure:
    known = {field.name for field in fields(kind)} - set(_NOT_READ)
    values = {name: value for name, value in item.items() if name in known}
    if "scores" in values:
        values["scores"] = tuple(values["scores"])
    return kind(**values)
