"""The numbers alone, as JSON."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

from lab.diagnostics.values import Figure
from lab.report.compare import Interval, config_differences, final_figures
from lab.report.content import Content

FORMAT = 1
"""Version of the layout."""


def as_json(content: Content) -> str:
    """Runs with their metrics and figures as stored, and the comparison; null for what is not finite."""
    whole = {
        "format": FORMAT,
        "runs": [
            {
                "name": run.name,
                "path": str(run.path),
                "config": run.config,
                "environment": run.environment,
                "metrics": run.metrics,
                "checkpoints": [
                    {
                        "step": step,
                        "model": record.model,
                        "summary": {name: _figure(figure) for name, figure in record.summary.items()},
                        "diagnostics": {
                            diagnostic: {name: _figure(figure) for name, figure in figures.items()}
                            for diagnostic, figures in record.diagnostics.items()
                        },
                    }
                    for step, record in run.records.items()
                ],
                "notices": run.notices,
            }
            for run in content.runs
        ],
        "groups": [
            {"label": group.label, "runs": [run.name for run in group.runs], "seeds": len(group.runs)}
            for group in content.groups
        ],
        "final": [
            {
                "name": final.name,
                "unit": final.unit,
                "values": [_interval(value) for value in final.values],
                "differences": [_interval(value) for value in final.differences],
            }
            for final in final_figures(content.groups)
        ],
        "config_differences": config_differences(content.runs),
        "notices": content.notices,
    }
    return json.dumps(_finite(whole), indent=1, allow_nan=False, default=str) + "\n"


def _figure(figure: Figure) -> dict[str, Any]:
    return {
        "unit": figure.unit,
        "reduction": figure.reduction,
        "axes": dict(figure.axes),
        "values": figure.values.tolist(),
        "standard_error": None if figure.error is None else figure.error.tolist(),
    }


def _interval(found: Interval | None) -> dict[str, Any] | None:
    return None if found is None else dataclasses.asdict(found)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
