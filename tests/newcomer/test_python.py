"""The first hour in Python: check votes, fit, open by name, score, plot, calibrate, and err."""

import shlex

import pytest

VOTES = """
import tiewise as tw
found = tw.audit("votes.csv")
assert found.findings[0].severity == "medium", found.findings
run = tw.fit("votes.csv", preset="baseline", folds="all", run="first")
print("fitted", run.name)
"""
SCORES = """
import pandas as pd, tiewise as tw
run = tw.open_run("first")
oof = tw.read_oof("first")
assert oof["id"].tolist() == tw.read_pairs("votes.csv")["id"].tolist()
named = oof[["prob_tie", "prob_b", "prob_a"]]
scores = tw.evaluate(oof["label"], named, groups=oof["group"])
assert scores.log_loss == run.scores.log_loss
print(f"{float(scores.log_loss):.4f} = {scores.log_loss:.4f}")
kaggle = ["winner_model_a", "winner_model_b", "winner_tie"]
uniform = pd.DataFrame(1 / 3, index=oof.index, columns=kaggle)
assert tw.compare(oof["label"], named, uniform, groups=oof["group"]).high < 0
assert tw.calibrate("first").differences
judge = tw.Judge.from_pretrained(run)
assert judge.predict_proba("votes.csv").shape == (len(oof), 3)
"""
ERRORS = """
import tiewise as tw
def refused(error, call, *words):
    try:
        call()
    except error as caught:
        assert isinstance(caught, tw.TiewiseError)
        assert all(word in str(caught) for word in words), caught
    else:
        raise AssertionError(words)
refused(tw.RunError, lambda: tw.open_run("frist"), "frist", "first")
refused(tw.PairsError, lambda: tw.read_pairs("nowhere.csv"), "nowhere.csv")
refused(tw.ConfigError, lambda: tw.fit("votes.csv", preset="baseline", n_epoch=1), "n_epoch")
oof = tw.read_oof("first")
wrong = oof.rename(columns={"prob_tie": "prob_ties"})
refused(tw.ScoresError, lambda: tw.evaluate(oof["label"], wrong), "Rename prob_ties to prob_tie")
refused(tw.ParseError, lambda: tw.parse_turns("['Hi']"))
"""
FIGURES = """
import matplotlib; matplotlib.use("Agg")
import tiewise as tw
for draw in (tw.plot.calibration, tw.plot.confusion_matrix, tw.plot.log_loss):
    axes = draw("first")
    assert axes.has_data() or axes.texts
axes.figure.savefig("figure.png")
"""


@pytest.fixture(scope="module")
def run_code(type_command):
    """Return a function that runs Python in the folder, which has votes."""
    type_command("tiewise simulate --n 300 --out votes.csv")
    return lambda code: type_command(f"python -c {shlex.quote(code)}").out


def test_first_hour_in_python(run_code):
    """A run is fitted, opened by name, scored by column names, calibrated and used."""
    assert run_code(VOTES).splitlines()[-1] == "fitted first"
    value, interval = run_code(SCORES).strip().split(" = ")
    assert interval.startswith(f"{value} [")


def test_errors_have_public_names(run_code):
    """Each mistake raises a public class that names the mistake."""
    run_code(ERRORS)


def test_figures_are_drawn(run_code, folder):
    """Figures are Axes that can be saved."""
    pytest.importorskip("matplotlib")
    run_code(FIGURES)
    assert (folder / "figure.png").stat().st_size > 1_000
