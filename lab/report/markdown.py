"""The report as Markdown with PNG figures beside it, for a repository or a pull request."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from lab.report import content as told
from lab.report.compare import config_differences, final_figures
from lab.report.content import Content
from lab.report.images import as_plotly, write_images
from lab.report.numbers import with_interval


def write_markdown(content: Content, target: Path) -> None:
    """Write `target` and, in the folder `NAME_figures` beside it, a PNG for each figure at the last checkpoint.

    Raises:
        RunError: kaleido or a Chromium is missing.
    """
    folder = target.with_name(f"{target.stem}_figures")
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"{panel.kind.name}.png" for panel in content.panels]
    if files:
        write_images([as_plotly(panel) for panel in content.panels], files)
    target.write_text(markdown(content, folder.name), encoding="utf-8")


def markdown(content: Content, folder: str) -> str:
    """The text, with figures in `folder`."""
    parts = [f"# {plain(content.title)}"]
    if content.notices:
        parts.append("\n".join(f"- {plain(notice)}" for notice in content.notices))
    facts = [told.header(run) for run in content.runs]
    names = list(dict.fromkeys(name for one in facts for name in one))
    heads = [run.name for run in content.runs]
    parts.append(table(["", *heads], ([name, *(one.get(name, "–") for one in facts)] for name in names)))
    if len(content.groups) > 1:
        rows = []
        for final in final_figures(content.groups):
            cells = [
                with_interval(value) + (f" ({with_interval(change, sign=True)})" if change else "")
                for value, change in zip(final.values, final.differences, strict=True)
            ]
            rows.append([f"{final.label} {'' if final.unit == '1' else final.unit}".strip(), *cells])
        groups = [f"{group.label}, n = {len(group.runs)}" for group in content.groups]
        parts += [
            "## Final figures",
            "± is the 95 % interval over seeds; in brackets the difference to the first, with Welch's interval.",
            table(["figure", *groups], rows),
        ]
    if differing := config_differences(content.runs):
        rows = [
            [name, *("–" if value is None else str(value) for value in values)] for name, values in differing.items()
        ]
        parts += ["## Settings that differ", table(["setting", *heads], rows)]
    if summary := told.summary(content):
        last = content.labels[-1] if content.labels else ""
        parts += [
            f"## The curse of depth in a few figures{', ' + last if last else ''}",
            table(
                ["figure", *(group.label for group in content.groups), "definition"],
                ([row.name, *row.cells[-1], row.definition] for row in summary),
            ),
        ]
    section = ""
    for panel in content.panels:
        kind, frame = panel.kind, panel.drawing.frames[-1]
        if kind.section != section:
            section = kind.section
            parts.append(f"## {section}")
        parts += [
            f"### {kind.title}",
            f"{plain(kind.shows)} Unit: {plain(kind.unit)}.",
            f"![{plain(frame.alternative)}]({folder.replace(' ', '%20')}/{kind.name}.png)",
            f"{plain(kind.definition)} Source: {plain(kind.source)}.",
        ]
    return "\n\n".join(parts) + "\n"


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of GitHub's Markdown."""
    lines = [heads, ["---"] * len(heads), *rows]
    shown = [[cell if number == 1 else plain(cell) for cell in line] for number, line in enumerate(lines)]
    return "\n".join(f"| {' | '.join(line)} |" for line in shown)


def plain(text: str) -> str:
    """Text that Markdown shows as it is: no markup, no HTML, one line."""
    one_line = " ".join(text.split())
    escaped = re.sub(r"([\\`*_\[\]#|~!])", r"\\\1", one_line)
    return escaped.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
