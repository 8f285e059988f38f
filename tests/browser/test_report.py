"""The report of a run in a browser, on a wide screen and on a phone."""

from __future__ import annotations

import shutil
import subprocess
import sys

import pytest

sync_api = pytest.importorskip("playwright.sync_api")
pytest.importorskip("matplotlib")

CHROMIUM = shutil.which("chromium")
FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
COMMANDS = (
    "simulate --n 300 --out train.csv",
    "fit --preset baseline --data train.csv --folds all --run one",
    "report one",
)
WIDER = """() => [...document.querySelectorAll("body *")]
    .filter(element => !element.closest(".scroll table, .hidden, .skip"))
    .filter(element => element.getBoundingClientRect().right > innerWidth + 1)
    .map(element => element.tagName + " " + element.className)"""
SMALLEST = """() => Math.min(...[...document.querySelectorAll(".panels text")]
    .map(text => text.getBoundingClientRect().height))"""

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt install chromium")


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """Return the address of the report of a small fit."""
    folder = tmp_path_factory.mktemp("report")
    for command in COMMANDS:
        words = [sys.executable, "-m", "tiewise", *command.split()]
        done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    return (folder / done.stdout.strip()).resolve().as_uri()


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield opened
        opened.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_page_fits_the_screen(browser, report, width, scheme):
    """Nothing is wider than the screen, the letters of figures can be read, nothing is loaded."""
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    asked, problems = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: problems.append(message.text))
    page.goto(report)
    for details in page.query_selector_all("summary"):
        details.click()
    assert page.evaluate(WIDER) == []
    assert page.evaluate(SMALLEST) > 9
    assert asked == [report]
    assert problems == []
    page.close()


def test_first_screen_has_the_findings(browser, report):
    """What was found is read without scrolling, and each finding leads to its section."""
    page = browser.new_page(viewport={"width": 1280, "height": 1000})
    page.goto(report)
    links = page.query_selector_all(".findings a")
    assert len(links) >= 4
    assert links[-1].bounding_box()["y"] < 1000
    assert all(page.query_selector(link.get_attribute("href")) for link in links)
    page.close()
