"""What is measured while training runs. A new monitor is one new file in this folder and nothing else.

moments.py    the moments of a step that a monitor can take part in, and the registry
quantity.py   what a monitor declares of its figures: unit, reduction, axis, how to draw them
watch.py      the monitors of a run: which are on, with which options, on which steps
"""

from __future__ import annotations

import importlib
import pkgutil

from lab.monitors.moments import Monitor, names, quantities
from lab.monitors.watch import Monitors, Watch, check

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")

__all__ = ["Monitor", "Monitors", "Watch", "check", "names", "quantities"]
