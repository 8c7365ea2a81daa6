"""One model on one probe: the shared passes, the experiments, and what could not be measured."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from traceback import extract_tb

import torch
from transformers import PreTrainedModel

from lab.diagnostics.base import Diagnostic, Experiment, Reading
from lab.diagnostics.engine.probe import Probe
from lab.diagnostics.engine.processes import Processes
from lab.diagnostics.engine.session import Session, family, has_float64, undisturbed, use_attention
from lab.diagnostics.engine.streams import recorder
from lab.diagnostics.options import Options
from lab.diagnostics.record import Record
from lab.diagnostics.registry import chosen, get
from lab.diagnostics.summary import summarize
from lab.diagnostics.values import Figure
from lab.errors import RunError, UserError

Say = Callable[[str], None]


def measure(
    model: PreTrainedModel,
    probe: Probe,
    *,
    only: str | Sequence[str] | None = None,
    options: Options | None = None,
    processes: Processes | None = None,
    say: Say = lambda text: None,
) -> Record:
    """Measure a causal LM. Weights, flags, gradients and random state are what they were, whatever happens.

    Args:
        model: a causal LM of a family in `normalization.families`, with or without a scheme.
        probe: the token blocks.
        only: names of diagnostics; all of them if not given.
        options: how they are measured.
        processes: those that measure together; every one calls this and gets the same record.
        say: is told what is being measured.

    Returns:
        The record. A diagnostic that does not apply, ran out of memory or is broken is in its `failures`, with the
        reason.

    Raises:
        UserError: an unknown diagnostic or family, a probe that does not fit the model, or a device without float64.
    """
    names = chosen(only)
    family(model)
    if not has_float64(model.device):
        raise RunError(f"the model is on {model.device}, which has no float64 for the sums; measure it on the CPU")
    probe.check(model.config)
    session = Session(model, probe, options or Options(), processes or Processes())
    run = _Measurement(session, say)
    with undisturbed(model):
        run.start(names)
        run.read([reading for reading in run.readings if not reading.replays])
        run.read([reading for reading in run.readings if reading.replays])
        run.experiment()
        figures = run.finish()
    return Record.make(session, figures, run.failures, summarize(figures))


class _Measurement:
    """The diagnostics of one measurement; one that fails is dropped, and says why."""

    def __init__(self, session: Session, say: Say) -> None:
        self.session, self.say = session, say
        self.failures: dict[str, str] = {}
        self._alive: dict[str, Diagnostic] = {}

    @property
    def readings(self) -> list[Reading]:
        return [found for found in self._alive.values() if isinstance(found, Reading)]

    def start(self, names: Sequence[str]) -> None:
        for name in names:
            with self._guarded(name):
                self._alive[name] = get(name)(self.session)
        self._agree()

    def read(self, readings: Sequence[Reading]) -> None:
        """One pass over the probe for all of these."""
        if not readings:
            return
        self.say(f"one pass for {', '.join(reading.name for reading in readings)}")
        model, own = self.session.model, self.session.model.config._attn_implementation
        watching = [reading for reading in readings if reading.attention_weights]

        def on_attention(layer: int, weights: torch.Tensor | None, streams: object) -> None:
            for reading in watching:
                if reading.name not in self.failures:
                    with self._guarded(reading.name):
                        reading.on_attention(layer, weights, streams)  # type: ignore[arg-type]

        if watching:
            use_attention(model, "eager")
        sublayers = any(reading.sublayers for reading in readings)
        try:
            with (
                self._guarded(*(reading.name for reading in readings), shared=True),
                recorder(self.session, sublayers=sublayers, on_attention=[on_attention] if watching else []) as record,
            ):
                for batch in self.session.batches():
                    streams = record(batch)
                    for reading in readings:
                        if reading.name not in self.failures:
                            with self._guarded(reading.name), torch.no_grad():
                                reading.update(streams)
                    del streams  # before the next batch makes new ones
        finally:
            use_attention(model, own)
        self._agree()

    def experiment(self) -> None:
        for name, found in list(self._alive.items()):
            if isinstance(found, Experiment):
                self.say(name)
                with self._guarded(name):
                    found.run()
        self._agree()

    def finish(self) -> dict[str, dict[str, Figure]]:
        figures = {}
        for name, found in self._alive.items():
            found.reduce()
            with self._guarded(name), torch.no_grad():
                figures[name] = {key: _sourced(figure, found.source) for key, figure in found.figures().items()}
        return figures

    @contextmanager
    def _guarded(self, *names: str, shared: bool = False) -> Iterator[None]:
        """What goes wrong in here is the failure of these diagnostics; of a shared pass only what says so itself."""
        try:
            yield
        except Exception as error:
            if isinstance(error, UserError):
                reason = str(error)
            elif _is_memory(error):
                reason = (
                    f"not enough memory on {self.session.device}; lower --batch (now {self.session.options.batch}) or "
                    f"--block-length (now {self.session.probe.length})"
                )
            elif shared:
                raise
            else:
                reason = f"{_where(error)}{type(error).__name__}: {error}"
            self.failures |= dict.fromkeys((name for name in names if name not in self.failures), reason)

    def _agree(self) -> None:
        """What failed on one process is dropped on all, so that none waits for another."""
        names = sorted(set(self._alive) | set(self.failures))
        failed = self.session.processes.any([name in self.failures for name in names])
        for name, has_failed in zip(names, failed, strict=True):
            if has_failed:
                self.failures.setdefault(name, "it failed on another process")
                self._alive.pop(name, None)


def _sourced(figure: Figure, source: str) -> Figure:
    return figure if figure.drawn is None else replace(figure, drawn=replace(figure.drawn, source=source))


def _where(error: BaseException) -> str:
    """The last line of a measure that an exception came through: `variance.py:43: `."""
    frames = [frame for frame in extract_tb(error.__traceback__) if Path(frame.filename).parent.name == "measures"]
    return f"{Path(frames[-1].filename).name}:{frames[-1].lineno}: " if frames else ""


def _is_memory(error: BaseException) -> bool:
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    text = str(error)
    return "can't allocate memory" in text or "not enough memory" in text
