"""The work of an audit grows with the number of rows, not with its square."""

import json
import runpy
import sys

import pytest

from tiewise.data import near_duplicates
from tiewise.data.pairs import build_pairs


@pytest.fixture
def count(monkeypatch):
    """Return a function that runs some work and counts comparisons of two texts."""

    def run(work):
        counts = []
        compare = near_duplicates.share_of
        with monkeypatch.context() as patched:
            patched.setattr(
                near_duplicates, "share_of", lambda *texts: counts.append(1) or compare(*texts)
            )
            work()
        return len(counts)

    return run


def test_templates_take_linear_time(case, tiewise, count, monkeypatch):
    """The handed table: the audit compares each of 500 rows with at most 32 others."""

    def audit(n):
        monkeypatch.setattr(sys, "argv", ["make.py", str(n)])
        runpy.run_path(str(case("09-audit-templates/make.py")))
        found = tiewise("audit", "templates.csv", "--json")
        assert found.status == 0
        assert json.loads(found.output)["leakage"]["group, near-duplicates"] == 0.0

    assert 0 < count(lambda: audit(500)) <= 32 * 500


def words(seed, n):
    return " ".join(f"w{(seed * 7919 + place * 104729) % 9973}" for place in range(n))


def rules_in_the_prompt(place):
    """Return a prompt whose own words are before and after common ones."""
    return f"{words(place, 12)} {words(0, 100)} {words(place + 5_000, 12)}"


def chat_markup(place):
    """Return a prompt of several turns with common markup around short own words."""
    return "".join(f"### Turn {turn}\n{words(place + turn, 3)}\n### End\n" for turn in range(8))


def numbers_in_a_form(place):
    """Return a form in which numbers are filled in."""
    return "".join(f"Field {name}: {place * (name + 3) % 9973}. " for name in range(20))


@pytest.mark.parametrize("write", [rules_in_the_prompt, chat_markup, numbers_in_a_form])
def test_other_templates_take_linear_time(write, count):
    """Rows of other templates are compared with at most 32 others each."""

    def merge(n):
        texts = {"prompt": [[write(place)] for place in range(n)], "response_a": [["x"]] * n}
        pairs = build_pairs({"id": range(n), **texts, "response_b": [["y"]] * n})
        near_duplicates.merge_near_duplicates(pairs)

    assert 0 < count(lambda: merge(600)) <= 32 * 600
