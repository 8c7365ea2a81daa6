"""A judge's report of 2,553 samples x 17 calls: seconds, size, the bootstrap; in Chromium, how soon it can be used.

The run is synthetic: 4 neurons x 2 layers x 2 orders = 16 reviews and the call for roles; texts of made-up words whose
frequencies follow Zipf's law, as in natural text: queries of 40 words, responses of 150, evidence of 100. Real text
compresses otherwise.

    python benchmarks/judge_report.py --browser
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from evaluators.running.config import JudgeConfig
from evaluators.running.folder import to_record
from evaluators.running.settings import dump
from evaluators.samples import Pair
from evaluators.statistics import tables
from evaluators.statistics.intervals import FISHER, draw, smooth
from evaluators.values import Judgement, Order, Record, Review, Role, Usage, Verdict

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

SAMPLES, WIDTH, LAYERS = 2553, 4, 2
ORDERS: tuple[Order, Order] = ("12", "21")
FAMILIES = ("Question answering", "Coding", "Dialogue", "Harmless QA", "Story generation")
WORDS = 20_000

# What the page tells of itself: first paint, the moment when the list stands, and the time of a key's filtering.
WATCH = """
addEventListener("DOMContentLoaded", () => requestAnimationFrame(() => { window.usable = performance.now(); }));
window.keys = [];
addEventListener("input", (event) => requestAnimationFrame(() => setTimeout(() =>
  window.keys.push(performance.now() - event.timeStamp))), true);
"""


class Text:
    """Made-up words, the n-th most frequent with a chance of about 1 / n."""

    def __init__(self, rng: np.random.Generator) -> None:
        letters = np.array(list("etaoinshrdlucmfwypvbgkjqxz"))
        self._words = ["".join(rng.choice(letters, rng.integers(2, 10))) for _ in range(WORDS)]
        chance = 1 / np.arange(1, WORDS + 1)
        self._sums = np.cumsum(chance / chance.sum())
        self._rng = rng

    def of(self, count: int) -> str:
        """So many words."""
        drawn = np.minimum(np.searchsorted(self._sums, self._rng.random(count)), WORDS - 1)
        return " ".join(self._words[at] for at in drawn)


def records(count: int, seed: int = 0) -> Iterator[dict[str, object]]:
    """As `depthlab judge run` writes them."""
    rng = np.random.default_rng(seed)
    text = Text(rng)
    names = ("Accuracy", "Helpfulness", "Clarity", "Depth", "Creativity", "Safety")

    def call(reply: str) -> Record:
        return Record(f"{rng.integers(2**63):064x}", "openai:made-up", reply, Usage(900, 160), False, "0.0004")

    def review(layer: int, neuron: int, order: Order, quality: float) -> Review:
        scores = tuple(float(score) for score in np.clip(rng.normal((6 + quality, 6 - quality), 1), 1, 10).round(1))
        evidence = text.of(100)
        said = json.dumps({"evidence": evidence, "score_1": scores[0], "score_2": scores[1]})
        return Review(layer, neuron, order, 0, names[neuron - 1], scores, evidence, calls=(call(said),))

    for number in range(count):
        quality = rng.normal(0, 0.7)
        human = 0 if abs(quality) < 0.15 else 1 if quality > 0 else 2
        query, response1, response2 = text.of(40), text.of(150), text.of(150)
        pair = Pair(f"sample-{number}", query, response1, response2, human, "made-up", FAMILIES[number % 5])
        layers = [
            [review(layer, neuron, order, quality) for neuron in range(1, WIDTH + 1) for order in ORDERS]
            for layer in range(1, LAYERS + 1)
        ]
        means = np.mean([one.scores for one in layers[-1]], axis=0)
        margin = float(means[0] - means[1])
        verdict = Verdict(0 if not margin else 1 if margin > 0 else 2, margin, tuple(means.tolist()), 8, 0)
        roles = tuple(Role(name, text.of(10)) for name in names[:WIDTH])
        said = json.dumps({"roles": [{"name": role.name, "focus": role.focus} for role in roles]})
        yield to_record(pair, Judgement(roles, (call(said),), tuple(layers), verdict), run={})


def make(folder: Path, count: int) -> float:
    """A run's folder; the size of its verdicts in MB."""
    config = JudgeConfig(data="made-up.jsonl", judge=("simulated:gap=1",), out=str(folder))
    (folder / "config.yaml").write_text(dump(config))
    with (folder / "verdicts.jsonl").open("w") as file:
        for record in records(count):
            file.write(json.dumps(record, ensure_ascii=False) + "\n")
    return (folder / "verdicts.jsonl").stat().st_size / 1e6


def bootstrap_s(count: int) -> float:
    """Seconds of the bootstrap of kappa, every sample a cluster of its own."""
    rng = np.random.default_rng(0)
    human, judge = rng.integers(0, 3, (2, count)).tolist()
    rows = tables.cells(human, judge)
    began = time.perf_counter()
    smooth(draw(rows, range(count), draws=10_000), tables.kappa(True), FISHER)
    return time.perf_counter() - began


def browse(page: Path, repeats: int, shots: Path | None) -> None:
    """Print what Debian's Chromium sees, each time in a process of its own."""
    from playwright.sync_api import sync_playwright  # a test's dependency: the rest runs without it

    chromium = shutil.which("chromium")
    if chromium is None:
        sys.exit("--browser: needs Debian's chromium on the path")
    seen: dict[str, list[float]] = {"first contentful paint": [], "list can be used": [], "filter, one key": []}
    seen["a sample opened"] = []
    with sync_playwright() as playwright:
        for _ in range(repeats):
            started = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
            tab = started.new_page()
            tab.add_init_script(WATCH)
            tab.goto(page.as_uri())
            _wait(tab, "window.usable && performance.getEntriesByName('first-contentful-paint').length")
            paint = "performance.getEntriesByName('first-contentful-paint')[0].startTime"
            if not tab.locator("#list tbody tr").count():
                sys.exit(f"{page}: its list has no row")
            seen["first contentful paint"].append(tab.evaluate(paint))
            seen["list can be used"].append(tab.evaluate("window.usable"))
            tab.locator("#search").press_sequentially("sample-25")
            _wait(tab, "window.keys.length === 9")
            seen["filter, one key"] += tab.evaluate("window.keys")
            opened = "() => new Promise((done) => { const began = performance.now(); new MutationObserver(() => "
            opened += "done(performance.now() - began)).observe(document.getElementById('sample'), {childList: true});"
            opened += "document.querySelector('#list tbody button').click(); })"
            seen["a sample opened"].append(tab.evaluate(opened))
            started.close()
        if shots is not None:
            _shoot(playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"]), page, shots)
    for name, times in seen.items():
        print(f"{name}: {statistics.median(times):.0f} ms, {min(times):.0f} to {max(times):.0f}, n = {len(times)}")


def _wait(tab: Page, what: str) -> None:
    """Playwright's own waiting evaluates a string, which the page's policy forbids."""
    for _ in range(1000):
        if tab.evaluate(what):
            return
        tab.wait_for_timeout(20)
    sys.exit(f"waited 20 s for {what}")


def _shoot(started: Browser, page: Path, shots: Path) -> None:
    """Light, dark and narrow, from the top and with a sample open."""
    shots.mkdir(parents=True, exist_ok=True)
    kinds: tuple[tuple[str, int, Literal["light", "dark"]], ...] = (
        ("light", 1200, "light"),
        ("dark", 1200, "dark"),
        ("narrow", 390, "light"),
    )
    for name, width, scheme in kinds:
        tab = started.new_page(color_scheme=scheme, viewport={"width": width, "height": 900})
        tab.goto(page.as_uri())
        tab.screenshot(path=shots / f"{name}.png")
        tab.locator("h2", has_text="Samples").scroll_into_view_if_needed()
        tab.screenshot(path=shots / f"{name}-list.png")
        tab.locator("#list tbody button").first.click()
        tab.locator("#sample h3").wait_for()
        tab.screenshot(path=shots / f"{name}-sample.png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=SAMPLES)
    parser.add_argument("--browser", action="store_true", help="open the page in Chromium, too")
    parser.add_argument("--repeats", type=int, default=5, help="times that the page is opened")
    parser.add_argument("--shots", type=Path, help="folder for screenshots; with --browser")
    parser.add_argument("--keep", type=Path, help="folder for the run, which is kept; used as it is if it has one")
    wanted = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) if wanted.keep is None else wanted.keep
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / "verdicts.jsonl").exists():
            print(f"made a run of {wanted.samples} samples: {make(folder, wanted.samples):.0f} MB")
        began = time.perf_counter()
        command = [sys.executable, "-m", "lab.cli", "judge", "report", str(folder)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        whole = time.perf_counter() - began
        megabytes = (folder / "report.html").stat().st_size / 1e6
        print(f"report of {wanted.samples} samples, whole command: {whole:.1f} s (target 20)")
        print(f"size of the page: {megabytes:.1f} MB (target 30)")
        seconds = bootstrap_s(wanted.samples)
        print(f"bootstrap of kappa, 10,000 draws of {wanted.samples} clusters: {seconds:.2f} s (target 5)")
        if wanted.browser:
            browse(folder / "report.html", wanted.repeats, wanted.shots)


if __name__ == "__main__":
    main()
