"""Silence what other packages say at import or at every save, which no user of ours can act on."""

from __future__ import annotations

import io
import logging
import os
import sys
import warnings


def print_any_name() -> None:
    """Let a terminal whose encoding lacks a character print its code in place of ending the program."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def quieten() -> None:
    """Call before transformers or DeepSpeed is imported."""
    print_any_name()
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    # Said on every machine without a GPU as soon as anything imports DeepSpeed.
    logging.getLogger("DeepSpeed").addFilter(lambda record: "Setting accelerator to CPU" not in record.getMessage())
    warnings.filterwarnings("ignore", category=FutureWarning)
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
