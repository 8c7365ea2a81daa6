"""What the report shows, in TensorBoard, W&B and Trackio: curves by layer, and heat maps as images."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import plotly.colors

from lab.diagnostics.record import Record
from lab.report.content import gather
from lab.report.drawing import MAP_COLOURS
from lab.report.read import Run, read

CELL = 8
"""Pixels of a cell's side."""
DEPTH_AXES = ("layer", "stream")
"""Axes of figures that are curves over depth."""


class TrackedReport:
    """Hands a run's diagnostics to its trackers while it trains. One for each run, on its main process."""

    def __init__(self, accelerator: Any, run_dir: Path) -> None:
        self._accelerator, self._run_dir = accelerator, run_dir
        self._logged = self._newest(read(run_dir))

    def log(self, step: int) -> None:
        """Log the heat maps of training up to now, and the newest record if it was not logged yet.

        A record may be of an earlier checkpoint than the last, as some are measured beside the run; trackers take no
        values for steps that have passed, so that it is logged now, and `diagnostics/checkpoint` says which it is.

        Args:
            step: now.
        """
        run = read(self._run_dir)
        newest = self._newest(run)
        fresh: dict[int | None, Record] = (
            {} if newest is None or newest == self._logged else {newest: run.records[newest]}
        )
        if newest is not None and fresh:
            self._accelerator.log({"diagnostics/checkpoint": float(newest)} | curves(fresh[newest]), step=step)
        self._logged = newest
        self._log_images(heat_maps(replace(run, records=fresh)), step)

    @staticmethod
    def _newest(run: Run) -> int | None:
        return max(run.steps, default=None)

    def _log_images(self, images: dict[str, np.ndarray], step: int) -> None:
        for tracker in self._accelerator.trackers if images else []:
            if tracker.name == "tensorboard":
                # Accelerate's own method takes batches: (N, H, W, 3).
                tracker.log_images({name: pixels[None] for name, pixels in images.items()}, step, dataformats="NHWC")
            elif tracker.name == "wandb":
                tracker.log_images({name: [pixels] for name, pixels in images.items()}, step=step)
            elif tracker.name == "trackio":
                import trackio  # type: ignore[import-not-found, unused-ignore]

                tracker.log({name: trackio.Image(pixels) for name, pixels in images.items()}, step=step)


def curves(record: Record) -> dict[str, float]:
    """The figures over depth and the summary, by names that sort by layer.

    Returns:
        `diagnostics/variance/stream_median/stream_03`, `diagnostics/removal/increase/layer_12` and the like, and
        `diagnostics/summary/NAME`; values that are not finite are left out.
    """
    found = {f"diagnostics/summary/{name}": float(figure.values) for name, figure in record.summary.items()}
    width = len(str(record.model["layers"]))
    for diagnostic, figures in record.diagnostics.items():
        for name, figure in figures.items():
            if len(figure.axes) != 1:
                continue
            ((axis, places),) = figure.axes.items()
            if axis in DEPTH_AXES:
                found |= {
                    f"diagnostics/{diagnostic}/{name}/{axis}_{place:0{width}d}": float(value)
                    for place, value in zip(places, figure.values, strict=True)
                }
    return {name: value for name, value in found.items() if np.isfinite(value)}


def heat_maps(run: Run) -> dict[str, np.ndarray]:
    """The report's heat maps, drawn without a browser.

    Args:
        run: with at most one record.

    Returns:
        `report/angular` and the like -> image (H, W, 3) in uint8; layer 1 at the bottom, white where there is no value.
    """
    images = {}
    for panel in gather([run]).panels:
        (frame,) = panel.drawing.frames
        if frame.traces and frame.traces[0]["type"] == "heatmap":
            images[f"report/{panel.kind.name}"] = image(np.array(frame.traces[0]["z"], dtype=np.float64))
    return images


def image(values: np.ndarray) -> np.ndarray:
    """Values (rows, columns), the first row at the bottom, as colours from the least to the largest."""
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    stops = plotly.colors.get_colorscale(MAP_COLOURS)
    places = [place for place, _ in stops]
    colours = np.array([plotly.colors.hex_to_rgb(colour) for _, colour in stops], dtype=np.float64)
    shares = np.nan_to_num((values - low) / ((high - low) or 1.0))
    pixels = np.stack([np.interp(shares, places, colours[:, channel]) for channel in range(3)], axis=-1)
    pixels[~np.isfinite(values)] = 255
    return np.ascontiguousarray(pixels.round().astype(np.uint8)[::-1].repeat(CELL, 0).repeat(CELL, 1))
