"""Silence what other packages say at import or at every save, which no user of ours can act on."""

from __future__ import annotations

import logging
import os
import warnings


def quieten() -> None:
    """Call before transformers or DeepSpeed is imported."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    # Said on every machine without a GPU as soon as anything imports DeepSpeed.
    logging.getLogger("DeepSpeed").addFilter(lambda record: "Setting accelerator to CPU" not in record.getMessage())
    warnings.filterwarnings("ignore", category=FutureWarning)
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
