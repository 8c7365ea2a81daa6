"""The record of one checkpoint: `NAME.json` with the figures, `NAME.safetensors` beside it with the arrays."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from lab.diagnostics.engine.probe import Probe
from lab.diagnostics.values import Drawn, Figure
from lab.errors import RunError
from lab.hashing import file_hash
from lab.modes import as_umask

FORMAT = 1
"""Version of the files; a reader refuses newer ones."""
_ERROR = "standard_error"


@dataclass(frozen=True, eq=False)
class Record:
    """All that was measured on one checkpoint, and on what."""

    model: dict[str, Any]
    """`source`, `digest` or `revision`, `model_type`, `scheme`, `plans`, `layers`, `parameters`, `dtype`; `step` and
    `tokens` of a checkpoint of ours."""
    probe: Probe
    options: dict[str, Any]
    diagnostics: dict[str, dict[str, Figure]]
    """Diagnostic -> name -> figure."""
    failures: dict[str, str]
    """Diagnostic -> why it was not measured."""
    summary: dict[str, Figure]
    environment: dict[str, Any]

    @classmethod
    def make(
        cls,
        session: Any,
        diagnostics: dict[str, dict[str, Figure]],
        failures: dict[str, str],
        summary: dict[str, Figure],
    ) -> Record:
        """The record of a session."""
        import normalization
        from lab.runfolder.folder import environment

        model = session.model
        about = {
            "source": model.config.name_or_path or type(model).__name__,
            "model_type": model.config.model_type.removeprefix("depthlab_"),
            "scheme": normalization.spec(model).scheme,
            "plans": [str(plan) for plan in normalization.plans(model)],
            "layers": session.depth,
            "parameters": sum(parameter.numel() for parameter in model.parameters()),
            "dtype": str(model.dtype).removeprefix("torch."),
        }
        made = environment(session.processes.world) | {"device": str(session.device)}
        return cls(about, session.probe, asdict(session.options), diagnostics, failures, summary, made)

    def about(self, **more: Any) -> Record:
        """The same record, with more said about the model."""
        return replace(self, model=self.model | more)

    def figure(self, name: str) -> Figure:
        """A figure as `diagnostic/figure`, such as `angular/distance`.

        Raises:
            KeyError: it was not measured; says why, if it failed.
        """
        diagnostic, _, figure = name.partition("/")
        if diagnostic in self.failures:
            raise KeyError(f"{name}: {self.failures[diagnostic]}")
        found = self.diagnostics.get(diagnostic, {})
        if figure not in found:
            has = ", ".join(f"{one}/{other}" for one, figures in self.diagnostics.items() for other in figures)
            raise KeyError(f"{name}: not in this record, which has {has or 'none'}")
        return found[figure]

    def to_pandas(self) -> Any:
        """One table of every figure, a row a value: `diagnostic`, `figure`, the axes, `value`, `standard_error`,
        `unit`. An axis that a figure lacks is missing there."""
        import pandas

        tables = []
        for diagnostic, figures in (self.diagnostics | {"summary": self.summary}).items():
            for name, figure in figures.items():
                table = figure.to_pandas()
                table.insert(0, "diagnostic", diagnostic)
                table.insert(1, "figure", name)
                tables.append(table.assign(unit=figure.unit))
        whole = pandas.concat(tables, ignore_index=True)
        ends = ["value", "standard_error", "unit"]
        return whole[[column for column in whole.columns if column not in ends] + ends]

    def merged(self, earlier: Record) -> Record:
        """With what an earlier record of the same model, probe and options has besides."""
        from lab.diagnostics.summary import summarize

        diagnostics = earlier.diagnostics | self.diagnostics
        diagnostics = {name: diagnostics[name] for name in sorted(diagnostics)}
        failures = {
            name: reason for name, reason in (earlier.failures | self.failures).items() if name not in diagnostics
        }
        return replace(self, diagnostics=diagnostics, failures=failures, summary=summarize(diagnostics))

    def save(self, path: Path) -> None:
        """Write both files; the JSON last, so that a record that is there is whole.

        Args:
            path: of the JSON file; its folder is made.
        """
        arrays = {f"probe/{name}": array for name, array in self.probe.arrays().items()}
        content: dict[str, Any] = {
            "format": FORMAT,
            "model": self.model,
            "probe": self.probe.summary(),
            "options": self.options,
            "summary": {name: _stored(figure, "", {}) for name, figure in self.summary.items()},
            "diagnostics": {
                diagnostic: {name: _stored(figure, f"{diagnostic}/{name}", arrays) for name, figure in figures.items()}
                for diagnostic, figures in self.diagnostics.items()
            },
            "failures": self.failures,
            "environment": self.environment,
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        tensors, partial = path.with_suffix(".safetensors"), path.with_name(f".{path.stem}.partial")
        try:
            save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, partial)
            as_umask(partial)
            content["arrays"] = {"file": tensors.name, "xxh3_128": file_hash(partial)}
            text = json.dumps(content, indent=1, allow_nan=False, default=str) + "\n"
            os.replace(partial, tensors)
            partial.write_text(text, encoding="utf-8")
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)


def _stored(figure: Figure, key: str, arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    """A figure for JSON; the values of maps go to the arrays under their name."""
    stored: dict[str, Any] = {"unit": figure.unit, "reduction": figure.reduction, "axes": dict(figure.axes)}
    if figure.drawn is not None:
        stored["drawn"] = asdict(figure.drawn)
    if figure.values.ndim < 2:
        stored["values"] = _plain(figure.values)
        if figure.error is not None:
            stored[_ERROR] = _plain(figure.error)
        return stored
    stored["array"] = key
    arrays[key] = figure.values
    if figure.error is not None:
        stored[f"{_ERROR}_array"] = f"{key}/{_ERROR}"
        arrays[f"{key}/{_ERROR}"] = figure.error
    return stored


def _plain(values: np.ndarray) -> Any:
    """Numbers for JSON, null for one that is not finite."""
    if values.ndim:
        return [_plain(value) for value in values]
    return float(values) if math.isfinite(values) else None


def _figure(stored: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Figure:
    if "array" in stored:
        values, error = arrays[stored["array"]], arrays.get(stored.get(f"{_ERROR}_array", ""))
    else:
        values, error = np.array(stored["values"], dtype=np.float64), stored.get(_ERROR)
        if _ERROR in stored:
            error = np.array(error, dtype=np.float64)
    drawn = Drawn(**stored["drawn"]) if "drawn" in stored else None
    return Figure(values, stored["axes"], stored["unit"], stored["reduction"], error, drawn)


def load(path: str | Path) -> Record:
    """Read a record.

    Args:
        path: `NAME.json`, or `NAME` without the suffix.

    Raises:
        RunError: there is none, it is damaged, or a newer depthlab wrote it.
    """
    path = Path(path)
    if path.suffix != ".json":
        path = path.with_name(f"{path.name}.json")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["format"] > FORMAT:
            raise RunError(f"{path}: written by a newer depthlab (format {content['format']}, this one reads {FORMAT})")
        file = path.with_name(content["arrays"]["file"])
        if file_hash(file) != content["arrays"]["xxh3_128"]:
            raise RunError(f"{path}: {file.name} beside it is not what was written with it; measure again")
        arrays = load_file(file)
        probe = Probe.from_arrays(
            {name.removeprefix("probe/"): array for name, array in arrays.items() if name.startswith("probe/")},
            content["probe"]["source"],
        )
        probe = replace(probe, begin_token=content["probe"].get("begin_token"))
        return Record(
            content["model"],
            probe,
            content["options"],
            {
                diagnostic: {name: _figure(stored, arrays) for name, stored in figures.items()}
                for diagnostic, figures in content["diagnostics"].items()
            },
            content["failures"],
            {name: _figure(stored, arrays) for name, stored in content["summary"].items()},
            content["environment"],
        )
    except FileNotFoundError as error:
        raise RunError(
            f"{error.filename}: no such file, so there is no record; make one with depthlab diagnose"
        ) from error
    except (KeyError, TypeError, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise RunError(f"{path}: not a record of depthlab diagnose ({type(error).__name__}: {error})") from error
