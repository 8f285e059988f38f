"""Tables have their columns of A, B and tie found by name; rows in another order are refused."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tiewise as tw
from tiewise.data.class_columns import LOGITS, PROBS
from tiewise.errors import LabelError, PairsError, ScoresError
from tiewise.evaluation.calibration import calibrate

LABELS = [0, 0, 0, 1, 2, 1]
VALUES = np.random.default_rng(0).dirichlet(np.ones(3), len(LABELS))
IDS = [f"row {n}" for n in range(len(LABELS))]


def fit(logits):
    """Fit a temperature."""
    return tw.fit_temperature(LABELS, logits)


def cross_fit(logits):
    """Cross-fit the calibrations."""
    return calibrate(LABELS * 9, pd.concat([logits] * 9, ignore_index=True)).probs


@pytest.mark.parametrize("function", [fit, cross_fit, tw.swap_probs])
@given(names=st.sampled_from(LOGITS), order=st.permutations(range(4)), is_named=st.booleans())
def test_logits_are_found_by_name(function, names, order, is_named):
    """Any order of the columns, and further columns, give the same as the array."""
    plain = pd.DataFrame(np.log(VALUES))
    table = plain.set_axis(list(names), axis=1).assign(group=1).iloc[:, order]
    np.testing.assert_array_equal(function(table if is_named else plain), function(plain))


@given(names=st.sampled_from(PROBS), order=st.permutations(range(4)))
def test_submission_is_written_by_name(tmp_path_factory, names, order):
    """A submission has each probability under its class, in any order of the table's columns."""
    path = tmp_path_factory.mktemp("out") / "submission.csv"
    table = pd.DataFrame(VALUES, columns=list(names)).assign(group=1).iloc[:, order]
    tw.write_submission(IDS, table, path)
    columns = ["winner_model_a", "winner_model_b", "winner_tie"]
    np.testing.assert_allclose(pd.read_csv(path)[columns], VALUES, rtol=1e-15)


def test_rows_in_another_order_are_refused(tmp_path):
    """Tables whose indices have another order are not joined by position."""
    table = pd.DataFrame(VALUES, columns=["prob_a", "prob_b", "prob_tie"])
    ids, labels = pd.Series(IDS), pd.Series(LABELS)
    with pytest.raises(PairsError, match="the index of probs has another order than that of ids"):
        tw.write_submission(ids, table[::-1], tmp_path / "out.csv")
    for function in (tw.fit_temperature, calibrate):
        with pytest.raises(ScoresError, match="the index of logits has another order"):
            function(labels, np.log(table[::-1]))
    with pytest.raises(ScoresError, match="the index of groups has another order"):
        calibrate(labels, np.log(table), groups=pd.Series(IDS)[::-1])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("function", "error"),
    [
        (lambda table: tw.write_submission(["x"], table, "out.csv"), PairsError),
        (lambda table: tw.fit_temperature([0], table), ScoresError),
        (tw.swap_probs, LabelError),
    ],
)
def test_unknown_columns_are_refused(function, error):
    """A table with other names is not read by position."""
    with pytest.raises(error, match="are p1, p2, p3"):
        function(pd.DataFrame([[0.5, 0.25, 0.25]], columns=["p1", "p2", "p3"]))


def test_probabilities_of_a_table_with_both_are_swapped():
    """A table of predictions has logits too; `swap_probs` returns its probabilities."""
    table = pd.DataFrame(VALUES, columns=["prob_a", "prob_b", "prob_tie"])
    logits = pd.DataFrame(np.log(VALUES), columns=["logit_a", "logit_b", "logit_tie"])
    for both in (table.join(logits), logits.join(table)):
        np.testing.assert_array_equal(tw.swap_probs(both), VALUES[:, [1, 0, 2]])
        assert fit(both) == fit(logits)


@pytest.mark.parametrize("library", ["polars", "pyarrow"])
def test_columns_of_other_tables_are_found_by_name(tmp_path, library):
    """Tables of polars and pyarrow are read as those of pandas."""
    table = pd.DataFrame(VALUES, columns=["prob_a", "prob_b", "prob_tie"]).iloc[:, ::-1]
    if library == "polars":
        other = pytest.importorskip("polars").from_pandas(table)
    else:
        other = pytest.importorskip("pyarrow").Table.from_pandas(table)
    np.testing.assert_array_equal(tw.swap_probs(other), VALUES[:, [1, 0, 2]])
    scores = [tw.evaluate(LABELS, each).log_loss for each in (table, other)]
    assert scores[0] == scores[1]
    for name, each in (("a", table), ("b", other)):
        tw.write_submission(IDS, each, tmp_path / f"{name}.csv")
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()


def test_indices_of_other_kinds_are_not_compared(tmp_path):
    """An index of several levels says nothing about the order of a plain one."""
    ids = pd.Series(IDS, index=pd.MultiIndex.from_product([[0, 1], [0, 1, 2]]))
    table = pd.DataFrame(VALUES, columns=["prob_a", "prob_b", "prob_tie"])
    tw.write_submission(ids, table, tmp_path / "s.csv")
    assert pd.read_csv(tmp_path / "s.csv")["id"].tolist() == IDS
