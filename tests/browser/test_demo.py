"""The page of ``tiewise demo``, served by a process and used in a browser."""

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
    """Serve the page on a free port and return its address."""
    command = [sys.executable, "-m", "tiewise", "demo", "--port", "0"]
    folder = tmp_path_factory.mktemp("demo")
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, cwd=folder, env=environment
    ) as server:
        yield server.stdout.readline().split()[0]
        server.send_signal(signal.SIGINT)
        assert server.wait(timeout=30) in (0, 130)
    assert list(folder.iterdir()) == []  # nothing is stored


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield opened
        opened.close()


@pytest.fixture
def page(browser, address):
    """Open the page and record every address that it requests."""
    page = browser.new_page(viewport={"width": 1280, "height": 1250})
    page.asked = []
    page.on("request", lambda request: page.asked.append(request.url))
    page.goto(address)
    page.wait_for_selector("#judge", timeout=PATIENCE)
    yield page
    page.close()


def fill(page, *responses):
    page.fill("#prompt textarea", "What is 2 + 2?")
    for name, response in zip("ABCDE", responses, strict=False):
        page.fill(f"#response-{name} textarea", response)
    page.click("#judge")


def table(page, place):
    rows = page.query_selector_all(f"{place} tbody tr")
    return [[cell.inner_text().strip() for cell in row.query_selector_all("td")] for row in rows]


def test_three_responses_are_judged(page, tmp_path):
    """The page shows each pair in both orders, truncation and a ranking; texts stay text."""
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
    truncation = page.input_value("#truncation textarea, #truncation input")
    assert "Nothing was truncated" in truncation
    assert page.title() == "tiewise"
    assert {urlsplit(url).hostname for url in page.asked} == {"127.0.0.1"}
    page.screenshot(
        path=os.environ.get("TIEWISE_SCREENSHOT", tmp_path / "demo.png"), full_page=True
    )


def test_one_response_is_refused(page):
    """The page says what is missing."""
    fill(page, "4", "   ")
    page.wait_for_selector("text=Write at least two responses.", timeout=PATIENCE)


def test_other_pages_are_refused(browser, address):
    """A page of another origin can neither read from the demo nor navigate to it."""
    page = browser.new_page()
    other = "http://127.0.0.1:8999/"
    page.route(other, lambda route: route.fulfill(body="<h1>hi</h1>", content_type="text/html"))
    page.goto(other)
    asked = f"fetch('{address}config').then(response => response.status, () => 'blocked')"
    assert page.evaluate(asked) == "blocked"
    with page.expect_navigation() as navigation:
        page.evaluate(f"location = '{address}'")
    assert navigation.value.status == 403
    assert "from other pages are refused" in page.inner_text("body")
    page.close()
