"""What a folder has cost, written as it is paid: `spent.jsonl`, over all starts, whatever became of the samples."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, BinaryIO

from evaluators.errors import RunError
from evaluators.storing import json_line, without_half_line, write_whole
from evaluators.values import Usage

LEDGER = "spent.jsonl"


@dataclass
class Spent:
    """Calls that were made (not those from the cache), with what they took."""

    calls: int = 0
    cached: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: Decimal = field(default_factory=Decimal)
    unpriced: int = 0
    """Tries that used tokens of no known price."""
    estimated: int = 0
    """Tries whose tokens are our estimate, because the server reported none that can be true."""
    lost: int = 0
    """Tries that ended without an answer (timeouts, dropped connections), which a provider may have billed."""

    def add(self, other: Spent) -> None:
        """All sums."""
        for name in _SUMS:
            setattr(self, name, getattr(self, name) + getattr(other, name))

    def plain(self) -> dict[str, Any]:
        """With the cost as a text; None where no try had a price."""
        return vars(self) | {"cost": None if self.unpriced and not self.cost else str(self.cost)}


_SUMS = tuple(item.name for item in fields(Spent))


@dataclass
class Bill:
    """What was spent, by judge and layer (0: the roles)."""

    parts: dict[tuple[str, int], Spent] = field(default_factory=dict)

    def add(self, judge: str, layer: int, spent: Spent) -> None:
        """A call, a try, or what an earlier start came to."""
        self.parts.setdefault((judge, layer), Spent()).add(spent)

    def add_calls(self, record: Mapping[str, Any]) -> None:
        """The calls in a record of `verdicts.jsonl`, for folders of before there were ledgers."""
        calls = [(0, call) for call in record["roles_calls"]]
        layers = enumerate(record["layers"], start=1)
        calls += [(at, call) for at, layer in layers for item in layer for call in item["calls"]]
        for layer, call in calls:
            self.add(call["judge"], layer, _spent(call))

    @property
    def total(self) -> Spent:
        """All of it."""
        return _sum(self.parts.values())

    @property
    def by_judge(self) -> dict[str, Spent]:
        """Judge -> what it took."""
        names = dict.fromkeys(judge for judge, _ in self.parts)
        return {name: _sum(part for (judge, _), part in self.parts.items() if judge == name) for name in names}

    @property
    def by_layer(self) -> dict[int, Spent]:
        """Layer -> what it took."""
        numbers = sorted({layer for _, layer in self.parts})
        return {number: _sum(part for (_, layer), part in self.parts.items() if layer == number) for number in numbers}


def _sum(parts: Iterable[Spent]) -> Spent:
    total = Spent()
    for part in parts:
        total.add(part)
    return total


class Ledger:
    """A folder's bill, and the file that it is written to. Without a file, in memory."""

    def __init__(self, path: Path | None = None, before: Bill | None = None) -> None:
        """Goes on from the file, which is made shorter: a line for each judge and layer.

        Args:
            before: what the folder has cost where there is no file yet.

        Raises:
            RunError: the file cannot be read or written.
        """
        self.bill = Bill() if before is None else before
        self._path = path
        self._file: BinaryIO | None = None
        if path is None:
            return
        try:
            if path.exists():
                without_half_line(path)
                self.bill = read_bill(path)
            self._write_sums()
            self._file = path.open("ab")
        except OSError as error:
            raise RunError(f"--out: {path}: {error.strerror or error}") from error

    def tried(
        self, judge: str, layer: int, usage: Usage | None, cost: Decimal | None, *, ended: bool, lost: bool = False
    ) -> None:
        """A try is over, and was billed where it has a usage.

        Args:
            cost: USD; None: unpriced.
            ended: the call is over with it.
        """
        spent = Spent(calls=int(ended), lost=int(lost))
        if usage is not None:
            spent.prompt_tokens, spent.completion_tokens = usage.prompt, usage.completion
            spent.estimated = int(usage.estimated)
            spent.cost, spent.unpriced = cost or Decimal(0), int(cost is None)
        if usage is not None or ended or lost:
            self._add(judge, layer, spent)

    def from_cache(self, judge: str, layer: int) -> None:
        """A call took its reply from the cache: nothing is paid, nothing is written before the end."""
        self.bill.add(judge, layer, Spent(cached=1))

    def _add(self, judge: str, layer: int, spent: Spent) -> None:
        self.bill.add(judge, layer, spent)
        if self._file is not None:
            try:
                self._file.write(_line(judge, layer, spent))
                self._file.flush()
            except OSError as error:
                raise RunError(f"--out: {self._path}: {error.strerror or error}") from error

    def _write_sums(self) -> None:
        assert self._path is not None
        lines = b"".join(_line(judge, layer, spent) for (judge, layer), spent in self.bill.parts.items())
        write_whole(self._path, lines.decode())

    def close(self) -> None:
        """Write the sums in place of the lines. Raises RunError where the disk is full."""
        if self._file is not None:
            try:
                self._file.close()
                self._file = None
                self._write_sums()
            except OSError as error:
                raise RunError(f"--out: {self._path}: {error.strerror or error}") from error


def _line(judge: str, layer: int, spent: Spent) -> bytes:
    sums = {name: value for name, value in vars(spent).items() if value}
    if spent.cost:
        sums["cost"] = str(spent.cost)
    return json_line({"judge": judge, "layer": layer, **sums})


def read_bill(path: Path) -> Bill:
    """Of a `spent.jsonl`; empty where there is none. Raises RunError where a line is none of ours."""
    bill = Bill()
    try:
        lines = path.read_bytes().split(b"\n") if path.exists() else []
    except OSError as error:
        raise RunError(f"{path}: {error.strerror or error}") from error
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            content = json.loads(line)
            sums = {name: value for name, value in content.items() if name not in ("judge", "layer")}
            spent = Spent(**{**sums, "cost": Decimal(sums.get("cost", 0))})
            bill.add(str(content["judge"]), int(content["layer"]), spent)
        except (ValueError, TypeError, KeyError, AttributeError, InvalidOperation) as error:
            if number == len(lines):
                break  # half written, by a process that was killed
            raise RunError(f"{path}: line {number} is no line of a bill; mend or delete it") from error
    return bill


def _spent(call: Mapping[str, Any]) -> Spent:
    if call["cached"]:
        return Spent(cached=1)
    usage, cost = call["usage"], call["cost"]
    spent = Spent(calls=1, cost=Decimal(cost or 0), unpriced=int(cost is None and usage is not None))
    if usage is not None:
        spent.prompt_tokens, spent.completion_tokens = usage["prompt"], usage["completion"]
        spent.estimated = int(usage.get("estimated", False))
    return spent
