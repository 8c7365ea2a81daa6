"""The annotation page as a person uses it, in Debian's Chromium, against real servers."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from evaluators.showing.annotation import Decisions, read_decisions, shown_order
from evaluators.showing.annotation.server import AnnotationServer
from tests.browsing import Watched, chromium
from tests.evaluators.conftest import ROOT

pytestmark = pytest.mark.browser

HOSTILE = "</pre></script><script>document.title='taken'</script><img src=x onerror=\"document.title='taken'\">"
TITLE = "Which response is better?"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as started:
        yield started


def _records(count: int = 4) -> list[dict[str, Any]]:
    call = {"cost": None}

    def review(layer: int, order: str) -> dict[str, Any]:
        texts = {"role": f"Tone {HOSTILE}", "evidence": f"because {layer} {order} {HOSTILE}"}
        return texts | {"scores": [7, 2.25], "layer": layer, "order": order, "calls": [call]}

    failed = {"layer": 2, "order": "12", "reason": "no score found", "calls": [call]}
    layers = [[review(1, "12"), review(1, "21")], [failed, review(2, "12"), review(2, "21")]]
    return [
        {"id": f"s{n}", "query": f"{HOSTILE} {n}", "response1": f"one {n} {HOSTILE}", "response2": f"two {n}"}
        | {"layers": layers, "roles_calls": [], "human": 1, "verdict": {"winner": 1}}
        for n in range(count)
    ]


@contextmanager
def _serving(path: Path, count: int = 4) -> Iterator[AnnotationServer]:
    people = [Decisions(path, name) for name in ("ann", "ben")]
    server = AnnotationServer(_records(count), people)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        for decisions in people:
            decisions.close()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[AnnotationServer]:
    with _serving(tmp_path) as running:
        yield running


@pytest.fixture
def opened(browser: Browser, server: AnnotationServer) -> Iterator[Watched]:
    """Ann's page; at the end it has said nothing, asked nobody else, and run nothing."""
    watched = Watched(browser.new_page())
    watched.page.goto(server.address("ann"))
    _at(watched.page, 1, 4, 0)
    yield watched
    assert watched.said == [] and watched.outside(server.origin + "/") == []
    assert watched.page.title() == TITLE
    watched.page.close()


def _latest(server: AnnotationServer) -> dict[tuple[str, str], dict[str, Any]]:
    people = server.people.values()
    return {(one.annotator, sample): found for one in people for sample, found in one.latest.items()}


def _at(page: Page, number: int, total: int, done: int) -> None:
    expect(page.locator("#place")).to_have_text(f"Sample {number} of {total}; {done} labelled")


def _texts(page: Page) -> list[str | None]:
    return [page.locator(name).text_content() for name in ("#left", "#right")]


def _shown(annotator: str, number: int) -> list[str]:
    texts = [f"one {number} {HOSTILE}", f"two {number}"]
    return texts if shown_order(annotator, f"s{number}") == "12" else texts[::-1]


def test_decisions_by_keyboard_end_with_thanks(opened: Watched, server: AnnotationServer) -> None:
    page = opened.page
    assert {shown_order("ann", f"s{n}") for n in range(4)} == {"12", "21"}, "both orders are to be seen here"
    for number, key in enumerate("1201"):
        _at(page, number + 1, 4, number)
        assert _texts(page) == _shown("ann", number)
        page.keyboard.press(key)
    expect(page.locator("#place")).to_have_text("All 4 samples are labelled. Thank you.")
    page.keyboard.press("1")
    labels = [_latest(server)["ann", f"s{n}"]["label"] for n in range(4)]
    turned = [shown_order("ann", f"s{n}") == "21" for n in range(4)]
    assert labels == [2 if turned[0] else 1, 1 if turned[1] else 2, 0, 2 if turned[3] else 1]
    assert not any(one["assisted"] for one in _latest(server).values())
    assert all(one["seconds"] > 0 for one in _latest(server).values())


def test_going_back_shows_the_decision_and_changes_it(opened: Watched, server: AnnotationServer) -> None:
    page = opened.page
    expect(page.locator("[data-key=b]")).to_be_disabled()
    page.keyboard.press("1")
    _at(page, 2, 4, 1)
    page.keyboard.press("0")
    _at(page, 3, 4, 2)
    expect(page.locator("[aria-pressed=true]")).to_have_count(0)
    page.keyboard.press("b")
    _at(page, 2, 4, 2)
    expect(page.locator("[data-key='0']")).to_have_attribute("aria-pressed", "true")
    page.keyboard.press("b")
    _at(page, 1, 4, 2)
    expect(page.locator("[data-key='1']")).to_have_attribute("aria-pressed", "true")
    before = _latest(server)["ann", "s0"]
    page.locator("[data-key='2']").click()
    _at(page, 3, 4, 2)
    after = _latest(server)["ann", "s0"]
    assert {before["label"], after["label"]} == {1, 2} and after["seconds"] > before["seconds"]


def test_reviews_are_shown_on_demand_and_make_the_decision_assisted(opened: Watched, server: AnnotationServer) -> None:
    page = opened.page
    expect(page.locator("#reviews")).to_be_hidden()
    assert "because" not in page.content()
    page.keyboard.press("r")
    expect(page.locator("#reviews")).to_be_visible()
    scores = "7 : 2.25" if shown_order("ann", "s0") == "12" else "2.25 : 7"
    assert page.locator("#reviews h3").all_text_contents() == [
        f"{scores}, layer {layer}. Its “Assistant 1” is the {side} response. Tone {HOSTILE}"
        for layer, side in ((2, "left"), (2, "right"), (1, "left"), (1, "right"))
    ]
    own = shown_order("ann", "s0")
    assert page.locator("#reviews pre").all_text_contents() == [
        f"because {layer} {order} {HOSTILE}" for layer in (2, 1) for order in (own, own[::-1])
    ]
    assert page.locator("img").count() == 0 and page.locator("script").count() == 1
    page.keyboard.press("1")
    _at(page, 2, 4, 1)
    expect(page.locator("#reviews")).to_be_hidden()
    page.keyboard.press("1")
    _at(page, 3, 4, 2)
    assert [_latest(server)["ann", f"s{n}"]["assisted"] for n in range(2)] == [True, False]
    page.keyboard.press("b")
    _at(page, 2, 4, 2)
    page.keyboard.press("b")
    _at(page, 1, 4, 2)
    expect(page.locator("#reviews")).to_be_hidden()
    page.keyboard.press("2")
    _at(page, 3, 4, 2)
    assert _latest(server)["ann", "s0"]["assisted"], "who has seen the reviews once has seen them"


def test_several_people_at_once(opened: Watched, browser: Browser, server: AnnotationServer) -> None:
    ben = Watched(browser.new_page())
    ben.page.goto(server.address("ben"))
    _at(ben.page, 1, 4, 0)
    assert _texts(ben.page) == _shown("ben", 0)
    expect(ben.page.locator("#who")).to_have_text("ben")
    expect(opened.page.locator("#who")).to_have_text("ann")
    opened.page.keyboard.press("1")
    _at(opened.page, 2, 4, 1)
    ben.page.keyboard.press("0")
    _at(ben.page, 2, 4, 1)
    assert {key: one["label"] for key, one in _latest(server).items()} == {
        ("ann", "s0"): 1 if shown_order("ann", "s0") == "12" else 2,
        ("ben", "s0"): 0,
    }
    assert ben.said == []
    ben.page.close()


def test_modified_and_held_keys_decide_nothing(opened: Watched, server: AnnotationServer) -> None:
    page = opened.page
    page.keyboard.press("Control+1")
    page.keyboard.down("0")
    _at(page, 2, 4, 1)
    page.keyboard.down("0")
    page.keyboard.up("0")
    page.keyboard.press("2")
    _at(page, 3, 4, 2)
    assert [_latest(server)["ann", f"s{n}"]["label"] != 0 for n in range(2)] == [False, True]


def _command(folder: Path, environment: dict[str, str]) -> tuple[subprocess.Popen[str], str]:
    words = [sys.executable, "-m", "lab.cli", "judge", "annotate", str(folder), "--annotators", "ann"]
    process = subprocess.Popen(words, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, process.stdout.readline().split(": ", 1)[1].strip()


def test_what_was_decided_survives_a_kill_and_a_dead_server_is_told(
    browser: Browser, environment: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "verdicts.jsonl").write_text("".join(json.dumps(record) + "\n" for record in _records()))
    process, address = _command(tmp_path, environment)
    page = browser.new_page()
    try:
        page.goto(address)
        _at(page, 1, 4, 0)
        page.keyboard.press("r")
        expect(page.locator("#reviews")).to_be_visible()
        page.keyboard.press("1")
        _at(page, 2, 4, 1)
        page.keyboard.press("r")
        expect(page.locator("#reviews")).to_be_visible()
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    page.keyboard.press("2")
    expect(page.locator("#place")).to_contain_text("Not saved: the server does not answer")
    process, address = _command(tmp_path, environment)
    try:
        page.goto(address)
        _at(page, 2, 4, 1)
        page.keyboard.press("2")
        _at(page, 3, 4, 2)
        page.reload()
        _at(page, 3, 4, 2)
        page.keyboard.press("b")
        expect(page.locator("[data-key='2']")).to_have_attribute("aria-pressed", "true")
    finally:
        process.send_signal(signal.SIGINT)
        said, _ = process.communicate(timeout=60)
    assert process.returncode == 0 and "decisions   ann 2" in said and "cost          not known" in said
    latest = read_decisions(tmp_path)
    assert [latest["ann", f"s{n}"]["assisted"] for n in range(2)] == [True, True], "opened before the kill counts"
    page.close()


def test_time_counts_while_the_page_is_seen(browser: Browser, server: AnnotationServer) -> None:
    """On a clock that the test moves."""
    page = browser.new_page()
    page.clock.install(time=0)
    page.goto(server.address("ann"))
    _at(page, 1, 4, 0)
    page.clock.pause_at(60_000)
    page.keyboard.press("0")
    _at(page, 2, 4, 1)
    for hidden, milliseconds in ((False, 3000), (True, 500_000), (False, 4000)):
        page.evaluate(
            "(hidden) => { Object.defineProperty(document, 'hidden', { value: hidden, configurable: true });"
            " document.dispatchEvent(new Event('visibilitychange')); }",
            hidden,
        )
        page.clock.run_for(milliseconds)
    page.keyboard.press("0")
    _at(page, 3, 4, 2)
    assert _latest(server)["ann", "s1"]["seconds"] == 7
    page.close()
