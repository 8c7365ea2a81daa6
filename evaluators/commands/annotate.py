from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import tyro

from evaluators.annotation import DECISIONS, Decisions, summary
from evaluators.annotation.server import AnnotationServer
from evaluators.errors import ConfigError, RunError
from evaluators.results import VERDICTS, read_records


@dataclass(frozen=True)
class AnnotateCommand:
    """People label the pairs of a run in a browser, on this machine alone, with the network's reviews on demand.

    Keys: 1 left, 2 right, 0 tie, r reviews, b back. Decisions go to DIR/annotations.jsonl as they are made. Ctrl-C ends
    it, and prints agreement among people and with the judge, and the time with and without reviews.
    """

    run: Annotated[str, tyro.conf.Positional]
    """The run's folder."""
    annotators: tuple[str, ...] = ("me",)
    """Names; each has an address of their own."""
    port: int = 0
    """Port on 127.0.0.1; a free one if 0."""
    summary: bool = False
    """Only print what the decisions so far come to."""

    def __post_init__(self) -> None:
        if not 0 <= self.port < 65536:
            raise ConfigError(f"--port {self.port}: must be from 0 to 65535")
        if not self.annotators or not all(name.strip() for name in self.annotators):
            raise ConfigError("--annotators: name at least one, none empty")


def main(argv: Sequence[str], *, prog: str) -> int:
    """`depthlab judge annotate`. Raises UserError where there is no run, or the port is taken."""
    wanted = tyro.cli(AnnotateCommand, args=list(argv), prog=prog)
    path = Path(wanted.run) / VERDICTS
    if not path.is_file():
        raise RunError(f"RUN {wanted.run}: holds no {VERDICTS}; name the folder of a judge's run")
    records = [record for record in read_records(path) if record["response2"] is not None]
    if not records:
        raise RunError(f"RUN {wanted.run}: no sample with two responses is judged in it")
    decisions = Decisions(Path(wanted.run) / DECISIONS)
    if not wanted.summary:
        _serve(wanted, records, decisions)
    verdicts = {record["id"]: record["verdict"]["winner"] for record in records}
    print(json.dumps(summary(list(decisions.latest.values()), verdicts), indent=2))
    return 0


def _serve(wanted: AnnotateCommand, records: list[dict[str, Any]], decisions: Decisions) -> None:
    try:
        server = AnnotationServer(records, decisions, wanted.port)
    except OSError as error:
        raise RunError(f"--port {wanted.port}: {error.strerror}") from error
    for name in wanted.annotators:
        print(f"{name}: {server.address(quote(name))}", flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        print("ended; the same command goes on")
    finally:
        server.server_close()
