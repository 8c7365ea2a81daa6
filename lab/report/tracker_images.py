"""Heat maps of a run as images in TensorBoard, W&B and Trackio."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import plotly.colors

from lab.report.content import gather
from lab.report.drawing import MAP_COLOURS
from lab.report.read import read

CELL = 8
"""Pixels of a cell's side."""


def heat_maps(run_dir: Path, step: int) -> dict[str, np.ndarray]:
    """The report's heat maps at a checkpoint, drawn without a browser.

    Args:
        run_dir: the run.
        step: checkpoint; maps of training are up to now.

    Returns:
        `report/angular` and the like -> image (H, W, 3) in uint8; layer 1 at the bottom, white where there is no value.
    """
    content = gather([read(run_dir)])
    images = {}
    for panel in content.panels:
        frames = panel.drawing.frames
        if len(frames) > 1 or panel.kind.section != "Training":
            if step not in content.context.steps:
                continue
            frame = frames[content.context.steps.index(step)]
        else:
            frame = frames[0]
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


def log_images(accelerator: Any, run_dir: Path, step: int) -> None:
    """Log `heat_maps` to the trackers of an `Accelerator` that show images: TensorBoard, W&B, Trackio."""
    images = heat_maps(run_dir, step)
    for tracker in accelerator.trackers:
        if not images:
            continue
        if tracker.name == "tensorboard":
            # Accelerate's own method takes batches: (N, H, W, 3).
            tracker.log_images({name: pixels[None] for name, pixels in images.items()}, step, dataformats="NHWC")
        elif tracker.name == "wandb":
            tracker.log_images({name: [pixels] for name, pixels in images.items()}, step=step)
        elif tracker.name == "trackio":
            import trackio  # type: ignore[import-not-found, unused-ignore]

            tracker.log({name: trackio.Image(pixels) for name, pixels in images.items()}, step=step)
