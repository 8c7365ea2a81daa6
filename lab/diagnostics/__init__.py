"""What each layer contributes, measured on a checkpoint. A new diagnostic is one new file in `measures/`.

    registry.py   the decorator; base.py: what a diagnostic is;  values.py: the figures that it gives
    measures/     variance, angular, rank, lens, attention       readings of one shared pass
                  removal, jacobian                              readings that run layers again
                  gradients, sparsity, spectra                   experiments with passes of their own
    engine/       streams.py: the one instrument;  decoding.py: streams to losses;  block_sums.py: pooled exactly
                  session.py: model, probe, settings and processes of one measurement;  probe.py: the token blocks
    measurement.py  one model -> a record;  record.py: its file;  summary.py: the curse of depth in a few figures
    runs.py       every checkpoint of a run;  show.py: tables;  command.py: the command line

Nothing heavy is imported here: the command line must answer `--help` without loading torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lab.diagnostics.engine.probe import Probe
    from lab.diagnostics.measurement import measure
    from lab.diagnostics.options import Options
    from lab.diagnostics.record import Record, load
    from lab.diagnostics.registry import names
    from lab.diagnostics.runs import after_checkpoint, awaits, start_watcher
    from lab.diagnostics.values import Figure

__all__ = [
    "Figure",
    "Options",
    "Probe",
    "Record",
    "after_checkpoint",
    "awaits",
    "load",
    "measure",
    "names",
    "start_watcher",
]

_LAZY = {
    "Figure": "values",
    "Options": "options",
    "Probe": "engine.probe",
    "Record": "record",
    "after_checkpoint": "runs",
    "awaits": "runs",
    "load": "record",
    "measure": "measurement",
    "names": "registry",
    "start_watcher": "runs",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)
