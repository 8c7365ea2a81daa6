"""The page as written: hostile texts are no elements in it, and no address stands in it. In a browser: *_browser.py."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

from tests.evaluators.conftest import Done

HOSTILE = "</script><script>document.title='taken'</script><img src=x onerror=\"document.title='taken'\">"


class _Elements(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def _run(judge: Callable[..., Done], folder: Path) -> Path:
    lines = [
        {"id": f"s{n} {HOSTILE}", "query": f"{HOSTILE} {n}", "response1": f"{HOSTILE} a{n}", "response2": f"b{n}"}
        | {"human": n % 3}
        for n in range(60)
    ]
    (folder / "p.jsonl").write_text("\n".join(map(json.dumps, lines)))
    words = ("--data", "p.jsonl", "--judge", "simulated:gap=1", "--depth", 1, "--roles", HOSTILE, "Tone")
    done = judge("run", *words, "--out", "r")
    assert done.returncode == 0, done.stderr
    done = judge("report", "r", "--draws", 200)
    assert done.returncode == 0, done.stderr
    return folder / "r" / "report.html"


def test_hostile_texts_are_no_elements_of_the_report(judge: Callable[..., Done], tmp_path: Path) -> None:
    page = _run(judge, tmp_path)
    text = page.read_text()
    parser = _Elements()
    parser.feed(text)
    runs = [attributes for tag, attributes in parser.found if tag == "script" and "type" not in attributes]
    assert len(runs) == 1 and not [tag for tag, _ in parser.found if tag == "img"]
    assert not any(key in ("src", "onerror") for _, attributes in parser.found for key in attributes)
    assert not re.search(r"https?://", text.split("<style>")[0] + text.split("</style>")[1].split("<script")[0])
    assert "default-src 'none'" in text
    figures = json.loads((tmp_path / "r" / "metrics.json").read_text())["statistics"]
    assert figures["samples"] == 60 and f"{figures['agreement']['scored']['accuracy']['value']:.3f}" in text


def test_a_report_of_no_run_is_refused(judge: Callable[..., Done], tmp_path: Path) -> None:
    done = judge("report", tmp_path)
    assert done.returncode == 1 and "holds no verdicts.jsonl" in done.stderr
    done = judge("metrics", "a", "b", "c")
    assert done.returncode == 2 and "3 given" in done.stderr
