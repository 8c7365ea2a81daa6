"""A run's folder: `verdicts.jsonl`, one line a sample as it is finished; settings, metrics, versions beside it."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from decimal import Decimal
from importlib.metadata import version
from pathlib import Path
from typing import Any, BinaryIO

import yaml
from filelock import FileLock, Timeout

from evaluators.errors import RunError
from evaluators.running import metrics_file
from evaluators.running.config import JudgeConfig
from evaluators.running.settings import differences, dump
from evaluators.samples import Pair
from evaluators.suspicion import suspicious
from evaluators.values import Judgement, Record

VERDICTS = "verdicts.jsonl"


def to_record(pair: Pair, judgement: Judgement, *, run: Mapping[str, Any]) -> dict[str, Any]:
    """All that is known of a sample, so that every figure can be computed again."""
    layers = [[asdict(item) for item in layer] for layer in judgement.layers]
    calls = [*judgement.roles_calls, *(call for layer in judgement.layers for item in layer for call in item.calls)]
    return {
        "id": pair.id,
        "digest": pair.digest,
        "dataset": pair.dataset,
        "family": pair.family,
        "language": pair.language,
        "human": pair.human,
        "verdict": asdict(judgement.verdict),
        "query": pair.query,
        "response1": pair.response1,
        "response2": pair.response2,
        "reference": pair.reference,
        "system1": pair.system1,
        "system2": pair.system2,
        "suspicious": suspicious(pair),
        "shortened": sum(item.shortened for layer in judgement.layers for item in layer)
        + sum(failure.shortened for failure in judgement.failures),
        "roles": [asdict(role) for role in judgement.roles],
        "roles_calls": [asdict(call) for call in judgement.roles_calls],
        "roles_failures": [asdict(failure) for failure in judgement.failures],
        "layers": layers,
        "spent": _spent(calls),
        "run": dict(run),
    }


def _spent(calls: list[Record]) -> dict[str, Any]:
    made = [call for call in calls if not call.cached]
    used = [call.usage for call in made if call.usage is not None]
    costs = [Decimal(call.cost) for call in made if call.cost is not None]
    return {
        "calls": len(made),
        "cached": len(calls) - len(made),
        "prompt_tokens": sum(usage.prompt for usage in used),
        "completion_tokens": sum(usage.completion for usage in used),
        "cost": str(sum(costs, Decimal(0))) if costs or not used else None,
    }


def read_records(path: Path) -> Iterator[dict[str, Any]]:
    """The records of a `verdicts.jsonl`, one at a time.

    Raises:
        RunError: a line is no record; names it.
    """
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                record = json.loads(line)
                record["id"], record["verdict"]["winner"], record["layers"]
            except (ValueError, KeyError, TypeError) as error:
                raise RunError(f"{path}: line {number} is no record of a verdict; mend or delete it") from error
            yield record


def has_blank(record: Mapping[str, Any]) -> bool:
    """Whether a response of a sample has no text: it is judged like others, and counted."""
    return any(record[name] is not None and not record[name].strip() for name in ("response1", "response2"))


class Folder:
    """A run's folder, locked; `done` knows which samples have a record already."""

    def __init__(self, path: Path) -> None:
        """Raises RunError where another process judges into the folder."""
        self.path = path
        self.done: dict[int, str] = {}
        try:
            path.mkdir(parents=True, exist_ok=True)
            self._lock = FileLock(path / ".lock", timeout=0)
            self._lock.acquire()
        except Timeout as error:
            raise RunError(f"--out {path}: another process is judging into it; wait for it or name another") from error
        except OSError as error:
            raise RunError(f"--out {path}: {error.strerror}") from error
        self._file: BinaryIO | None = None
        self._added = False

    def open(self, config: JudgeConfig, *, forget_unscored: bool) -> Iterator[dict[str, Any]]:
        """Go on from what is there; yields the records that stand.

        Raises:
            RunError: the folder holds another run's results, or something else.
        """
        self._check_settings(config)
        verdicts = self.path / VERDICTS
        if verdicts.exists():
            _mend(verdicts)
            if forget_unscored:
                self._keep_scored(verdicts)
            for record in read_records(verdicts):
                self.done[hash(record["id"])] = record["digest"]
                yield record
        (self.path / "config.yaml").write_text(dump(config), encoding="utf-8")
        (self.path / "environment.json").write_text(json.dumps(environment(), indent=2) + "\n", encoding="utf-8")
        self._file = verdicts.open("ab")

    def _keep_scored(self, path: Path) -> None:
        part, left_out = path.with_suffix(".part"), 0
        with part.open("wb") as file:
            for record in read_records(path):
                if record["verdict"]["scores"] is None:
                    left_out += 1
                else:
                    file.write(json.dumps(record, ensure_ascii=False).encode() + b"\n")
        if left_out:
            metrics_file.forget(self.path)
            os.replace(part, path)
        else:
            part.unlink()

    def _check_settings(self, config: JudgeConfig) -> None:
        stored = self.path / "config.yaml"
        if not stored.exists():
            if others := [item for item in self.path.iterdir() if item.name != ".lock"]:
                raise RunError(
                    f"--out {self.path}: holds {others[0].name} and no config.yaml: not a judge's; name another"
                )
            return
        try:
            settings = yaml.safe_load(stored.read_text(encoding="utf-8"))
            changed = differences(settings, config)
        except (yaml.YAMLError, AttributeError, UnicodeDecodeError) as error:
            raise RunError(f"--out {self.path}: its config.yaml cannot be read; name another folder") from error
        if changed and (self.path / VERDICTS).exists():
            told = "; ".join(changed[:5])
            raise RunError(f"--out {self.path}: holds a run with other settings ({told}); name another folder")

    def has(self, pair: Pair) -> bool:
        """Whether the sample is judged already.

        Raises:
            RunError: under its id stands another sample.
        """
        digest = self.done.get(hash(pair.id))
        if digest is not None and digest != pair.digest:
            raise RunError(
                f"--out {self.path}: has judged another sample under the id {pair.id!r}; name another folder"
            )
        return digest is not None

    def add(self, record: Mapping[str, Any]) -> None:
        """Append a record; it is in the file when this returns."""
        assert self._file is not None
        if not self._added:
            metrics_file.forget(self.path)
            self._added = True
        self._file.write(json.dumps(record, ensure_ascii=False).encode() + b"\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file and let other processes in."""
        if self._file is not None:
            self._file.close()
        self._lock.release()


def _mend(path: Path) -> None:
    """Cut off a last line that a killed process left half written."""
    with path.open("rb+") as file:
        size = file.seek(0, os.SEEK_END)
        end = size
        while end > 0:
            start = max(0, end - 65536)
            file.seek(start)
            if (at := file.read(end - start).rfind(b"\n")) >= 0:
                file.truncate(start + at + 1)
                return
            end = start
        file.truncate(0)


def environment() -> dict[str, Any]:
    """Versions, and the command. No flag of ours takes a key, so none stands there."""
    packages = ("depthlab", "openai", "jinja2", "pydantic")
    return {
        "versions": {name: version(name) for name in packages} | {"python": platform.python_version()},
        "command": sys.argv,
    }
