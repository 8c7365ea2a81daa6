"""What is measured while training runs. A new monitor is one new file in this folder and nothing else."""

from __future__ import annotations

import importlib
import pkgutil

from lab.monitors.moments import Monitor, build

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")

__all__ = ["Monitor", "build"]
