from __future__ import annotations

from lab.quiet import quieten

# What DeepSpeed prints on machines without a GPU would stand in the output of doctests.
quieten()
