"""A run's folder: `verdicts.jsonl`, one line a sample as it is finished; settings, metrics, versions beside it."""

from __future__ import annotations

import json
import os
import platform
import sys
import traceback
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from decimal import Decimal
from importlib.metadata import version
from pathlib import Path
from typing import Any, BinaryIO

import yaml
from filelock import FileLock, Timeout

from evaluators.asking.ledger import LEDGER, Bill, Ledger
from evaluators.errors import RunError
from evaluators.reading.suspicion import suspicious
from evaluators.running import metrics_file
from evaluators.running.config import JudgeConfig
from evaluators.running.settings import differences, dump
from evaluators.samples import Pair
from evaluators.storing import clean, json_line, without_half_line, write_whole
from evaluators.values import Failure, Judgement, Record, Verdict

VERDICTS = "verdicts.jsonl"
_ANOTHER = "name another folder: calls that are the same are taken from the cache"


def to_record(
    pair: Pair, judgement: Judgement, *, run: Mapping[str, Any], calls: Sequence[Record] | None = None
) -> dict[str, Any]:
    """All that is known of a sample, so that every figure can be computed again.

    Args:
        calls: those that were made for it; None: those that the judgement holds.

    Raises:
        ValueError: the verdict has a winner that there is not.
    """
    if judgement.verdict.winner not in (None, 0, 1, 2):
        raise ValueError(f"a verdict for response {judgement.verdict.winner!r}")
    layers = [[asdict(item) for item in layer] for layer in judgement.layers]
    told = [*judgement.roles_calls, *(call for layer in judgement.layers for item in layer for call in item.calls)]
    calls = told if calls is None else calls
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
        "calls_elsewhere": [asdict(call) for call in _beyond(told, calls)],
        "spent": _spent(calls),
        "run": dict(run),
    }


def _beyond(told: Sequence[Record], calls: Sequence[Record]) -> list[Record]:
    """Calls that were made for a sample and stand in no part of what its network returned."""
    left = Counter(call.key for call in told)
    beyond = []
    for call in calls:
        if left[call.key]:
            left[call.key] -= 1
        else:
            beyond.append(call)
    return beyond


def _spent(calls: Sequence[Record]) -> dict[str, Any]:
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


def broken(error: Exception, calls: Sequence[Record]) -> Judgement:
    """Of a sample whose judging raised what nothing should: unscored, with where that came from."""
    reason = clean(f"internal error: {type(error).__name__}: {error}"[:300])
    trace = clean("".join(traceback.format_exception(error)))
    failure = Failure(0, 0, "12", 0, "internal", reason, trace=trace)
    return Judgement((), tuple(calls), (), Verdict(None, None, None, 0, 0, reason), failures=(failure,))


def is_partial(record: Mapping[str, Any]) -> bool:
    """Whether anything of a sample failed: its verdict, its roles or a review."""
    reviews = (item for layer in record["layers"] for item in layer)
    return (
        record["verdict"]["scores"] is None
        or bool(record.get("roles_failures"))
        or any("reason" in item for item in reviews)
    )


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

    ledger: Ledger

    def __init__(self, path: Path) -> None:
        """Raises RunError where another process judges into the folder."""
        self.path = path
        self.done: dict[int, str] = {}
        self._made, self._first = not path.exists(), not (path / ".lock").exists()
        self._file: BinaryIO | None = None
        self._added = False
        self.ledger = Ledger()
        try:
            path.mkdir(parents=True, exist_ok=True)
            self._lock = FileLock(path / ".lock", timeout=0)
            self._lock.acquire()
        except Timeout as error:
            raise RunError(f"--out {path}: another process is judging into it; wait for it or name another") from error
        except OSError as error:
            raise RunError(f"--out {path}: {error.strerror}; name another folder") from error

    def open(
        self, config: JudgeConfig, made_by: Mapping[str, Any], *, forget_failed: bool = False
    ) -> Iterator[dict[str, Any]]:
        """Go on from what is there; yields the records that stand. Open once all are read.

        Args:
            made_by: what decides the verdicts; those that are there must have been made by the same.
            forget_failed: leave out samples of which anything failed.

        Raises:
            RunError: the folder holds another run's results, or something else, or cannot be written.
        """
        self._check_settings(config)
        verdicts, ledger = self.path / VERDICTS, self.path / LEDGER
        bill = None if ledger.exists() else Bill()
        try:
            if verdicts.exists():
                without_half_line(verdicts)
                for record in read_records(verdicts):
                    self._check_maker(record, made_by)
                    if bill is not None:
                        bill.add_calls(record)
                if forget_failed:
                    self._forget_failed(verdicts)
                for record in read_records(verdicts):
                    self.done[hash(record["id"])] = record["digest"]
                    yield record
            write_whole(self.path / "config.yaml", dump(config))
            write_whole(self.path / "environment.json", json.dumps(environment(), indent=2) + "\n")
            self._file = verdicts.open("ab")
        except OSError as error:
            raise RunError(f"--out {self.path}: {error.strerror or error}") from error
        self.ledger = Ledger(ledger, bill)

    def _forget_failed(self, path: Path) -> None:
        part, left_out = path.with_suffix(".part"), 0
        with part.open("wb") as file:
            for record in read_records(path):
                if is_partial(record):
                    left_out += 1
                else:
                    file.write(json_line(record))
        if left_out:
            metrics_file.forget(self.path)
            os.replace(part, path)
        else:
            part.unlink()

    def _check_settings(self, config: JudgeConfig) -> None:
        stored = self.path / "config.yaml"
        if not stored.exists():
            if others := [item for item in self.path.iterdir() if item.name not in (".lock", "config.yaml.part")]:
                raise RunError(
                    f"--out {self.path}: holds {others[0].name} and no config.yaml: not a judge's; name another"
                )
            return
        try:
            settings = yaml.safe_load(stored.read_text(encoding="utf-8"))
            changed = differences(settings, config)
        except (yaml.YAMLError, AttributeError, UnicodeDecodeError) as error:
            raise RunError(f"--out {self.path}: its config.yaml cannot be read; name another folder") from error
        if not {"judge", "network"} <= settings.keys():
            raise RunError(f"--out {self.path}: its config.yaml is not a judge's; name another folder")
        if changed and (self.path / VERDICTS).exists():
            told = "; ".join(changed[:5])
            raise RunError(f"--out {self.path}: holds a run with other settings ({told}); {_ANOTHER}")

    def _check_maker(self, record: Mapping[str, Any], made_by: Mapping[str, Any]) -> None:
        """Templates, families, weights and our own prompts may change where no setting does."""
        before = record.get("run", {})
        names = {
            "config": "prompts or settings",
            "judges": "models or weights",
            "version": "version of depthlab",
            "plugins": "plug-ins",
        }
        other = [what for name, what in names.items() if before.get(name) != made_by.get(name)]
        if other:
            raise RunError(f"--out {self.path}: its verdicts were made with other {', '.join(other)}; {_ANOTHER}")

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
        """Append a record; it is in the file when this returns. Raises RunError where the disk does not take it."""
        assert self._file is not None
        try:
            if not self._added:
                metrics_file.forget(self.path)
                self._added = True
            self._file.write(json_line(record))
            self._file.flush()
        except OSError as error:
            raise RunError(f"--out {self.path}: {error.strerror or error}; the same command goes on") from error

    def close(self) -> None:
        """Close the files and let other processes in; a folder that was made for nothing goes, a lock as well."""
        try:
            if self._file is not None:
                self._file.close()
            self.ledger.close()
        finally:
            self._lock.release()
            if self._first and self._file is None:
                (self.path / ".lock").unlink(missing_ok=True)
            if self._made and self._file is None:
                with suppress(OSError):
                    self.path.rmdir()


def environment() -> dict[str, Any]:
    """Versions, and the command. No flag of ours takes a key, so none stands there."""
    packages = ("depthlab", "openai", "jinja2", "pydantic")
    return {
        "versions": {name: version(name) for name in packages} | {"python": platform.python_version()},
        "command": sys.argv,
    }
