"""Command lines as a user whom file modes bind, root or not: each in a child of one process that has torch loaded.

Reads `[[word, ...], ...]` from standard input, writes `[[exit code, output, errors], ...]`. With an argument, the
commands write into a pipe that nobody reads (`closed`), or to a file, such as /dev/full.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
import tempfile
import traceback

CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH = 1, 2
CAPABILITY_VERSION_3 = 0x20080522


def obey_modes() -> None:
    """Give up what lets root read and write whatever the modes of files say."""
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION_3, 0)
    data = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable: of the first 32 capabilities, then of the rest
    if libc.capget(header, data):
        raise OSError(ctypes.get_errno(), "capget")
    for index in range(3):
        data[index] &= ~(1 << CAP_DAC_OVERRIDE | 1 << CAP_DAC_READ_SEARCH)
    if libc.capset(header, data):
        raise OSError(ctypes.get_errno(), "capset")


def output(file: int) -> int:
    """The descriptor that a command writes to."""
    if not sys.argv[1:]:
        return file
    if sys.argv[1] != "closed":
        return os.open(sys.argv[1], os.O_WRONLY)
    reading, writing = os.pipe()
    os.close(reading)
    return writing


def call(words: list[str]) -> tuple[int, str, str]:
    from lab import cli

    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        child = os.fork()
        if child == 0:
            os.dup2(output(out.fileno()), 1), os.dup2(err.fileno(), 2)
            obey_modes()
            code = 70
            try:
                code = cli.main(words)
            except SystemExit as end:
                code = end.code if isinstance(end.code, int) else 1
            except BaseException:
                traceback.print_exc()
            # As Python does at the end.
            try:
                sys.stdout.flush()
            except OSError:
                traceback.print_exc()
                code = 120
            sys.stderr.flush()
            os._exit(code)
        _, status = os.waitpid(child, 0)
        out.seek(0), err.seek(0)
        return os.waitstatus_to_exitcode(status), out.read().decode(), err.read().decode()


if __name__ == "__main__":
    from lab.quiet import quieten

    quieten()
    import torch

    import lab.commands.convert
    import lab.commands.export
    import lab.commands.prune
    import lab.diagnostics.command
    import lab.training.run  # noqa: F401

    torch.set_num_threads(1)
    sys.stdout.write(json.dumps([call(words) for words in json.load(sys.stdin)]))
