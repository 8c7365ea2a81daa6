"""`depthlab report RUN [RUN ...]`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from evaluators import command_line
from lab.modes import check_place

if TYPE_CHECKING:
    from lab.report.content import Content

SUFFIX = {"html": ".html", "md": ".md", "json": ".json"}


@dataclass(frozen=True)
class Report:
    """Turn runs into one file to look at: training, what each layer does at every checkpoint, and how runs compare.
    Runs that differ by their seed only are pooled."""

    paths: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN [RUN ...]")]
    """Run folders; or records (.json) of any model that depthlab diagnose has measured."""
    out: str | None = None
    """File to write; RUN/report.html for one run, report.html here for several, if not given."""
    format: Literal["html", "md", "json"] = "html"
    """html: one file that opens without a network; md: Markdown with PNG figures beside it (needs Chromium); json: the
    numbers alone."""
    live: bool = False
    """Serve the page on this machine (127.0.0.1) and update it while training runs; Ctrl-C ends it."""
    port: int = 0
    """Port of --live; a free one if 0."""


def main(argv: Sequence[str], *, prog: str) -> int:
    """Exit code 0; 1 where there is nothing to read or no place to write; 2 for an impossible setting."""
    from lab.errors import ConfigError, UserError, tell
    from lab.light import without_torch

    try:
        wanted = command_line.read(Report, argv, prog=prog)
        if not wanted.paths:
            raise ConfigError("name at least one run folder, or a record (.json) of depthlab diagnose")
        with without_torch():
            from lab.report.paths import check

            check(wanted.paths)
        if wanted.live:
            if wanted.format != "html" or wanted.out is not None:
                raise ConfigError("--live: serves HTML and writes nothing; leave --format and --out away")
            if not 0 <= wanted.port <= 65535:
                raise ConfigError(f"--port {wanted.port}: must be 0 (a free one) to 65535")
            from lab.report.live import serve

            serve(list(wanted.paths), port=wanted.port)
            return 0
        if wanted.port:
            raise ConfigError("--port: only with --live")
        file = write(list(wanted.paths), out=wanted.out, kind=wanted.format)
        print(f"wrote {file}" + ("; open it in a browser" if wanted.format == "html" else ""))
    except UserError as error:
        return tell(error)
    return 0


def write(paths: list[str], *, out: str | None = None, kind: Literal["html", "md", "json"] = "html") -> Path:
    """Write the report of runs.

    Args:
        paths: run folders and records.
        out: the file; beside the run if not given, in the working folder for several.
        kind: html, md or json.

    Returns:
        The file.

    Raises:
        UserError: a path that is no run, or the file cannot be written.
    """
    from lab.errors import RunError
    from lab.report.content import gather
    from lab.report.read import read_all

    first = Path(paths[0])
    alone = len(paths) == 1 and first.is_dir()
    target = Path(out) if out is not None else (first if alone else Path()) / f"report{SUFFIX[kind]}"
    if target.is_dir():
        raise RunError(f"--out {target}: is a folder; name a file, such as {target / ('report' + SUFFIX[kind])}")
    check_place("--out", target)
    content = gather(read_all(paths))
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _write(content, target, kind)
    except OSError as error:
        raise RunError(f"--out {target}: cannot be written ({error.strerror or error})") from error
    return target


def _write(content: Content, target: Path, kind: str) -> None:
    if kind == "md":
        from lab.report.markdown import write_markdown

        write_markdown(content, target)
        return
    if kind == "json":
        from lab.report.numeric import as_json

        text = as_json(content)
    else:
        from lab.report.page import page

        text = page(content)
    target.write_text(text, encoding="utf-8")
