"""The page of ``tiewise demo``, served by a real process and driven in a real browser."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from urllib.parse import urlsplit

import pytest

sync_api = pytest.importorskip("playwright.sync_api")

CHROMIUM = shutil.which("chromium")
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update",
]  # fmt: skip
HOSTILE = "<img src=x onerror=\"document.title='owned'\"> Four. You can count it on your fingers."
PATIENCE = 120_000

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt install chromium")


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """Start the page on a free port and read where it is."""
    command = [sys.executable, "-m", "tiewise", "demo", "--port", "0"]
    folder = tmp_path_factory.mktemp("demo")
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, cwd=folder, env=environment
    ) as server:
        yield server.stdout.readline().split()[0]
        server.send_signal(signal.SIGINT)
        assert server.wait(timeout=30) in (0, 130)
    assert list(folder.iterdir()) == []  # nothing that was written is kept


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield opened
        opened.close()


@pytest.fixture
def page(browser, address):
    """Open the page, and note every address it asks for."""
    page = browser.new_page(viewport={"width": 1280, "height": 1250})
    page.asked = []
    page.on("request", lambda request: page.asked.append(request.url))
    page.goto(address)
    page.wait_for_selector("#judge", timeout=PATIENCE)
    yield page
    page.close()


def fill(page, *answers):
    page.fill("#prompt textarea", "What is 2 + 2?")
    for name, answer in zip("ABCDE", answers, strict=False):
        page.fill(f"#answer-{name} textarea", answer)
    page.click("#judge")


def table(page, place):
    rows = page.query_selector_all(f"{place} tbody tr")
    return [[cell.inner_text().strip() for cell in row.query_selector_all("td")] for row in rows]


def test_three_answers_are_judged_in_both_orders_and_ranked(page, tmp_path):
    """Every two in each order and averaged; what was cut; a ranking; texts are only text."""
    fill(page, "2 + 2 = 4.", "I'm sorry, but I can't help with that.", HOSTILE)
    page.wait_for_selector("#ranking table", timeout=PATIENCE)
    lines = table(page, "#orders")
    assert [line[:2] for line in lines[:3]] == [
        ["A or B", "A, B"],
        ["A or B", "B, A"],
        ["A or B", "average"],
    ]
    assert len(lines) == 9
    given, swapped, average = ([float(cell) for cell in line[2:]] for line in lines[:3])
    assert average == pytest.approx([(a + b) / 2 for a, b in zip(given, swapped, strict=True)])
    assert average[0] > average[1]
    assert sorted(line[1] for line in table(page, "#ranking")) == ["A", "B", "C"]
    assert "Nothing was cut" in page.input_value("#cut textarea, #cut input")
    assert page.title() == "tiewise"
    assert {urlsplit(url).hostname for url in page.asked} == {"127.0.0.1"}
    page.screenshot(
        path=os.environ.get("TIEWISE_SCREENSHOT", tmp_path / "demo.png"), full_page=True
    )


def test_one_answer_is_refused_in_words(page):
    """What is missing is said on the page."""
    fill(page, "4", "   ")
    page.wait_for_selector("text=Write at least two answers.", timeout=PATIENCE)


def test_another_page_cannot_ask(browser, address):
    """A page of another origin can neither read from this one nor lead to it."""
    page = browser.new_page()
    stranger = "http://127.0.0.1:8999/"
    page.route(stranger, lambda route: route.fulfill(body="<h1>hi</h1>", content_type="text/html"))
    page.goto(stranger)
    asked = f"fetch('{address}config').then(response => response.status, () => 'blocked')"
    assert page.evaluate(asked) == "blocked"
    with page.expect_navigation() as led:
        page.evaluate(f"location = '{address}'")
    assert led.value.status == 403
    assert "from other pages are refused" in page.inner_text("body")
    page.close()
