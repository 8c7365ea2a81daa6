"""One run: check everything, judge what is not judged yet, write as it goes, stop when asked."""

from __future__ import annotations

import asyncio
import itertools
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from decimal import Decimal
from importlib.metadata import version
from pathlib import Path
from typing import Any

from evaluators import benchmarks
from evaluators.asking.cache import Cache, default_path
from evaluators.asking.caller import Caller, StoppedError
from evaluators.asking.money import Budget, BudgetError, Prices, price
from evaluators.errors import ConfigError, RunError
from evaluators.judges import Backend, make
from evaluators.network import Network
from evaluators.network import Reviewers as Asked
from evaluators.presets import architectures
from evaluators.prompts import Prompts
from evaluators.reviewers import Manner, Reviewers
from evaluators.running.callers import make_callers
from evaluators.running.config import JudgeConfig
from evaluators.running.estimate import Estimate, estimate, roles_range
from evaluators.running.folder import Folder, broken, to_record
from evaluators.running.judge_spec import JudgeSpec, parse_options
from evaluators.running.loop import Stop, in_a_loop, on_interrupt
from evaluators.running.metrics_file import write_counts
from evaluators.running.mishaps import Mishaps
from evaluators.running.progress import ProgressLine
from evaluators.running.settings import digest
from evaluators.running.source import Source
from evaluators.running.tally import Tally
from evaluators.samples import Pair
from evaluators.saying import say
from evaluators.storing import json_line

_REASON = 300
"""Characters of why a line was refused that are kept."""


@dataclass
class Outcome:
    """How a run ended."""

    tally: Tally
    total: int
    """Samples of the data."""
    spent: Decimal
    """USD, in this start."""
    lost: int
    """Tries of this start without an answer."""
    stopped: RunError | None = None
    """Why not all is judged; None: all is."""

    @property
    def interrupted(self) -> bool:
        """Stopped by a person or a budget, which is no error."""
        return isinstance(self.stopped, (StoppedError, BudgetError))

    @property
    def fruitless(self) -> RunError | None:
        """All is judged, and nothing is scored."""
        unscored = self.tally.unscored_samples
        if self.stopped is not None or sum(unscored.values()) < self.tally.samples:
            return None
        most, count = max(unscored.items(), key=lambda item: item[1])
        return RunError(
            f"no sample is scored: {count:,} x {most}; once that is mended, --retry-unscored judges them again"
        )


class Run:
    """Everything that a run needs, made from its settings and checked before the first call."""

    def __init__(self, config: JudgeConfig) -> None:
        """Raises UserError for anything that would stop the run later: judges, prompts, prices, data."""
        self.config = config.complete()
        self.network: Network = config.network.build(len(config.judge))
        self.through: Callable[[Reviewers], Asked] = lambda reviewers: reviewers
        """What stands between the network and its reviewers, if anything does."""
        self.prompts = Prompts(_path(config.template), _path(config.families))
        self.prices = Prices(_path(config.money.prices))
        self._format_options = parse_options(config.format_option, "--format-option")
        self._fields = benchmarks.parse_fields(config.fields)
        self._source = Source(config.data)
        self._stop = Stop()
        try:
            self.data = benchmarks.check(
                self._source.path,
                kind=config.format,
                fields=self._fields,
                families=frozenset(self.prompts.families),
                without_query=self.prompts.without_query,
                options=self._format_options,
                limit=config.limit,
                skip_refused=config.skip_refused,
            )
        except RunError as error:
            raise RunError(self._source.named(str(error), config.data)) from error
        self.total = self.data.samples
        edition = benchmarks.editions.get(config.format)
        self.edition = None if edition is None else edition(self._source.path)
        self.say: Callable[[str], None] = lambda text: say(text, file=sys.stderr, flush=True)
        """Where judges tell of what they found out; goes above the progress line while there is one."""
        self.judges = [make(spec.name, self._backend(spec)) for spec in config.judge]
        self.price_of = [
            self.prices.get(judge.name) if spec.price is None else price(spec.price, f"judge {spec.name}: price")
            for spec, judge in zip(config.judge, self.judges, strict=True)
        ]
        shared = Counter(name for name, _ in {(judge.name, judge.identity) for judge in self.judges})
        for spec, judge in zip(config.judge, self.judges, strict=True):
            if shared[judge.name] > 1 and spec.base_url is not None:  # one model on two servers
                judge.name = f"{judge.name}@{spec.base_url}"
        unpriced = [judge.name for judge, known in zip(self.judges, self.price_of, strict=True) if known is None]
        if config.money.budget is not None and unpriced:
            raise ConfigError(f"--budget: no price is known for {unpriced[0]}; give one with --prices")

    def _backend(self, spec: JudgeSpec) -> Backend:
        """The run's settings, with the judge's own in their place."""
        server = self.config.server
        # No key goes to a server that it was not meant for.
        key_env = spec.key_env or server.key_env or ("OPENAI_API_KEY" if spec.base_url is None else None)
        return Backend(
            base_url=spec.base_url or server.base_url,
            url_flag="--base-url" if spec.base_url is None else f"--judge {spec.name} at",
            key_env=key_env,
            timeout_s=spec.timeout or server.timeout,
            seed=self.config.seed or 0,
            batch=server.batch,
            device=server.device,
            options={**parse_options(server.option), **spec.options},
            context=spec.context,
            needs_key=not self.config.money.dry_run,
        )

    def _tell(self, text: str) -> None:
        self.say(text)

    def pairs(self) -> Iterator[Pair]:
        """The samples, read as they are needed."""
        found = benchmarks.read(
            self._source.path,
            kind=self.config.format,
            fields=self._fields,
            families=frozenset(self.prompts.families),
            without_query=self.prompts.without_query,
            options=self._format_options,
            skip=self.data.refused,
        )
        return (pair for _, pair in itertools.islice(found, self.config.limit))

    def estimates(self) -> list[tuple[int, Estimate]]:
        """For each likely number of roles."""
        return [
            (roles, estimate(self.pairs(), self.network, self.prompts, self.judges, self.price_of, roles))
            for roles in roles_range(self.network, len(self.judges))
        ]

    def judge(self, say: Callable[[str], None], *, spent_elsewhere: Decimal = Decimal(0)) -> Outcome:
        """Judge everything that has no record in --out yet. Works in a notebook and outside the main thread too.

        Args:
            spent_elsewhere: USD that count against the budget beside those of the folder.

        Raises:
            RunError: the folder cannot be used, or the cache.
        """
        caching = self.config.caching
        cache = None if caching.no_cache else Cache(_path(caching.cache) or default_path())
        folder = None
        try:
            folder = Folder(Path(self.config.out))
            tally = Tally()
            for record in folder.open(self.config, self.made_by, forget_failed=self.config.retry_unscored):
                tally.add(record)
            tally.bill = folder.ledger.bill
            if tally.samples:
                say(f"going on: {tally.samples:,} of {self.total:,} samples are judged already")
            if cache is not None and cache.database.note is not None:
                say(cache.database.note)
            opened = folder
            outcome = in_a_loop(lambda: self._judge(opened, cache, tally, spent_elsewhere), self._stop)
            data = {
                "edition": self.edition,
                "refused": {str(n): reason[:_REASON] for n, reason in self.data.refused.items()},
            }
            write_counts(folder.path, {**tally.metrics(), "data": data})
            return outcome
        finally:
            if folder is not None:
                folder.close()
            if cache is not None:
                cache.close()

    @property
    def made_by(self) -> dict[str, Any]:
        """What decides the verdicts, as it stands in every record: a folder holds those of one such only."""
        return {
            "config": digest(self.config, self.prompts.digest),
            "version": version("depthlab"),
            "seed": self.config.seed,
            "judges": [judge.identity for judge in self.judges],
            **({"plugins": plugins} if (plugins := self._plugins()) else {}),
            "network": {"preset": self.config.network.preset, **self.network.stored()},
        }

    def _plugins(self) -> dict[str, str]:
        """Where the network's shape and the data's format come from, if not from this package."""
        named = ((architectures, self.config.network.preset), (benchmarks.loaders, self.config.format))
        return {f"{of.kind} {name}": origin for of, name in named if (origin := of.origin(name))}

    async def _judge(self, folder: Folder, cache: Cache | None, tally: Tally, spent_elsewhere: Decimal) -> Outcome:
        finish, halt = asyncio.Event(), asyncio.Event()
        limit = self.config.money.budget
        before = folder.ledger.bill.total
        budget = Budget(None if limit is None else Decimal(str(limit)), before.cost + spent_elsewhere)
        callers = make_callers(self.config, self.judges, self.price_of, cache, budget, folder.ledger, halt, self._tell)
        stopped: list[RunError] = []
        if cache is not None:
            cache.database.say = self._tell
        made_by = self.made_by
        todo = (pair for pair in self.pairs() if not folder.has(pair))

        def status() -> str:
            spent = f" | {budget.spent:.4f} USD" if any(caller.price for caller in callers) else ""
            return f"{sum(tally.unscored_samples.values())} unscored{spent}"

        def end(error: RunError) -> None:
            stopped.append(error)
            finish.set()
            halt.set()

        mishaps = Mishaps()

        async def work() -> None:
            """Judge one sample after another; as many of these run as there may be calls in flight."""
            try:
                for pair in todo:
                    if finish.is_set():
                        return
                    record = await self._sample(pair, callers, made_by)
                    folder.add(record)
                    tally.add(record)
                    progress.advance()
                    mishaps.check(record)
            except RunError as error:
                end(error)
            except Exception as error:
                end(RunError(f"internal error: {type(error).__name__}: {error}; the same command goes on"))

        def interrupt() -> None:
            # What is in flight is paid for. Calls that the cache keeps need not become a whole sample to be saved.
            finish.set()
            if cache is not None:
                halt.set()
            what = "the calls" if cache is not None else "the samples"
            progress.say(f"stopping: {what} in flight will be finished (Ctrl-C again to end at once)")

        self._stop.calls(interrupt)
        try:
            with ProgressLine(self.total, tally.samples, status) as progress, on_interrupt(interrupt):
                self.say = progress.say
                await asyncio.gather(*(work() for _ in range(min(self.config.server.concurrency, self.total))))
        finally:
            for judge in self.judges:
                with suppress(Exception):
                    await judge.close()
        reason = _most_telling(stopped)
        if reason is None and finish.is_set():
            reason = StoppedError("asked to stop")
        spent = folder.ledger.bill.total
        return Outcome(tally, self.total, spent.cost - before.cost, spent.lost - before.lost, reason)

    async def _sample(self, pair: Pair, callers: Sequence[Caller], made_by: Mapping[str, Any]) -> dict[str, Any]:
        """A sample's record; where anything breaks that should not, one that says so. Raises RunError as `Network`."""
        reviewers = Reviewers(
            callers,
            self.prompts,
            self._manner(),
            self.network.temperature,
            again_after_cache=self.config.retry_unscored,
        )
        try:
            judgement = await self.network.judge(pair, self.through(reviewers))
            record = to_record(pair, judgement, calls=reviewers.records, run=made_by)
            json_line(record)
            return record
        except RunError:
            raise
        except Exception as error:
            judgement = broken(error, reviewers.records)
            return to_record(pair, judgement, calls=reviewers.records, run=made_by)

    def _manner(self) -> Manner:
        asking = self.config.asking
        return Manner(
            scale=asking.scale,
            max_tokens=asking.max_tokens,
            reasks=asking.reasks,
            structured=asking.structured,
            probabilities=asking.scores == "probabilities",
            confidence=asking.confidence or self.network.aggregation.startswith("confidence"),
            context=asking.context_tokens,
            assign=asking.assign,
            seed=self.config.seed,
        )


def _path(text: str | None) -> Path | None:
    return None if text is None else Path(text).expanduser()


def _most_telling(errors: list[RunError]) -> RunError | None:
    """The error that stopped the others."""
    return next((error for error in errors if not isinstance(error, StoppedError)), errors[0] if errors else None)
