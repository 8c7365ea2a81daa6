"""One run: check everything, judge what is not judged yet, write as it goes, stop when asked."""

from __future__ import annotations

import asyncio
import itertools
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from importlib.metadata import version
from pathlib import Path

from evaluators import benchmarks
from evaluators.asking.cache import Cache, default_path
from evaluators.asking.caller import Caller, Retries, StoppedError
from evaluators.asking.limits import Breaker, Limits
from evaluators.asking.money import Budget, BudgetError, Prices
from evaluators.errors import ConfigError, RunError
from evaluators.judges import Backend, Judge, make
from evaluators.network import Network
from evaluators.prompts import Prompts
from evaluators.reviewers import Manner, Reviewers
from evaluators.running.config import JudgeConfig
from evaluators.running.estimate import Estimate, estimate, roles_range
from evaluators.running.folder import Folder, to_record
from evaluators.running.metrics_file import write_counts
from evaluators.running.progress import ProgressLine
from evaluators.running.settings import digest
from evaluators.running.tally import Tally
from evaluators.samples import Pair

_REASON = 300
"""Characters of why a line was refused that are kept."""


@dataclass
class Outcome:
    """How a run ended."""

    tally: Tally
    total: int
    """Samples of the data."""
    spent: Decimal
    """USD, in this run."""
    lost: int
    """Tries of this run without an answer."""
    stopped: RunError | None = None
    """Why not all is judged; None: all is."""

    @property
    def interrupted(self) -> bool:
        """Stopped by a person or a budget, which is no error."""
        return isinstance(self.stopped, (StoppedError, BudgetError))


class Run:
    """Everything that a run needs, made from its settings and checked before the first call."""

    def __init__(self, config: JudgeConfig) -> None:
        """Raises UserError for anything that would stop the run later: judges, prompts, prices, data."""
        self.config = config
        self.network: Network = config.network.build(len(config.judge))
        self.prompts = Prompts(_path(config.template), _path(config.families))
        self.prices = Prices(_path(config.money.prices))
        self._fields = benchmarks.parse_fields(config.fields)
        self.data = benchmarks.check(
            Path(config.data),
            kind=config.format,
            fields=self._fields,
            families=frozenset(self.prompts.families),
            without_query=self.prompts.without_query,
            limit=config.limit,
            skip_refused=config.skip_refused,
        )
        self.total = self.data.samples
        edition = benchmarks.editions.get(config.format)
        self.edition = None if edition is None else edition(Path(config.data))
        server = config.server
        backend = Backend(
            base_url=server.base_url,
            key_env=server.key_env,
            timeout_s=server.timeout,
            seed=config.seed or 0,
            batch=server.batch,
            device=server.device,
        )
        self.judges = [make(name, backend) for name in config.judge]
        unpriced = [judge.name for judge in self.judges if self.prices.get(judge.name) is None]
        if config.money.budget is not None and unpriced:
            raise ConfigError(f"--budget: no price is known for {unpriced[0]}; give one with --prices")

    def pairs(self) -> Iterator[Pair]:
        """The samples, read as they are needed."""
        found = benchmarks.read(
            Path(self.config.data),
            kind=self.config.format,
            fields=self._fields,
            families=frozenset(self.prompts.families),
            without_query=self.prompts.without_query,
            skip=self.data.refused,
        )
        return (pair for _, pair in itertools.islice(found, self.config.limit))

    def estimates(self) -> list[tuple[int, Estimate]]:
        """For each likely number of roles."""
        prices = [self.prices.get(judge.name) for judge in self.judges]
        return [
            (roles, estimate(self.pairs(), self.network, self.prompts, self.judges, prices, roles))
            for roles in roles_range(self.network, len(self.judges))
        ]

    def judge(self, say: Callable[[str], None]) -> Outcome:
        """Judge everything that has no record in --out yet.

        Raises:
            RunError: the folder cannot be used, or the cache.
        """
        folder = Folder(Path(self.config.out))
        try:
            tally = Tally()
            for record in folder.open(self.config, forget_unscored=self.config.retry_unscored):
                tally.add(record)
            if tally.samples:
                say(f"going on: {tally.samples:,} of {self.total:,} samples are judged already")
            outcome = asyncio.run(self._judge(folder, tally))
            data = {
                "edition": self.edition,
                "refused": {str(n): reason[:_REASON] for n, reason in self.data.refused.items()},
            }
            write_counts(folder.path, {**tally.metrics(), "data": data})
            return outcome
        finally:
            folder.close()

    async def _judge(self, folder: Folder, tally: Tally) -> Outcome:
        config = self.config
        cache = None if config.caching.no_cache else Cache(_path(config.caching.cache) or default_path())
        finish, halt = asyncio.Event(), asyncio.Event()
        budget = Budget(None if config.money.budget is None else Decimal(str(config.money.budget)))
        callers = [self._caller(judge, cache, budget, halt) for judge in self.judges]
        panel = Reviewers(callers, self.prompts, self._manner(), self.network.temperature)
        run = {
            "config": digest(config, self.prompts.digest),
            "version": version("depthlab"),
            "seed": config.seed,
            "judges": [judge.identity for judge in self.judges],
        }
        todo = (pair for pair in self.pairs() if not folder.has(pair))
        stopped: list[RunError] = []

        def status() -> str:
            spent = f" | {budget.spent:.4f} USD" if any(caller.price for caller in callers) else ""
            return f"{sum(tally.unscored_samples.values())} unscored{spent}"

        async def work() -> None:
            """Judge one sample after another; as many of these run as there may be calls in flight."""
            try:
                for pair in todo:
                    if finish.is_set():
                        return
                    judgement = await self.network.judge(pair, panel)
                    record = to_record(pair, judgement, run=run)
                    folder.add(record)
                    tally.add(record)
                    progress.advance()
            except RunError as error:
                stopped.append(error)
                finish.set()
                halt.set()

        def interrupt() -> None:
            # What is in flight is paid for. Calls that the cache keeps need not become a whole sample to be saved.
            finish.set()
            if cache is not None:
                halt.set()
            what = "the calls" if cache is not None else "the samples"
            progress.say(f"stopping: {what} in flight will be finished (Ctrl-C again to end at once)")

        try:
            with ProgressLine(self.total, tally.samples, status) as progress, _on_interrupt(interrupt):
                await asyncio.gather(*(work() for _ in range(min(config.server.concurrency, self.total))))
        finally:
            for judge in self.judges:
                await judge.close()
            if cache is not None:
                cache.close()
        reason = _most_telling(stopped)
        if reason is None and finish.is_set():
            reason = StoppedError("asked to stop")
        return Outcome(tally, self.total, budget.spent, sum(caller.counts.lost for caller in callers), reason)

    def _caller(self, judge: Judge, cache: Cache | None, budget: Budget, halt: asyncio.Event) -> Caller:
        server = self.config.server
        limits = Limits(
            min(server.concurrency, judge.concurrency or server.concurrency),
            server.requests_per_minute,
            server.tokens_per_minute,
            Breaker(server.breaker, server.give_up, rest_s=server.backoff),
        )
        return Caller(
            judge,
            limits,
            cache=cache,
            refresh=self.config.caching.refresh,
            price=self.prices.get(judge.name),
            budget=budget,
            retries=Retries(server.retries, server.backoff),
            stop=halt,
        )

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


@contextmanager
def _on_interrupt(act: Callable[[], None]) -> Iterator[None]:
    """The first Ctrl-C or SIGTERM calls `act`; a second one has its usual effect."""
    loop = asyncio.get_running_loop()
    signals = (signal.SIGINT, signal.SIGTERM)

    def first() -> None:
        restore()
        act()

    def restore() -> None:
        for number in signals:
            loop.remove_signal_handler(number)
        # remove_signal_handler leaves what asyncio.run had not: make Ctrl-C raise KeyboardInterrupt again.
        signal.signal(signal.SIGINT, signal.default_int_handler)

    for number in signals:
        loop.add_signal_handler(number, first)
    try:
        yield
    finally:
        restore()
