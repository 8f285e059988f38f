"""The report is complete, loads nothing, and shows texts from data as text."""

import json
import pickle
import re
from html.parser import HTMLParser

import pandas as pd
import pytest

from run_folders import simulated_run, simulated_tables, write_run
from tiewise.errors import RunError
from tiewise.report.page import write_report
from tiewise.runs.listing import format_command
from tiewise.runs.tables import drop_ties

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
    """Tags with attributes, ids, links and visible text of a page."""

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
    """Return a run, its pairs and its page."""
    run, pairs = simulated_run(tmp_path_factory.mktemp("artifacts"))
    return run, pairs, write_report(run, pairs=pairs).read_text("utf-8")


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    """Return a run with a report in which every text and name is an attack."""
    run, pairs = simulated_run(tmp_path_factory.mktemp("artifacts"))
    for name, attacks in (("prompt", HOSTILE[:4]), ("response_a", HOSTILE[4:]), ("response_b", ())):
        pairs[name] = pd.Series([[*attacks, None, ""]] * len(pairs), dtype=object)
    for name in ("model_a", "model_b", "source", "language"):
        pairs[name] = [HOSTILE[k % len(HOSTILE)] for k in range(len(pairs))]
    write_report(run, pairs=pairs)
    return run


def test_page_has_every_section(made):
    """Each section has an anchor and a link, and there are twenty cases."""
    page = Page(made[2])
    wanted = """findings scores confusion calibration position length slices leaderboard training
    errors configuration"""
    assert set(wanted.split()) <= set(page.values("id"))
    assert {f"#{name}" for name in wanted.split()} <= set(page.values("href"))
    assert page.tags.count("article") == 20
    assert page.tags.count("h1") == 1


def test_scores_are_next_to_references(made):
    """Scores and intervals of the run, uniform, class prior, length only and Bayes."""
    text = " ".join(Page(made[2]).text)
    for name in ("this run", "uniform", "class prior", "length only", "Bayes", "accuracy"):
        assert name in text
    assert re.search(r"0\.\d{3}\s+\[0\.\d{3}, 0\.\d{3}\]", text)


def test_figures_have_descriptions_and_files(made):
    """Each figure has a description for screen readers and an SVG file of its own."""
    run, _, html = made
    page = Page(html)
    n_figures = page.tags.count("svg")
    assert n_figures == 10
    labels = [value for tag, name, value in page.attributes if (tag, name) == ("svg", "aria-label")]
    assert len(labels) == n_figures
    assert min(map(len, labels)) > 20
    assert len(list((run.path / "figures").glob("*.svg"))) == n_figures


def test_notebook_shows_the_page(made):
    """The returned path is a path, and a notebook shows its page in a frame of its own."""
    run, pairs, html = made
    path = write_report(run, pairs=pairs)
    assert path == run.path / "report.html"
    frame = Page(path._repr_html_())
    assert frame.tags == ["iframe"]
    assert frame.values("srcdoc") == [html]
    assert path.parent._repr_html_() is None
    assert pickle.loads(pickle.dumps(path)) == path


def test_ids_are_unique(made):
    """Figures share no ids."""
    ids = Page(made[2]).values("id")
    assert len(ids) == len(set(ids))


def test_tables_have_captions_and_scopes(made):
    """Every header cell has a scope, every table a caption."""
    page = Page(made[2])
    assert page.tags.count("th") == sum(name == "scope" for _, name, _ in page.attributes)
    assert page.tags.count("table") == page.tags.count("caption")


def test_page_loads_nothing(made):
    """There are only links to anchors; a policy forbids everything else."""
    page = Page(made[2])
    for value in page.values("href", "xlink:href", "src", "srcset", "data", "action", "poster"):
        assert value.startswith("#")
    for style in [*page.values("style"), *re.findall(r"<style.*?>(.*?)</style>", made[2], re.S)]:
        assert "@import" not in style
        assert all(found.startswith("#") for found in re.findall(r"url\((.*?)\)", style))
    policy = next(value for value in page.values("content") if "default-src" in value)
    assert "default-src 'none'" in policy
    assert "script" not in policy


@pytest.mark.parametrize("attack", HOSTILE)
def test_attack_is_shown_as_text(hostile, attack):
    """The text of a response can be read and does nothing."""
    html = (hostile.path / "report.html").read_text("utf-8")
    first_line = attack.splitlines()[0].replace("\u202e", "⟨U+202E⟩").replace("\x00", "␀")
    assert first_line.replace("\x1b", "␛") in "".join(Page(html).text)


def test_no_attack_becomes_an_element_or_a_handler(hostile):
    """The page has only the elements of its own templates."""
    page = Page((hostile.path / "report.html").read_text("utf-8"))
    assert set(page.tags) <= set(OUR_TAGS.split())
    assert not [name for _, name, _ in page.attributes if name.startswith("on")]
    assert not [value for value in page.values("href", "xlink:href") if "javascript" in value]
    assert page.tags.count("article") == 20


def test_no_control_character_reaches_the_page(hostile):
    """Texts, names and figures have no characters that act on the reader's screen."""
    for path in (hostile.path / "report.html", *(hostile.path / "figures").iterdir()):
        text = path.read_text("utf-8")
        assert not re.findall("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", text)


def test_templates_in_texts_are_not_run(hostile):
    """An expression of Jinja in a text is not evaluated."""
    html = (hostile.path / "report.html").read_text("utf-8")
    assert "{{7*7}}" in html


def test_methods_of_intervals_and_command_are_named(made):
    """Shares have Wilson intervals, and the command is one line."""
    run, _, html = made
    assert html.count("Wilson for shares") == 2
    command = format_command(json.loads((run.path / "env.json").read_bytes()))
    assert command in "".join(Page(html).text)


def test_missing_texts_are_named(tmp_path):
    """Without texts the page is complete but for the sections that need them."""
    run, _ = simulated_run(tmp_path)
    page = Page(write_report(run).read_text("utf-8"))
    assert "errors" not in page.values("id")
    assert "omitted" in page.values("id")
    assert "Costliest errors" in "".join(page.text)


def test_page_with_texts_is_kept(made):
    """Without texts, a page that has them is not replaced, and the message says what to do."""
    run, _, html = made
    with pytest.raises(RunError, match=r"report\.html shows texts.* --data.* --out"):
        write_report(run)
    assert (run.path / "report.html").read_text("utf-8") == html


def test_feature_model_has_a_report(tmp_path):
    """It has no history and no second order."""
    run, pairs = simulated_run(tmp_path, preset="baseline")
    page = Page(write_report(run, pairs=pairs).read_text("utf-8"))
    assert {"scores", "length", "errors", "omitted"} <= set(page.values("id"))
    assert "training" not in page.values("id")
    text = "".join(page.text)
    assert "None: the feature model is symmetric by construction" in text
    assert "lora" not in text


def test_same_run_gives_same_bytes(made):
    """Nothing depends on the time or on the order of the texts."""
    run, pairs, html = made
    before = {path.name: path.read_bytes() for path in (run.path / "figures").iterdir()}
    shuffled = pairs.sample(frac=1, random_state=1)
    assert write_report(run, pairs=shuffled).read_text("utf-8") == html
    assert {path.name: path.read_bytes() for path in (run.path / "figures").iterdir()} == before


def test_texts_of_other_rows_are_refused(made):
    """The message names a missing row and the flag that helps."""
    run, pairs, _ = made
    with pytest.raises(RunError, match=r"1 of 300 rows .* id=0\. Name the data files .* --data"):
        write_report(run, pairs=pairs[pairs["id"] != 0])


def test_unfinished_run_is_refused(tmp_path):
    """The message says what to do."""
    run, _ = simulated_run(tmp_path)
    run.oof_path.unlink()
    for fold in run.finished_folds():
        run.fold(fold).scores_path.unlink()
    with pytest.raises(RunError, match="tiewise fit"):
        write_report(run)


def test_page_of_long_texts_is_small(tmp_path):
    """4,000 pairs with long texts give less than three megabytes."""
    run, pairs = simulated_run(tmp_path, 4_000)
    pairs["response_a"] = pd.Series([["<&'\u202e" * 500] * 9] * len(pairs), dtype=object)
    path = write_report(run, pairs=pairs)
    assert path.stat().st_size < 3_000_000
    assert "characters left out" in path.read_text("utf-8")


@pytest.mark.parametrize("name", ["1 [<img src=x onerror=a(1)>]", "2 [x](javascript:y)", "1 [*]"])
def test_interval_like_model_name_is_escaped(tmp_path, name):
    """A name that looks like a number with its interval is escaped all the same."""
    run, pairs = simulated_run(tmp_path, 60)
    pairs["model_a"] = pd.Series([name] * len(pairs), dtype="string")
    html = write_report(run, pairs=pairs).read_text("utf-8")
    assert name in "".join(Page(html).text)
    assert "<img" not in html


def test_uniform_guessing_is_of_the_classes(made, tmp_path):
    """It is log 3 with ties and log 2 without."""
    assert "uniform guessing: 1.099" in made[2]
    _, folds, oof = simulated_tables(60)
    decided = drop_ties(oof).assign(label=oof["label"] % 2)
    run = write_run(tmp_path, folds.assign(label=folds["label"] % 2), decided, is_scored=False)
    assert "uniform guessing: 0.693" in write_report(run).read_text("utf-8")
