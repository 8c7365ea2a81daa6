"""`accelerate launch lab/pretrain.py`, or `-m lab.pretrain` from anywhere: parse, train, exit code."""

from __future__ import annotations

import os
import sys
from functools import partial

# Run as a script, this folder stands first on the path, and its rooms would hide packages of the same names.
_HERE = os.path.dirname(os.path.realpath(__file__))
sys.path[:] = [entry for entry in sys.path if os.path.realpath(entry) != _HERE]


def main(argv: list[str] | None = None, *, prog: str = "lab/pretrain.py") -> int:
    """Run one pre-training.

    Returns:
        The exit code: 0 complete, 75 asked to stop and saved (go on with --resume latest), 2 impossible settings,
        1 a run that cannot start or go on.
    """
    from lab.errors import EXIT_ERROR, ConfigError, LostRankError, UserError, exit_code, tell
    from lab.light import without_torch
    from lab.parallel import ranks
    from lab.training.signals import EXIT_STOPPED, ignore_repeats

    words = sys.argv[1:] if argv is None else argv
    try:
        ranks.check()
    except ConfigError as error:
        return tell(error)
    try:
        with without_torch():  # a wrong flag should not wait for it
            from lab.training.start import check_early, parse

            settings = partial(parse, words, prog=prog)
            run = settings()
            check_early(run)
            from lab.quiet import quieten

            quieten()
        from lab.training.run import pretrain

        complete = pretrain(run, settings)
    except UserError as error:
        if os.environ.get("RANK", "0") == str(error.reported_by):
            tell(error)
        if isinstance(error, LostRankError):
            os._exit(EXIT_ERROR)  # the process group, half gone, would hold an orderly end up
        return exit_code(error)
    if complete:
        return 0
    ignore_repeats()
    return EXIT_STOPPED


if __name__ == "__main__":
    sys.exit(main())
