from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from evaluators import command_line
from evaluators.errors import ConfigError, RunError
from evaluators.running.folder import VERDICTS, read_records
from evaluators.saying import say
from evaluators.showing.annotation import Decisions, read_decisions
from evaluators.showing.annotation.server import AnnotationServer
from evaluators.showing.annotation.summary import judged_samples, summary
from evaluators.storing import one_line


@dataclass(frozen=True)
class AnnotateCommand:
    """People label the pairs of a run in a browser, on this machine alone, with the network's reviews on demand.

    Keys: 1 left, 2 right, 0 tie, r reviews, b back. Decisions go to RUN/annotations-NAME.jsonl as they are made. Ctrl-C
    ends it, and prints agreement among people and with the judge, time and cost, with and without reviews.
    """

    run: Annotated[str, tyro.conf.Positional]
    """The run's folder."""
    annotators: tuple[str, ...] = ("me",)
    """Names; each has an address and a file of their own, and is labelled by one process at a time."""
    port: int = 0
    """Port on 127.0.0.1; a free one if 0."""
    summary: bool = False
    """Only print what the decisions so far come to."""
    hourly_wage: float | None = None
    """USD; with it, the cost saved is computed."""
    judge_cost: float | None = None
    """USD a sample; if not given, the mean over the samples whose calls were all made and priced in this run."""
    json: bool = False
    """Print JSON."""

    def __post_init__(self) -> None:
        if not 0 <= self.port < 65536:
            raise ConfigError(f"--port {self.port}: must be from 0 to 65535")
        for flag, value in (("--hourly-wage", self.hourly_wage), ("--judge-cost", self.judge_cost)):
            if value is not None and not 0 <= value < math.inf:
                raise ConfigError(f"{flag} {value}: must be a number of USD, at least 0")
        if self.hourly_wage == 0:
            raise ConfigError("--hourly-wage 0: must be more than 0; leave it out if it is not known")
        if not self.annotators or not all(name.strip() for name in self.annotators):
            raise ConfigError("--annotators: name at least one, none empty")
        for name in self.annotators:
            if name != one_line(name, 100):
                raise ConfigError(f"--annotators {name[:100]!r}: a name is one line of at most 100 characters")
        if len(set(self.annotators)) < len(self.annotators):
            raise ConfigError("--annotators: one is named twice")


def main(argv: Sequence[str], *, prog: str) -> int:
    """`depthlab judge annotate`. Raises UserError where there is no run, or the port is taken."""
    wanted = command_line.read(AnnotateCommand, argv, prog=prog)
    path = Path(wanted.run) / VERDICTS
    if not path.is_file():
        raise RunError(f"RUN {wanted.run}: holds no {VERDICTS}; name the folder of a judge's run")
    records = [record for record in read_records(path) if record["response2"] is not None]
    if not records:
        raise RunError(f"RUN {wanted.run}: no sample with two responses is judged in it")
    if not wanted.summary:
        _serve(wanted, records)
    judged, decisions = judged_samples(records), read_decisions(Path(wanted.run))
    found = summary(decisions.values(), judged, hourly_wage=wanted.hourly_wage, judge_cost=wanted.judge_cost)
    say(json.dumps(found, indent=2) if wanted.json else "\n".join(summary_text(found)))
    return 0


def summary_text(found: Mapping[str, Any]) -> list[str]:
    """Lines for the terminal."""
    lines = ["decisions   " + (", ".join(f"{name} {n}" for name, n in found["annotators"].items()) or "none")]
    for name, title in (("all", "all"), ("with_reviews", "with reviews"), ("without_reviews", "without")):
        people, judge = found["among_people"][name], found["judge"][name]
        lines.append(f"{title}")
        lines.append(
            f"  among people  agreement {_number(people['agreement'])}, kappa {_number(people['kappa'])}"
            f" (n = {people['n']} pairs of decisions)"
        )
        lines.append(
            f"  with judge    accuracy {_number(judge['accuracy'])}, kappa {_number(judge['kappa'])} (n = {judge['n']}"
            + (f", {judge['unscored']} unscored left out)" if judge["unscored"] else ")")
        )
        if name in found["seconds"]:
            seconds = found["seconds"][name]
            lines.append(
                f"  seconds       mean {_figure(seconds, 1)}, median {_number(seconds['median'], 1)}"
                f" (n = {seconds['n']})"
            )
    saved = found["saved"]
    lines += [
        "saved with reviews",
        f"  time          {_in_words(saved['time'], _saved)}: {_in_words(saved['times_faster'], _faster)}",
    ]
    if saved["cost"] is not None:
        lines.append(
            f"  cost          {_in_words(saved['cost'], _saved)} at {saved['hourly_wage']:g} USD an hour"
            f" and {saved['judge_cost']:.4g} USD a sample for the judge"
        )
    else:
        missing = "--hourly-wage" if saved["hourly_wage"] is None else "--judge-cost: no price of the calls is recorded"
        lines.append(f"  cost          not known; give {missing}")
    lines += [f"no interval   {name}: {why}" for name, why in found["no_interval"].items()]
    return lines


def _figure(one: Mapping[str, float | None], digits: int = 3) -> str:
    """Value and interval."""
    if one["low"] is None:
        return _number(one["value"], digits)
    return f"{_number(one['value'], digits)} ({_number(one['low'], digits)} to {_number(one['high'], digits)})"


def _in_words(one: Mapping[str, float | None], word: Callable[[float], str]) -> str:
    """Value and interval, each as `word` says it."""
    if one["value"] is None:
        return "not defined"
    if one["low"] is None or one["high"] is None:
        return word(one["value"])
    return f"{word(one['value'])} ({word(one['low'])} to {word(one['high'])})"


def _saved(share: float) -> str:
    return f"{share:.0%} less" if share >= 0 else f"{-share:.0%} more"


def _faster(times: float) -> str:
    return f"{times:.1f} times faster" if times >= 1 else f"{1 / times:.1f} times slower"


def _number(value: float | None, digits: int = 3) -> str:
    return "not defined" if value is None else f"{value:.{digits}f}"


def _serve(wanted: AnnotateCommand, records: list[dict[str, Any]]) -> None:
    with ExitStack() as open_files:
        people = []
        for name in wanted.annotators:
            people.append(Decisions(Path(wanted.run), name))
            open_files.callback(people[-1].close)
        try:
            server = open_files.enter_context(AnnotationServer(records, people, wanted.port))
        except OSError as error:
            raise RunError(f"--port {wanted.port}: {error.strerror}") from error
        for name in wanted.annotators:
            say(f"{name}: {server.address(name)}", flush=True)
        port = server.server_address[1]
        say(
            f"from another machine: ssh -L {port}:127.0.0.1:{port} THIS_MACHINE, and the same address there", flush=True
        )
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            say("ended; the same command goes on")
