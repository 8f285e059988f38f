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


def result(page):
    """Return the text of the result once it names a pair or a problem."""
    page.wait_for_selector("#result .pair, #result .problem", timeout=PATIENCE)
    return page.inner_text("#result")


def test_three_responses_are_judged(page, tmp_path):
    """The page shows each pair once, truncation and a ranking; texts stay text."""
    page.click("#more button")
    fill(page, "2 + 2 = 4.", "I'm sorry, but I can't help with that.", HOSTILE)
    shown = result(page)
    titles = [title.inner_text() for title in page.query_selector_all("#result .pair h3")]
    assert [title.split(":")[0] for title in titles] == ["A or B", "A or C", "B or C"]
    assert titles[0] == "A or B: most probably A preferred"
    rows = page.query_selector_all("#result tbody tr")
    assert sorted(row.query_selector_all("td")[1].inner_text() for row in rows) == ["A", "B", "C"]
    assert "Nothing was truncated" in shown
    assert page.title() == "tiewise"
    assert {urlsplit(url).hostname for url in page.asked} == {"127.0.0.1"}
    page.screenshot(
        path=os.environ.get("TIEWISE_SCREENSHOT", tmp_path / "demo.png"), full_page=True
    )


def test_two_responses_are_enough(page):
    """The fields of further responses need not be opened."""
    fill(page, "4", "5")
    assert result(page).startswith("A or B: most probably")


def test_model_is_named(page):
    """The model in the package is offered under what it sees, with what it cannot know."""
    assert page.input_value("#model input") == "lengths and structure only"
    assert "cannot read" in page.inner_text("#about")


def test_example_is_judged_by_a_click(page):
    """It fills the fields, and both orders are shown on request."""
    page.check("#both input")
    page.click(".example >> nth=0")
    assert "A or B: most probably" in result(page)
    assert page.input_value("#prompt textarea")
    assert "the same probabilities in both orders" in page.inner_text("#result")


@pytest.mark.parametrize(
    ("responses", "message"),
    [
        (("4", "   "), "Write at least two responses."),
        (("4", "é" * 2_000_000), "Response B has more than 40,000 characters."),
    ],
)
def test_problem_is_shown_on_the_page(page, responses, message):
    """The page says what is missing, and nothing else."""
    fill(page, *responses)
    assert result(page).startswith(message)


def test_page_fits_a_phone(browser, address):
    """At 390 pixels nothing is wider than the screen, before and after an example."""
    page = browser.new_page(viewport={"width": 390, "height": 844})
    page.goto(address)
    page.wait_for_selector("#judge", timeout=PATIENCE)
    width = "document.documentElement.scrollWidth"
    assert page.evaluate(width) == 390
    page.click(".example >> nth=1")
    result(page)
    assert page.evaluate(width) == 390
    page.close()


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
