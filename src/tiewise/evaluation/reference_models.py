"""The models a fit must beat: knowing nothing, the class frequencies, and the lengths alone.

Each is fitted on a fold's training rows and predicts the rows held out there. Each class gets one
row more than was seen (Laplace), so a class absent from training costs much, not everything.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from tiewise.evaluation.intervals import FloatArray
from tiewise.evaluation.metrics import N_CLASSES, check_labels
from tiewise.pairs.labels import swap_labels, swap_probs

LENGTH_COLUMNS = ["n_chars_prompt", "n_chars_a", "n_chars_b"]
BAYES_COLUMNS = ["bayes_a", "bayes_b", "bayes_tie"]
_INVERSE_PENALTY = 0.1

Model = Callable[[pd.DataFrame, pd.DataFrame], FloatArray]
"""From training rows and rows to predict to probabilities (n, 3)."""


def reference_probs(
    folds_table: pd.DataFrame, rows_scored: npt.ArrayLike
) -> tuple[dict[str, FloatArray], dict[str, str]]:
    """Predict rows by every reference that can be had, each fitted without the rows' own fold.

    Parameters
    ----------
    folds_table
        A row per row of the data: `fold, label` (missing where unlabelled), `n_chars_prompt,
        n_chars_a, n_chars_b`; with `bayes_a, bayes_b, bayes_tie` the true probabilities.
    rows_scored
        Positions in `folds_table` of the rows to predict, (n,).

    Returns
    -------
    references
        Probabilities, float64 (n, 3), by name: uniform, class_prior, length_only, bayes.
    omitted
        For a reference that is not among them, why.

    Examples
    --------
    >>> table = pd.DataFrame({"fold": [0, 0, 1, 1], "label": [0, 1, 2, 2]})
    >>> references, omitted = reference_probs(table, [0, 2])
    >>> references["class_prior"].round(2).tolist()
    [[0.2, 0.2, 0.6], [0.4, 0.4, 0.2]]
    >>> omitted
    {'length_only': 'there is no column n_chars_prompt, n_chars_a, n_chars_b'}
    """
    rows = np.asarray(rows_scored, dtype=np.int64)
    references = {"uniform": np.full((len(rows), N_CLASSES), 1 / N_CLASSES)}
    omitted = {}
    models = {"class_prior": predict_class_prior, "length_only": predict_length_only}
    for name, model in models.items():
        reason = _obstacle(folds_table, rows, LENGTH_COLUMNS if name == "length_only" else [])
        if reason:
            omitted[name] = reason
        else:
            references[name] = _by_fold(folds_table, rows, model)
    if set(BAYES_COLUMNS) <= set(folds_table):
        references["bayes"] = folds_table[BAYES_COLUMNS].to_numpy(np.float64)[rows]
    return references, omitted


def predict_class_prior(train: pd.DataFrame, rows: pd.DataFrame) -> FloatArray:
    """Give every row the class frequencies of the training rows.

    Examples
    --------
    >>> predict_class_prior(pd.DataFrame({"label": [0, 0, 2]}), pd.DataFrame(index=[0])).round(2)
    array([[0.5 , 0.17, 0.33]])
    """
    counts = np.bincount(check_labels(train["label"]), minlength=N_CLASSES) + 1.0
    return np.tile(counts / counts.sum(), (len(rows), 1))


def predict_length_only(train: pd.DataFrame, rows: pd.DataFrame) -> FloatArray:
    """Predict from the lengths of prompt and answers by logistic regression.

    Training rows are taken in both orders, and so are the rows predicted: exchanging the answers
    exchanges P(A) and P(B) exactly.

    Parameters
    ----------
    train
        `label` and the length columns, in characters.
    rows
        The length columns.

    Examples
    --------
    >>> lengths = pd.DataFrame({"n_chars_prompt": 9, "n_chars_a": [50, 9], "n_chars_b": [9, 50]})
    >>> train = pd.concat([lengths.assign(label=[0, 1])] * 20)
    >>> probs = predict_length_only(train, lengths)
    >>> bool(probs[0, 0] > 0.8), bool((probs[0] == probs[1][[1, 0, 2]]).all())
    (True, True)
    """
    labels = check_labels(train["label"])
    features = np.vstack([_length_features(train), _length_features(_exchange(train))])
    # One row of each class at the mean: the prior of `predict_class_prior`, in both orders.
    features = np.vstack([features, *[features.mean(0, keepdims=True)] * N_CLASSES])
    targets = np.concatenate([labels, swap_labels(labels), np.arange(N_CLASSES)])
    model = make_pipeline(
        StandardScaler(), LogisticRegression(C=_INVERSE_PENALTY, max_iter=1000)
    ).fit(features, targets)
    one = model.predict_proba(_length_features(rows))
    other = model.predict_proba(_length_features(_exchange(rows)))
    return np.asarray((one + swap_probs(other)) / 2, dtype=np.float64)


def _length_features(table: pd.DataFrame) -> FloatArray:
    """Ratio and relative difference of the answers, signed and unsigned, and the scale of both."""
    prompt, a, b = table[LENGTH_COLUMNS].to_numpy(np.float64).T
    ratio = np.log1p(a) - np.log1p(b)
    relative = (a - b) / (a + b + 1)
    scale = np.log1p(a) + np.log1p(b)
    columns = [ratio, relative, np.abs(ratio), np.abs(relative), scale, np.log1p(prompt)]
    return np.column_stack(columns)


def _exchange(table: pd.DataFrame) -> pd.DataFrame:
    return table.rename(columns={"n_chars_a": "n_chars_b", "n_chars_b": "n_chars_a"})


def _by_fold(folds_table: pd.DataFrame, rows: npt.NDArray[np.int64], model: Model) -> FloatArray:
    folds = folds_table["fold"].to_numpy()
    is_labelled = folds_table["label"].notna().to_numpy()
    probs = np.empty((len(rows), N_CLASSES))
    for fold in np.unique(folds[rows]):
        held_out = folds[rows] == fold
        train = folds_table[is_labelled & (folds != fold)]
        probs[held_out] = model(train, folds_table.iloc[rows[held_out]])
    return probs


def _obstacle(
    folds_table: pd.DataFrame, rows: npt.NDArray[np.int64], columns: list[str]
) -> str | None:
    """Say why a model that needs `columns` cannot be fitted, or None."""
    missing = [name for name in columns if name not in folds_table]
    if missing:
        return f"there is no column {', '.join(missing)}"
    folds = folds_table["fold"].to_numpy()
    is_labelled = folds_table["label"].notna().to_numpy()
    for fold in np.unique(folds[rows]):
        if not (is_labelled & (folds != fold)).any():
            return f"there is no labelled row outside fold {fold} to learn from"
    return None
