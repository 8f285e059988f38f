"""The demo judges as the public functions do, and answers every request with a sentence."""

from __future__ import annotations

import re

import numpy as np
import pytest

import tiewise as tw
from run_folders import fit_small, simulated_run
from tiewise.data.labels import PROB_COLUMNS
from tiewise.errors import PairsError, RunError
from tiewise.serving.demo.judgement import MAX_CHARS, judge_responses
from tiewise.serving.demo.models import SHIPPED, list_models
from tiewise.serving.demo.page import answer_in_html

RESPONSES = ["2 + 2 = 4.", "I'm sorry, but I can't help with that.", "Four, I think."]


def test_each_pair_is_shown_once():
    """Two responses get the average of `tw.score`, and no ranking."""
    found = judge_responses("2 + 2?", RESPONSES[:2])
    assert found.pairs[["first", "second"]].to_numpy().tolist() == [["A", "B"]]
    probs = tw.score("2 + 2?", *RESPONSES[:2])
    np.testing.assert_array_equal(found.pairs[PROB_COLUMNS].to_numpy()[0], probs)
    assert found.ranking.empty
    assert found.orders == {}  # symmetric by construction
    assert "Nothing was truncated" in found.truncation


def test_ranking_matches_library():
    """The order is that of `tw.rank`; blank responses are skipped and keep their letters."""
    found = judge_responses("2 + 2?", [RESPONSES[0], " ", *RESPONSES[1:]])
    expected = tw.rank("2 + 2?", RESPONSES)
    assert found.ranking["response"].tolist() == ["ACD"[k] for k in expected.order]
    pairs = (found.pairs["first"] + found.pairs["second"]).tolist()
    assert pairs == ["AC", "AD", "CD"]


@pytest.mark.parametrize("responses", [[], ["x"], ["x", " ", "\n"]])
def test_single_response_is_refused(responses):
    """At least two responses must have text."""
    with pytest.raises(PairsError, match="at least two"):
        judge_responses("p", responses)


@pytest.mark.parametrize(
    ("place", "name"), [(0, "The prompt"), (1, "Response A"), (3, "Response C")]
)
def test_long_text_is_named(place, name):
    """A longer text is refused, not cut."""
    texts = ["short"] * 4
    texts[place] = "x" * (MAX_CHARS + 1)
    with pytest.raises(PairsError, match=f"^{name} has more than 40,000 characters"):
        judge_responses(texts[0], texts[1:])


def test_newest_run_comes_before_the_shipped_model(tmp_path):
    """Without a name the demo opens with a fitted run; the shipped model says what it is."""
    assert list_models(None, tmp_path) == [SHIPPED]
    assert "lengths and structure only" in SHIPPED.name
    assert "cannot read" in SHIPPED.about
    fit_small(tmp_path, "features")
    simulated_run(tmp_path)
    models = list_models(None, tmp_path)
    assert {model.name for model in models[:2]} == {"run features", "run simulated"}
    assert models[2] == SHIPPED
    about = next(model.about for model in models if model.name == "run features")
    assert about.startswith("The feature model, fitted to pairs.csv (150 pairs), log loss ")


def test_named_run_comes_first(tmp_path):
    """It is listed once; a run without a finished fold is refused."""
    run = fit_small(tmp_path, "one")
    fit_small(tmp_path, "two")
    models = list_models(run, tmp_path)
    assert [model.name for model in models] == ["run one", "run two", SHIPPED.name]
    for fold in run.finished_folds():
        run.fold(fold).scores_path.unlink()
    with pytest.raises(RunError, match="no fold is finished"):
        list_models(run, tmp_path)


def test_fitted_run_answers(tmp_path):
    """The answer is that of the run, not that of the shipped model."""
    run = fit_small(tmp_path, "one")
    [model, shipped] = list_models(run, tmp_path)
    answers = [answer_in_html(each, "2 + 2?", RESPONSES) for each in (model, shipped)]
    assert answers[0] != answers[1]
    assert all(answer.count('class="pair"') == 3 for answer in answers)
    assert "Ranking" in answers[0]


@pytest.mark.parametrize(
    ("prompt", "responses"), [("", ["a"]), ("p", ["", " "]), ("p", ["x" * 50_000, "y"]), ("p", [])]
)
def test_problem_is_a_sentence(prompt, responses):
    """What is missing is said on the page."""
    answer = answer_in_html(SHIPPED, prompt, responses)
    assert re.fullmatch(r'<p class="problem">[^<>]+\.</p>', answer)


@pytest.mark.parametrize("text", ["\ud800", "\x00", "<script>alert(1)</script>", "é" * 40_000])
def test_odd_text_is_judged(text):
    """No text of an allowed length is refused, and none is repeated on the page."""
    answer = answer_in_html(SHIPPED, text, [text, "b", text])
    assert answer.count('class="pair"') == 3
    assert "script" not in answer


def test_internal_error_is_a_sentence(monkeypatch, caplog):
    """The page says where to look, and the terminal has the details."""
    monkeypatch.setattr("tiewise.serving.demo.page.judge_responses", lambda *_, **__: 1 / 0)
    answer = answer_in_html(SHIPPED, "p", ["a", "b"])
    assert "The terminal of tiewise demo shows it." in answer
    assert "ZeroDivisionError" in caplog.text
    assert "ZeroDivisionError" not in answer


def test_orders_are_shown_on_request():
    """A symmetric model says that there is nothing to compare."""
    shown, hidden = (
        answer_in_html(SHIPPED, "p", ["a", "b c"], show_orders=show) for show in (True, False)
    )
    assert "the same probabilities in both orders" in shown
    assert "orders" not in hidden
