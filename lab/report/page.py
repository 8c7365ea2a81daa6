"""The report as one HTML file that asks nothing of anyone: script, styles and data are in it."""

from __future__ import annotations

import json
from importlib import resources
from typing import Any

from jinja2 import Environment, PackageLoader
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from lab.report import content as told
from lab.report.compare import config_differences, final_figures
from lab.report.content import Content
from lab.report.numbers import with_interval


def page(content: Content, *, live: bool = False) -> str:
    """The whole file.

    Args:
        content: what it says.
        live: it asks the server that it came from for newer data.
    """
    environment = Environment(loader=PackageLoader("lab.report"), autoescape=True, trim_blocks=True, lstrip_blocks=True)
    files = resources.files("lab.report") / "templates"
    return environment.get_template("page.html.j2").render(
        content=content,
        live=live,
        headers=[(run, told.header(run), told.details(run)) for run in content.runs],
        summary=told.summary(content),
        finals=final_figures(content.groups) if len(content.groups) > 1 else [],
        differences=config_differences(content.runs),
        with_interval=with_interval,
        data=in_script(data(content)),
        style=Markup((files / "page.css").read_text(encoding="utf-8")),
        script=Markup((files / "page.js").read_text(encoding="utf-8")),
        plotly=Markup(get_plotlyjs()),
    )


def data(content: Content) -> dict[str, Any]:
    """What the page's script draws from."""
    panels = {
        panel.kind.name: {
            "layout": panel.drawing.layout,
            "columns": panel.drawing.columns,
            "frames": [{"traces": frame.traces, "alternative": frame.alternative} for frame in panel.drawing.frames],
        }
        for panel in content.panels
    }
    return {
        "labels": content.labels,
        "panels": panels,
        "summary": [row.cells for row in told.summary(content)],
    }


def in_script(value: Any) -> Markup:
    """JSON that no text in it can end the script element of."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))
