"""A page in Debian's Chromium, watched: what it says on its console, and what it asks of whom."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Browser, Page, sync_playwright


class Watched:
    """A page, all lines of its console and errors, and all requests."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.said: list[str] = []
        self.asked: list[str] = []
        page.on("console", lambda message: self.said.append(message.text))
        page.on("pageerror", lambda error: self.said.append(str(error)))
        page.on("request", lambda request: self.asked.append(request.url))

    def outside(self, start: str) -> list[str]:
        """Requests to anything whose address does not start so."""
        return [url for url in self.asked if not url.startswith((start, "blob:", "data:"))]


@contextmanager
def chromium() -> Iterator[Browser]:
    """Debian's; fails where it is not installed."""
    path = shutil.which("chromium")
    assert path is not None, "these tests need Debian's chromium: apt install chromium"
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield started
        started.close()
