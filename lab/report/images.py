"""Figures as PNG, by kaleido with a Chromium of this machine; without a network."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import plotly.graph_objects as go

from lab.errors import RunError
from lab.report.content import Panel, escaped

WIDTH, SCALE = 720, 2


def as_plotly(panel: Panel, frame: int = -1) -> go.Figure:
    """A panel at one checkpoint, the last if not told."""
    found = panel.drawing.frames[frame]
    layout: dict[str, Any] = copy.deepcopy(panel.drawing.layout)
    layout |= {
        "width": WIDTH,
        "template": "plotly_white",
        "margin": {"l": 70, "r": 20, "t": 40, "b": 60},
        "legend": {"orientation": "h", "y": -0.25},
    }
    return go.Figure({"data": [escaped(trace) for trace in found.traces], "layout": layout})


def write_images(figures: Sequence[go.Figure], files: Sequence[Path]) -> None:
    """One PNG each, all by one browser.

    Raises:
        RunError: kaleido or a Chromium is missing.
    """
    try:
        import kaleido
        from choreographer.errors import ChromeNotFoundError
    except ImportError as error:
        raise RunError("figures as PNG need kaleido: pip install kaleido") from error
    options = {"format": "png", "scale": SCALE}
    figures_of = [
        {"fig": figure, "path": str(file), "opts": options} for figure, file in zip(figures, files, strict=True)
    ]
    try:
        # No MathJax: kaleido would ask the network for it. plotly.js comes from the installed package.
        kaleido.write_fig_from_object_sync(figures_of, kopts={"mathjax": False})
    except ChromeNotFoundError as error:
        raise RunError(
            "figures as PNG need Chromium or Chrome on this machine; install it (Debian: apt install chromium), name"
            " it in BROWSER_PATH, or take --format html or json"
        ) from error
