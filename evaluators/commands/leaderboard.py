from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from evaluators import command_line
from evaluators.commands.bootstrap import check_bootstrap
from evaluators.errors import ConfigError, RunError
from evaluators.registry import Plugin, use
from evaluators.running.judge_spec import parse_options
from evaluators.saying import say
from evaluators.showing.figures import figure_text
from evaluators.showing.terminal import refused_lines
from evaluators.storing import one_line

_HOW = "--fields system1=THEIR_NAME system2=THEIR_NAME"


@dataclass(frozen=True)
class LeaderboardCommand:
    """Rank the systems that wrote the responses: Bradley-Terry strengths and win rates, with intervals.

    From verdicts of runs (one judge's or several's, taken together), or from people's labels in runs or in a file. The
    samples must name their systems, in the fields system1 and system2; mt-bench, faireval and pandalm do so.
    """

    runs: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="[RUN ...]")] = ()
    """Folders of runs."""
    by: Literal["judge", "people"] = "judge"
    """Whose word counts: the verdicts, or the labels."""
    data: str | None = None
    """A file of labelled samples, in place of runs."""
    format: str = "jsonl"
    """Of --data."""
    fields: tuple[str, ...] = ()
    """Of --data: OURS=THEIRS, such as system1=model_a."""
    format_option: tuple[str, ...] = ()
    """Of --data: settings of a format of your own, as NAME=VALUE."""
    plugin: tuple[str, ...] = ()
    """Of --data: Python files with formats of your own. They are run."""
    skip_refused: bool = False
    """Of --data: go on without lines that are refused."""
    draws: int = 10_000
    """Draws of the bootstrap."""
    seed: int = 0
    """Seed of the bootstrap."""
    json: bool = False
    """Print JSON."""

    def __post_init__(self) -> None:
        if bool(self.runs) == (self.data is not None):
            raise ConfigError("name the folders of runs, or a file of labelled samples with --data")
        check_bootstrap(self.draws, self.seed)
        use([*map(Plugin, self.plugin)])


def main(argv: Sequence[str], *, prog: str) -> int:
    """`depthlab judge leaderboard`. Raises UserError where something cannot be read, or names no systems."""
    wanted = command_line.read(LeaderboardCommand, argv, prog=prog)
    from evaluators.statistics.leaderboard import leaderboard

    refused: dict[int, str] = {}
    if wanted.data is None:
        rows = [row for folder in wanted.runs for row in _of_run(folder, wanted.by)]
    else:
        rows = list(_of_file(wanted, refused))
    games = [row[:3] for row in rows]
    standings = leaderboard(games, [row[3] for row in rows], draws=wanted.draws, seed=wanted.seed)
    found = {
        "by": "people" if wanted.data is not None else wanted.by,
        "comparisons": len(games),
        "ties": sum(game[2] == 0 for game in games),
        "refused": refused,
        "without_verdict": sum(game[2] is None for game in games),
        "queries": len({row[4] for row in rows}),
        "clusters": len({row[3] for row in rows}),
        "bootstrap": {"draws": wanted.draws, "seed": wanted.seed, "clustered_by": "query"},
        "standings": [asdict(standing) for standing in standings],
    }
    say(json.dumps(found, indent=2) if wanted.json else "\n".join(leaderboard_text(found)))
    return 0


Row = tuple[str, str, int | None, str, str]
"""A game, its cluster and its query."""


def _of_run(folder: str, by: str) -> Iterator[Row]:
    from evaluators.running.folder import VERDICTS
    from evaluators.running.judged import read_run

    for sample in read_run(folder).samples:
        if sample.systems is None:
            raise RunError(
                f"RUN {folder}: {VERDICTS}: sample {sample.id!r} does not name its systems (system1 and system2 are "
                f"not there); judge data that do into another folder, with {_HOW} where the file has other names "
                "(replies come from the cache)"
            )
        yield *sample.systems, sample.winner if by == "judge" else sample.human, sample.cluster, sample.query.strip()


def _of_file(wanted: LeaderboardCommand, refused: dict[int, str]) -> Iterator[Row]:
    from evaluators import benchmarks
    from evaluators.prompts import Prompts
    from evaluators.statistics.clusters import clusters, keys

    path, prompts = Path(wanted.data or ""), Prompts(None, None)
    names: dict[str, Any] = {
        "kind": wanted.format,
        "fields": benchmarks.parse_fields(wanted.fields),
        "families": frozenset(prompts.families),
        "without_query": prompts.without_query,
        "options": parse_options(wanted.format_option, "--format-option"),
    }
    checked = benchmarks.check(path, **names, limit=None, skip_refused=wanted.skip_refused)
    refused.update(checked.refused)
    rows, shared, queries = [], [], []
    for number, pair in benchmarks.read(path, **names, skip=checked.refused):
        if pair.system1 is None or pair.system2 is None:
            raise RunError(
                f"--data {path}: line {number}: does not name its systems in the fields system1 and system2; "
                f"add them, or say what they are called: {_HOW}"
            )
        rows.append((pair.system1, pair.system2, None if pair.human is None else int(pair.human)))
        shared.append(keys(pair.query, (pair.response1, pair.response2)))
        queries.append(pair.query.strip())
    for row, cluster, query in zip(rows, clusters(shared), queries, strict=True):
        yield *row, cluster, query


def leaderboard_text(found: Mapping[str, Any]) -> Iterator[str]:
    """For a terminal."""
    yield from refused_lines(found["refused"])
    counted = found["comparisons"] - found["without_verdict"]
    word = "verdict" if found["by"] == "judge" else "label"
    yield (
        f"{counted:,} comparisons of {found['queries']:,} queries, {found['ties']:,} of them ties (half a win each); "
        f"{found['without_verdict']:,} without a {word} left out"
    )
    if found["clusters"] != found["queries"]:
        yield f"queries that belong together are drawn together: {found['clusters']:,} clusters"
    rows = [{**row, "system": one_line(row["system"])} for row in found["standings"]]
    width = max(len("system"), *(len(row["system"]) for row in rows))
    yield f"   {'system':<{width}}  {'strength':<24}  {'win rate':<22}  {'won':>6} {'tied':>6} {'lost':>6}"
    for place, row in enumerate(rows, start=1):
        strength, rate = _text(row, "strength"), _text(row, "win_rate")
        yield (
            f"{place:>2} {row['system']:<{width}}  {strength:<24}  {rate:<22}  "
            f"{row['wins']:>6,} {row['ties']:>6,} {row['losses']:>6,}"
        )
    whys = [
        interval["why"] for row in rows for interval in (row["strength_interval"], row["win_rate_interval"]) if interval
    ]
    yield from (f"no interval: {why}" for why in dict.fromkeys(filter(None, whys)))
    if rows[0]["strength"] is None:
        yield (
            "strengths are not finite, because some group of systems never lost to the rest or was never compared with "
            "it: ranked by win rate, which depends on who played whom"
        )


def _text(row: Mapping[str, Any], name: str) -> str:
    if row[name] is None:
        return "not finite"
    return figure_text({**row[f"{name}_interval"], "value": row[name], "why": None})
