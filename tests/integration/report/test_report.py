"""The report says everything, loads nothing, and no text from data becomes anything but text."""

import re
from html.parser import HTMLParser

import pandas as pd
import pytest

from run_folders import simulated_run
from tiewise.errors import RunError
from tiewise.report.pages import make_environment
from tiewise.report.report import write_report

HOSTILE = (
    "<script>alert(1)</script>",
    "</style><img src=x onerror=alert(1)>",
    "{{7*7}} {% raw %} ${7*7}",
    '" onmouseover="alert(1)" x="',
    "<svg onload=alert(1)>]]>--><a href='javascript:alert(1)'>",
    "\u202egnp.exe \x00\x1b[31m",
    "```\n<iframe src=//evil.example></iframe>\n| a | b |\n```",
)
OUR_TAGS = """
    html head meta title style body a div header h1 h2 h3 h4 p nav ol ul li main section dl dt dd
    figure figcaption details summary table caption thead tbody tr th td article span strong footer
    svg g path defs use text image rect clippath tspan
"""


class Page(HTMLParser):
    """What a browser would find: tags with attributes, ids, links and visible text."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.text: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_data(self, data):
        self.text.append(data)

    def values(self, *names: str) -> list[str]:
        return [value for _, name, value in self.attributes if name in names]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    run, pairs = simulated_run(tmp_path_factory.mktemp("artifacts"))
    return run, pairs, write_report(run, pairs=pairs).read_text("utf-8")


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    """Write a report of which every text and name is an attack."""
    run, pairs = simulated_run(tmp_path_factory.mktemp("artifacts"))
    for name, attacks in (("prompt", HOSTILE[:4]), ("response_a", HOSTILE[4:]), ("response_b", ())):
        pairs[name] = pd.Series([[*attacks, None, ""]] * len(pairs), dtype=object)
    for name in ("model_a", "model_b", "source", "language"):
        pairs[name] = [HOSTILE[k % len(HOSTILE)] for k in range(len(pairs))]
    write_report(run, pairs=pairs)
    return run


def test_every_section_stands_in_the_page(made):
    """Headline, calibration, confusion, length, position, fit, errors, configuration."""
    page = Page(made[2])
    wanted = """headline calibration confusion length position slices learning errors
    configuration"""
    assert set(wanted.split()) <= set(page.values("id"))
    assert {f"#{name}" for name in wanted.split()} <= set(page.values("href"))
    assert page.tags.count("article") == 20
    assert page.tags.count("h1") == 1


def test_the_headline_stands_beside_its_references(made):
    """Scores and intervals of the run, uniform, class prior, length only and Bayes."""
    text = " ".join(Page(made[2]).text)
    for name in ("this run", "uniform", "class prior", "length only", "Bayes", "accuracy"):
        assert name in text
    assert re.search(r"0\.\d{3}\s+\[0\.\d{3}, 0\.\d{3}\]", text)


def test_every_figure_has_words_and_a_file(made):
    """An alternative text for those who cannot see it, an SVG file to use elsewhere."""
    run, _, html = made
    page = Page(html)
    figures = page.tags.count("figure")
    images = [value for tag, name, value in page.attributes if (tag, name) == ("svg", "role")]
    labels = [value for tag, name, value in page.attributes if (tag, name) == ("svg", "aria-label")]
    assert images == ["img"] * figures
    assert len(labels) == figures
    assert min(map(len, labels)) > 20
    assert len(list((run.path / "figures").glob("*.svg"))) == figures


def test_every_id_is_the_only_one(made):
    """Figures from one library share no ids."""
    ids = Page(made[2]).values("id")
    assert len(ids) == len(set(ids))


def test_tables_name_their_rows_and_columns(made):
    """Every header cell says what it heads, every table what it is."""
    page = Page(made[2])
    assert page.tags.count("th") == sum(name == "scope" for _, name, _ in page.attributes)
    assert page.tags.count("table") == page.tags.count("caption")


def test_the_page_loads_nothing(made):
    """No address but anchors of its own and pictures in itself; a policy forbids the rest."""
    page = Page(made[2])
    for value in page.values("href", "xlink:href", "src", "srcset", "data", "action", "poster"):
        assert value.startswith(("#", "data:image/png;base64,"))
    for style in [*page.values("style"), *re.findall(r"<style>(.*?)</style>", made[2], re.S)]:
        assert "@import" not in style
        assert all(found.startswith("#") for found in re.findall(r"url\((.*?)\)", style))
    policy = next(value for value in page.values("content") if "default-src" in value)
    assert "default-src 'none'" in policy
    assert "script" not in policy


@pytest.mark.parametrize("attack", HOSTILE)
def test_an_attack_is_shown_as_text(hostile, attack):
    """What the model or a person wrote can be read, and does nothing."""
    html = (hostile.path / "report.html").read_text("utf-8")
    first_line = attack.splitlines()[0].replace("\u202e", "⟨U+202E⟩").replace("\x00", "␀")
    assert first_line.replace("\x1b", "␛") in "".join(Page(html).text)


def test_no_attack_becomes_an_element_or_a_handler(hostile):
    """Nothing arises that our own templates do not write."""
    page = Page((hostile.path / "report.html").read_text("utf-8"))
    assert set(page.tags) <= set(OUR_TAGS.split())
    assert not [name for _, name, _ in page.attributes if name.startswith("on")]
    assert not [value for value in page.values("href", "xlink:href") if "javascript" in value]
    assert page.tags.count("article") == 20


def test_no_control_character_reaches_the_page(hostile):
    """Texts, names, alternative texts: what would act on a reader's screen is made visible."""
    for path in (hostile.path / "report.html", *(hostile.path / "figures").iterdir()):
        text = path.read_text("utf-8")
        assert not re.findall("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", text)


def test_templates_in_texts_are_not_run(hostile):
    """Forty-nine is nowhere where seven times seven was asked for."""
    html = (hostile.path / "report.html").read_text("utf-8")
    assert "{{7*7}}" in html


def test_without_texts_the_errors_are_named_as_left_out(tmp_path):
    """The rest of the report stands."""
    run, _ = simulated_run(tmp_path)
    page = Page(write_report(run).read_text("utf-8"))
    assert "errors" not in page.values("id")
    assert "omitted" in page.values("id")
    assert "The twenty most costly errors" in "".join(page.text)


def test_a_baseline_has_a_report_without_history_and_second_order(tmp_path):
    """What it has no numbers for is named."""
    run, pairs = simulated_run(tmp_path, preset="baseline")
    page = Page(write_report(run, pairs=pairs).read_text("utf-8"))
    assert {"headline", "length", "errors", "omitted"} <= set(page.values("id"))
    assert not {"learning", "position"} & set(page.values("id"))


def test_the_same_run_gives_the_same_bytes(made):
    """Nothing depends on when the page was written, nor on the order of the texts given."""
    run, pairs, html = made
    before = {path.name: path.read_bytes() for path in (run.path / "figures").iterdir()}
    shuffled = pairs.sample(frac=1, random_state=1)
    assert write_report(run, pairs=shuffled).read_text("utf-8") == html
    assert {path.name: path.read_bytes() for path in (run.path / "figures").iterdir()} == before


def test_texts_of_other_rows_are_refused(made):
    """The message names a row that is missing and what to give."""
    run, pairs, _ = made
    with pytest.raises(RunError, match=r"1 of 300 rows .* id=0\)\. Give the files"):
        write_report(run, pairs=pairs[pairs["id"] != 0])


def test_an_unfinished_run_has_no_report(tmp_path):
    """It says what to do."""
    run, _ = simulated_run(tmp_path)
    run.oof_path.unlink()
    for fold in run.finished_folds():
        run.fold(fold).scores_path.unlink()
    with pytest.raises(RunError, match="tiewise fit"):
        write_report(run)


def test_four_thousand_long_rows_stay_under_three_megabytes(tmp_path):
    """Texts are shortened, dots are a picture."""
    run, pairs = simulated_run(tmp_path, 4_000)
    pairs["response_a"] = pd.Series([["<&'\u202e" * 500] * 9] * len(pairs), dtype=object)
    path = write_report(run, pairs=pairs)
    assert path.stat().st_size < 3_000_000
    assert "characters left out" in path.read_text("utf-8")


@pytest.mark.parametrize("name", ["1 [<img src=x onerror=a(1)>]", "2 [x](javascript:y)", "1 [*]"])
def test_a_name_shaped_like_an_interval_is_escaped_all_the_same(name):
    """Only numbers are ours."""
    page = make_environment().from_string("{{ name | markdown }}").render(name=name)
    assert page != name
    assert "<img" not in page
