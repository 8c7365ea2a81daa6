"""The page in Debian's Chromium, from disk."""

from __future__ import annotations

import csv
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest
from playwright.sync_api import Browser, Page, expect

from lab.diagnostics.record import load
from lab.report.command import write
from lab.report.live import server
from tests.browsing import Watched, chromium

MakeRun = Callable[..., Path]
HOSTILE = "<script>document.title='gone'<&amp;"

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def folder(made_up: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A hostile name with three checkpoints, a group of two seeds and one with the highest loss; and their report."""
    folder = tmp_path_factory.mktemp("browser")
    runs = [
        made_up.run(folder / HOSTILE, checkpoints=3, shift=0.2),
        made_up.run(folder / "seed-0", scheme="lns", checkpoints=3),
        made_up.run(folder / "seed-1", scheme="lns", seed=1, checkpoints=3, shift=0.1),
        made_up.run(folder / "worst", scheme="mix", checkpoints=3, shift=3),
    ]
    write([str(run) for run in runs], out=str(folder / "page.html"))
    return folder


@pytest.fixture
def opened(browser: Browser, folder: Path) -> Iterator[Watched]:
    target = folder / "page.html"
    watched = Watched(browser.new_page(color_scheme="light"))
    watched.page.goto(target.as_uri())
    watched.page.wait_for_selector("figure .main-svg")
    yield watched
    assert watched.said == []
    assert [url for url in watched.asked if not url.startswith(("blob:", "data:"))] == [target.as_uri()]
    watched.page.close()


def _y(page: Page, panel: str) -> list[float]:
    return page.evaluate(f"document.querySelector('[data-panel={panel}] .plot').data[0].y")


def test_the_name_is_shown_and_not_run(opened: Watched) -> None:
    page = opened.page
    assert page.title().endswith("depthlab report")
    assert page.locator("article h3").first.text_content() == HOSTILE
    legend = page.locator("[data-panel=loss] .legendtext").first
    assert legend.text_content() == HOSTILE
    title = page.locator("[data-panel=angular] .annotation-text").first
    assert title.text_content() == HOSTILE
    assert page.evaluate("document.querySelectorAll('figure script').length") == 0


def test_the_slider_moves_all_figures_and_the_summary(opened: Watched, folder: Path) -> None:
    page = opened.page
    record = load(folder / HOSTILE / "diagnostics" / "step-000010.json")
    before, cell = _y(page, "removal"), page.locator("#summary td.cell").first.text_content()
    words = page.locator("[data-panel=removal] .alternative").text_content()
    page.locator("#slider").focus()
    page.keyboard.press("Home")
    assert page.locator("#label").text_content() == "step 10"
    assert page.locator("#slider").get_attribute("aria-valuetext") == "step 10"
    assert _y(page, "removal") != before
    assert _y(page, "removal") == pytest.approx(record.figure("removal/increase").values, rel=1e-5)
    assert _y(page, "variance") == pytest.approx(record.figure("variance/stream_median").values, rel=1e-5)
    assert "↑" in str(cell) and "↑" not in str(page.locator("#summary td.cell").first.text_content())
    assert page.locator("[data-panel=removal] .alternative").text_content() != words


def test_play_goes_to_the_end_and_stops(opened: Watched) -> None:
    page = opened.page
    page.locator("#play").press("Enter")
    assert page.locator("#label").text_content() == "step 10"
    expect(page.locator("#play")).to_have_text("Play")
    assert page.locator("#label").text_content() == "step 30"


def test_the_table_sorts_by_number(opened: Watched) -> None:
    page = opened.page

    def names() -> list[str]:
        return page.locator(".sortable tbody th").all_text_contents()

    assert names() == [HOSTILE, "lns (2 seeds)", "worst"]
    button = page.locator(".sortable th button", has_text="held-out loss")
    button.press("Enter")
    assert names() == ["lns (2 seeds)", HOSTILE, "worst"]
    button.click()
    assert names() == ["worst", HOSTILE, "lns (2 seeds)"]
    assert button.locator("..").get_attribute("aria-sort") == "descending"


def test_csv_and_images_download(opened: Watched, folder: Path) -> None:
    page = opened.page
    with page.expect_download() as found:
        page.locator("[data-panel=angular] [data-save=csv]").click()
    assert found.value.suggested_filename == "angular.csv"
    with open(found.value.path(), newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    record = load(folder / HOSTILE / "diagnostics" / "step-000020.json")
    mine = [row for row in rows if row["checkpoint"] == "step 20" and row["series"] == HOSTILE and row["angle / pi"]]
    values = {(int(row["from h_l"]), int(row["to h_m"])): float(row["angle / pi"]) for row in mine}
    angles = record.figure("angular/distance").values
    assert values == {(i, j): pytest.approx(angles[i, j], rel=1e-5) for i in range(4) for j in range(i + 1, 4)}
    for kind, begin in (("png", b"\x89PNG"), ("svg", b"<svg")):
        with page.expect_download() as image:
            page.locator(f"[data-panel=loss] [data-save={kind}]").click()
        assert Path(image.value.path()).read_bytes().startswith(begin)


def test_dark_mode_follows_the_system_and_the_button(opened: Watched) -> None:
    page = opened.page

    def back() -> str:
        return page.evaluate("getComputedStyle(document.body).backgroundColor")

    def text() -> str:
        return page.evaluate("document.querySelector('[data-panel=loss] .plot').layout.font.color")

    assert back() == "rgb(255, 255, 255)"
    light = text()
    page.emulate_media(color_scheme="dark")
    assert back() == "rgb(18, 22, 28)" and text() != light
    page.locator("#theme").click()
    assert back() == "rgb(255, 255, 255)" and text() == light


def test_a_narrow_screen_does_not_scroll_sideways(opened: Watched) -> None:
    page = opened.page
    page.set_viewport_size({"width": 360, "height": 700})
    expect(page.locator("[data-panel=loss] .main-svg").first).to_have_css("width", re.compile(r"^[23]\d\d(\.\d+)?px$"))
    assert page.evaluate("document.documentElement.scrollWidth") <= 360


def test_every_figure_has_its_words(opened: Watched) -> None:
    page = opened.page
    for figure in page.locator("figure").all():
        words = figure.get_attribute("aria-describedby")
        assert len(str(page.locator(f"id={words}").text_content())) > 30
        assert figure.get_attribute("aria-labelledby")


def test_markdown_has_a_picture_for_each_figure(make_run: MakeRun, tmp_path: Path) -> None:
    target = write([str(make_run("md"))], out=str(tmp_path / "out" / "md.md"), kind="md")
    text = target.read_text(encoding="utf-8")
    pictures = sorted((tmp_path / "out" / "md_figures").iterdir())
    assert len(pictures) == text.count("![") == 22
    assert all(picture.read_bytes().startswith(b"\x89PNG") for picture in pictures)
    assert all(f"](md_figures/{picture.name})" in text for picture in pictures)


@pytest.mark.parametrize("moved", [False, True])
def test_a_live_page_follows_the_run(browser: Browser, made_up: ModuleType, tmp_path: Path, moved: bool) -> None:
    """It shows new steps by itself, and the newest checkpoint, or the one that was chosen."""
    run, later = made_up.run(tmp_path / "run"), made_up.run(tmp_path / "later", checkpoints=3)
    with server([str(run)]) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        watched = Watched(browser.new_page())
        page = watched.page
        page.goto(f"http://127.0.0.1:{running.server_port}/")
        page.wait_for_selector("figure .main-svg")
        steps = len(_y(page, "loss"))
        if moved:
            page.locator("#slider").focus()
            page.keyboard.press("Home")
        for name in ("step-000030.safetensors", "step-000030.json"):
            shutil.copy(later / "diagnostics" / name, run / "diagnostics" / name)
        shutil.copy(later / "metrics.jsonl", run / "metrics.jsonl")
        expect(page.locator("#slider")).to_have_attribute("max", "2", timeout=20_000)
        expect(page.locator("#label")).to_have_text("step 10" if moved else "step 30")
        assert len(_y(page, "loss")) == steps + 10
        shown = load(run / "diagnostics" / ("step-000010.json" if moved else "step-000030.json"))
        assert _y(page, "removal") == pytest.approx(shown.figure("removal/increase").values, rel=1e-5)
        assert watched.said == []
        running.shutdown()
    expect(page.locator("#live")).to_have_text("The server has ended; this is what it said last.", timeout=20_000)
    page.close()


def test_four_groups_on_a_phone_draw_without_a_warning(browser: Browser, made_up: ModuleType, tmp_path: Path) -> None:
    schemes = ("pre", "post", "mix", "lns")
    runs = [str(made_up.run(tmp_path / f"a-run-of-{scheme}", scheme=scheme)) for scheme in schemes]
    target = write(runs, out=str(tmp_path / "page.html"))
    watched = Watched(browser.new_page(viewport={"width": 390, "height": 800}))
    watched.page.goto(target.as_uri())
    watched.page.wait_for_selector("[data-panel=stable_rank] .main-svg")
    assert "q_proj" in watched.page.locator("[data-panel=stable_rank] .xtick text").all_text_contents()
    assert watched.said == []
    watched.page.close()
