"""The report in Debian's Chromium, from disk: it says nothing, asks nobody, and runs nothing of what it shows."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browsing import Watched, chromium
from tests.evaluators.conftest import ROOT

pytestmark = pytest.mark.browser

HOSTILE = "</script><script>document.title='taken'</script><img src=x onerror=\"document.title='taken'\">"
OUTSIDE = '<img src="http://127.0.0.1:9/a.png"><link rel="stylesheet" href="http://127.0.0.1:9/a.css">'
COUNT = 120


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as started:
        yield started


def _judge(*words: str, folder: Path) -> None:
    """In a process of its own: Playwright's event loop runs in this one."""
    command = [sys.executable, "-m", "lab.cli", "judge", *words]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(folder / "cache")}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of 120 samples of two families, all of whose texts are hostile, by a judge that is often wrong."""
    folder = tmp_path_factory.mktemp("report")
    lines = [
        {"id": f"s{n} {HOSTILE}", "query": f"q{n} {HOSTILE}{OUTSIDE}", "human": n % 3, "family": ("QA", "Code")[n % 2]}
        | {"response1": f"a{n} {HOSTILE}{OUTSIDE}", "response2": f"b{n} {HOSTILE}", "reference": f"r{n} {HOSTILE}"}
        for n in range(COUNT)
    ]
    (folder / "p.jsonl").write_text("\n".join(map(json.dumps, lines)))
    judge = ("--judge", "simulated:gap=1", "--depth", "2", "--roles", f"Tone {HOSTILE}", f"Facts {HOSTILE}")
    _judge("run", "--data", "p.jsonl", *judge, "--out", "r", folder=folder)
    # The simulated judge writes nothing bad, and names of families are checked: as if both had been otherwise.
    verdicts = folder / "r" / "verdicts.jsonl"
    bad = json.dumps(HOSTILE)[1:-1]
    text = verdicts.read_text().replace("Simulated evidence", f"Evidence {bad}")
    verdicts.write_text(text.replace('"family": "Code"', f'"family": "Code {bad}"'))
    _judge("report", "r", "--draws", "200", folder=folder)
    return folder / "r" / "report.html"


@pytest.fixture
def records(report: Path) -> list[dict]:
    return [json.loads(line) for line in (report.parent / "verdicts.jsonl").read_text().splitlines()]


@pytest.fixture
def opened(browser: Browser, report: Path) -> Iterator[Watched]:
    """A page that, at the end, has said nothing, asked for itself alone, and still has its title."""
    watched = Watched(browser.new_page())
    watched.page.goto(report.as_uri())
    expect(watched.page.locator("#count")).to_have_text(f"1 to 50 of {COUNT}")
    yield watched
    watched.page.wait_for_load_state("networkidle")
    assert watched.said == [] and watched.outside(report.as_uri()) == []
    assert watched.page.title() == "Judge's report: r"
    watched.page.close()


def _open(page: Page, name: str) -> None:
    page.locator("#list tbody button", has_text=name).first.click()
    expect(page.locator("#sample h3")).to_have_text(f"Sample {name} {HOSTILE}")


def test_a_hostile_samples_network_is_text(opened: Watched, records: list[dict]) -> None:
    page = opened.page
    _open(page, "s7 ")
    record = next(one for one in records if one["id"].startswith("s7 "))
    texts = page.locator("#sample > pre, #sample .pair pre").all_text_contents()
    assert texts == [record["query"], record["reference"], record["response1"], record["response2"]]
    roles = page.locator("#sample li").all_text_contents()
    assert roles == [role["name"] for role in record["roles"]] and HOSTILE in roles[0]
    reviews = [item for layer in record["layers"] for item in layer]
    assert all(HOSTILE in review["evidence"] for review in reviews)
    details = page.locator("#sample details")
    assert details.count() == len(reviews) == 2 * 2 * 2
    page.get_by_role("button", name="All reviews").click()
    for at, review in enumerate(reviews):
        expect(details.nth(at).locator("pre").last).to_be_visible()
        assert details.nth(at).locator("pre").all_text_contents() == [review["role"], review["evidence"]]
        assert details.nth(at).locator("summary").inner_text().endswith(" : ".join(_short(review["scores"])))
    page.get_by_role("button", name="All reviews").click()
    expect(details.first.locator("pre").last).to_be_hidden()
    assert page.locator("img").count() == 0 and page.locator("#sample script, #list script").count() == 0
    assert page.locator("link").count() == 1


def _short(scores: list[float]) -> list[str]:
    """As JavaScript writes a number of at most two decimals."""
    return [f"{score:.2f}".rstrip("0").rstrip(".") for score in scores]


def test_filters_find_what_they_name(opened: Watched, records: list[dict]) -> None:
    page = opened.page
    wrong = [one for one in records if one["human"] != one["verdict"]["winner"]]
    assert 0 < len(wrong) < COUNT
    page.locator("#which").select_option("wrong")
    expect(page.locator("#count")).to_have_text(f"1 to {min(50, len(wrong))} of {len(wrong)}")
    assert page.locator("#list tbody tr.wrong").count() == min(50, len(wrong))
    family = f"Code {HOSTILE}"
    page.locator("#family").select_option(family)
    both = [one for one in wrong if one["family"] == family]
    expect(page.locator("#count")).to_have_text(f"1 to {min(50, len(both))} of {len(both)}")
    assert set(page.locator("#list tbody td:nth-child(2)").all_text_contents()) == {family}
    page.locator("#which").select_option("unscored")
    expect(page.locator("#count")).to_have_text("none")
    page.locator("#which").select_option("all")
    page.locator("#family").select_option("")
    page.locator("#search").press_sequentially("Q11")
    expect(page.locator("#count")).to_have_text("1 to 11 of 11")
    found = page.locator("#list tbody td:last-child").all_text_contents()
    assert [text.split()[0] for text in found] == ["q11", *(f"q11{n}" for n in range(10))]


def test_pages_of_the_list_and_neighbours_of_a_sample(opened: Watched) -> None:
    page = opened.page
    back, on = page.locator("#back"), page.locator("#next")
    expect(back).to_be_disabled()
    on.click()
    on.click()
    expect(page.locator("#count")).to_have_text(f"101 to {COUNT} of {COUNT}")
    expect(on).to_be_disabled()
    back.click()
    expect(page.locator("#count")).to_have_text(f"51 to 100 of {COUNT}")
    page.locator("#search").fill("s11")
    _open(page, "s11 ")
    expect(page.get_by_role("button", name="Previous sample")).to_be_disabled()
    page.get_by_role("button", name="Next sample").click()
    expect(page.locator("#sample h3")).to_have_text(f"Sample s110 {HOSTILE}")
    page.locator("#search").fill("s110")
    expect(page.get_by_role("button", name="Next sample")).to_be_disabled()
    page.get_by_role("button", name="List").click()
    expect(page.locator("#which")).to_be_in_viewport()


def test_an_address_with_a_sample_opens_it(opened: Watched) -> None:
    page = opened.page
    _open(page, "s42 ")
    page.goto(page.url)
    page.reload()
    expect(page.locator("#sample h3")).to_have_text(f"Sample s42 {HOSTILE}")


def test_nothing_is_wider_than_a_phone(opened: Watched) -> None:
    page = opened.page
    page.set_viewport_size({"width": 390, "height": 800})
    _open(page, "s3 ")
    page.get_by_role("button", name="All reviews").click()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


@pytest.mark.parametrize("sign", ["\u202e", "\u2067", "\u200f", "\u061c"])
def test_no_name_turns_the_scores_beside_it(opened: Watched, sign: str) -> None:
    """Between 8 : 6 and 6 : 8 stands who won; the texts themselves stay as they are."""
    made = opened.page.evaluate(
        "(sign) => ['summary', 'pre'].map((tag) => element(tag, `by ${sign}judge: 8 : 6`).textContent)", sign
    )
    assert made == ["by \ufffdjudge: 8 : 6", f"by {sign}judge: 8 : 6"]
