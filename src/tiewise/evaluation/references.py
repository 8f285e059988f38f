"""Reference models, and the scores of a run next to theirs: the contents of ``scores.json``.

References are scored on the same rows as the run, each fitted without the rows' own fold:
`uniform`; `class_prior`, the class frequencies of the training rows; `length_only`, a logistic
regression on the lengths of the texts; and `bayes`, the true probabilities of simulated data.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Unpack

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from tiewise.data.labels import PROB_COLUMNS, Winner, swap_labels, swap_probs, without_ties
from tiewise.errors import ScoresError
from tiewise.evaluation.agreement import VOTE_COLUMNS, HumanAgreement, agreement_of_votes
from tiewise.evaluation.intervals import BootstrapOptions, FloatArray, Interval, show_table
from tiewise.evaluation.metrics import N_CLASSES, Metric, check_labels, find_ids
from tiewise.evaluation.position import PositionBias, measure_position_bias
from tiewise.evaluation.scores import Scores, compare, evaluate, tabulate

COMPARED: tuple[Metric, ...] = ("log_loss", "accuracy")
"""Scores of which differences to the references are computed."""
_COMPARED_OF_VERDICTS: tuple[Metric, ...] = ("accuracy", "decisive_accuracy")
LENGTH_COLUMNS = ["n_chars_prompt", "n_chars_a", "n_chars_b"]
BAYES_COLUMNS = ["bayes_a", "bayes_b", "bayes_tie"]
_INVERSE_PENALTY = 0.1
_NO_TIE_PROB = 1e-6
"""A probability of a tie below which none is predicted."""
_HEADLINE = "length_only"
"""Reference that the first line of the printed scores names."""
_WORDS = {
    "better": "Better than the lengths of the responses alone",
    "worse": "Worse than the lengths of the responses alone",
    "no clear difference": "No clear difference from the lengths of the responses alone",
}

Model = Callable[[pd.DataFrame, pd.DataFrame], FloatArray]
"""From training rows and rows to predict to probabilities (n, 3)."""


@dataclass(frozen=True, kw_only=True)
class RunScores(Scores):
    """Scores of a run, and those of its references on the same rows."""

    baselines: dict[str, Scores]
    """By reference."""

    differences: dict[str, dict[str, Interval]]
    """By reference, then metric: score of the run minus that of the reference, paired by row."""

    counts: dict[str, int]
    """Number of rows left out, truncated, degenerate, ..."""

    position_bias: PositionBias | None = None
    human_agreement: HumanAgreement | None = None
    """None unless both orders were scored, or several people labelled the same pair."""

    omitted: dict[str, str] = field(default_factory=dict)
    """References that are not available, and why."""

    n_classes: int = N_CLASSES
    """2 if no row and no prediction is a tie: the references are then also without ties."""

    def verdict(self, name: str) -> str:
        """Say whether the log loss is better or worse than that of a reference.

        It is neither if the interval of the difference holds zero. Verdicts are compared by
        accuracy.
        """
        difference = self.differences[name][self._compared[0]]
        if not difference.low <= 0 <= difference.high:
            return "better" if (difference.low > 0) == self.has_verdicts else "worse"
        return "no clear difference"

    @property
    def _compared(self) -> tuple[Metric, ...]:
        """Names of the differences that are shown; the first decides."""
        return _COMPARED_OF_VERDICTS if self.has_verdicts else ("log_loss",)

    def _headline(self) -> str:
        if _HEADLINE not in self.differences:
            return ""
        metric = self._compared[0]
        difference = f"{self.differences[_HEADLINE][metric]:+.4f}"
        return f"{_WORDS[self.verdict(_HEADLINE)]}: {metric.replace('_', ' ')} {difference}"

    def _repr_html_(self) -> str:
        columns = ["score", "this run", *(name.replace("_", " ") for name in self.baselines)]
        table = pd.DataFrame(tabulate([self, *self.baselines.values()]), columns=columns)
        return show_table(f"{self._headline()}. {self.describe()}".removeprefix(". "), table)

    def __str__(self) -> str:
        lines = [
            self.describe(),
            *(f"{name:22}{score}" for name, score in tabulate([self])),
        ]
        lines += ["", *self._compare()]
        if headline := self._headline():
            lines.insert(0, headline)
        if self.n_classes == 2:
            lines.append("two classes, A and B: no row is a tie, and none is predicted to be one")
        lines += [f"{name}: omitted, {reason}" for name, reason in self.omitted.items()]
        lines += [str(part) for part in (self.human_agreement, self.position_bias) if part]
        counts = {name.removeprefix("n_").replace("_", " "): n for name, n in self.counts.items()}
        counted = [f"{name} {n:,}" for name, n in counts.items() if n and name != "rows"]
        return "\n".join(lines + ([f"counted: {', '.join(counted)}"] if counted else []))

    def _compare(self) -> Iterator[str]:
        """Yield a head, and a line per reference with its score, each difference and a verdict."""
        names = [name.replace("_", " ") for name in self._compared]
        sign = f": {', '.join(names)}; positive" if self.has_verdicts else "; negative"
        head = f"minus the reference{sign} is better"
        yield f"{f'{names[0]} of references':49}{head}"
        for name, reference in self.baselines.items():
            label = f"{name.replace('_', ' '):22}{getattr(reference, self._compared[0]):.4f}"
            found = (f"{self.differences[name][each]:+.4f}" for each in self._compared)
            differences = "".join(f"{each:30}" for each in found)
            yield f"{label:49}{differences}{self.verdict(name)}"


def evaluate_tables(
    oof: pd.DataFrame,
    folds_table: pd.DataFrame,
    *,
    counts: Mapping[str, int] | None = None,
    others: Mapping[str, npt.ArrayLike] | None = None,
    omitted: Mapping[str, str] | None = None,
    **options: Unpack[BootstrapOptions],
) -> RunScores:
    """Score the out-of-fold predictions of a run, and its references.

    `oof` and `folds_table` are the run's ``oof.parquet`` and ``folds.parquet``; the latter may have
    the true probabilities `bayes_a, bayes_b, bayes_tie`, and `pair, vote` of every label. Rows
    without a label are left out and counted. `others` are further references by name: probabilities
    (n, 3) of the rows of `oof`; `omitted` says why others are not available; `counts` are further
    counts to report.
    """
    is_labelled = oof["label"].notna().to_numpy()
    scored = oof[is_labelled]
    labels, probs = check_labels(scored["label"]), scored[PROB_COLUMNS].to_numpy()
    positions = find_ids(scored["id"], folds_table["id"], name="the folds table")
    references, lacking = reference_probs(folds_table, positions)
    references |= {name: np.asarray(other)[is_labelled] for name, other in (others or {}).items()}
    is_two_class = not (labels == Winner.TIE).any() and (probs[:, 2] < _NO_TIE_PROB).all()
    if is_two_class:
        references = {name: without_ties(reference) for name, reference in references.items()}
    score = partial(evaluate, labels, groups=scored["group"], **options)
    difference = partial(compare, labels, probs, groups=scored["group"], **options)
    scores = score(probs)
    compared = _COMPARED_OF_VERDICTS if scores.has_verdicts else COMPARED
    return RunScores(
        **vars(scores),
        baselines={name: score(reference) for name, reference in references.items()},
        differences={
            name: {metric: difference(reference, metric=metric) for metric in compared}
            for name, reference in references.items()
        },
        counts={**count_rows(oof), **(counts or {})},
        position_bias=_position_bias(scored, options),
        human_agreement=_agreement(folds_table.iloc[positions], options),
        omitted={**lacking, **(omitted or {})},
        n_classes=2 if is_two_class else N_CLASSES,
    )


def count_rows(oof: pd.DataFrame) -> dict[str, int]:
    """Count the rows of an out-of-fold table: all, unlabelled, truncated and degenerate ones.

    >>> count_rows(pd.DataFrame({"label": [0, None], "n_truncated": [0, 9]}))
    {'rows': 2, 'unlabelled': 1, 'truncated': 1}
    """
    counts = {"rows": len(oof), "unlabelled": int(oof["label"].isna().sum())}
    if "n_truncated" in oof:
        counts["truncated"] = int((oof["n_truncated"] > 0).sum())
    if "is_degenerate" in oof:
        counts["degenerate"] = int(oof["is_degenerate"].sum())
    return counts


def _agreement(voted: pd.DataFrame, options: BootstrapOptions) -> HumanAgreement | None:
    if not set(VOTE_COLUMNS) <= set(voted) or not voted["pair"].duplicated().any():
        return None
    return agreement_of_votes(voted, **options)


def _position_bias(scored: pd.DataFrame, options: BootstrapOptions) -> PositionBias | None:
    columns = [f"{name}_{order}" for order in ("given", "swapped") for name in PROB_COLUMNS]
    if not set(columns) <= set(scored):
        return None
    both = scored[scored[columns].notna().all(axis=1)]
    if not len(both):
        return None
    given, permuted = np.split(both[columns].to_numpy(), 2, axis=1)
    # The table stores the swapped order permuted back to the row's own A and B.
    return measure_position_bias(given, swap_probs(permuted), groups=both["group"], **options)


def reference_probs(
    folds_table: pd.DataFrame, rows_scored: npt.ArrayLike
) -> tuple[dict[str, FloatArray], dict[str, str]]:
    """Predict rows with every available reference, fitted without the rows' own fold.

    `rows_scored` are positions in `folds_table`, (n,). Returns probabilities (n, 3) by name, and
    why the other references are not available.

    >>> table = pd.DataFrame({"fold": [0, 0, 1, 1], "label": [0, 1, 2, 2]})
    >>> references, omitted = reference_probs(table, [0, 2])
    >>> references["class_prior"].round(2).tolist()
    [[0.2, 0.2, 0.6], [0.4, 0.4, 0.2]]
    """
    rows = np.asarray(rows_scored, dtype=np.int64)
    references = {"uniform": np.full((len(rows), N_CLASSES), 1 / N_CLASSES)}
    omitted = {}
    models = {"class_prior": predict_class_prior, "length_only": predict_length_only}
    missing = [name for name in LENGTH_COLUMNS if name not in folds_table]
    if missing:
        del models["length_only"]
        omitted["length_only"] = f"there is no column {', '.join(missing)}"
    for name, model in models.items():
        try:
            references[name] = _by_fold(folds_table, rows, model)
        except ScoresError as error:
            omitted[name] = str(error)
    if set(BAYES_COLUMNS) <= set(folds_table):
        references["bayes"] = folds_table[BAYES_COLUMNS].to_numpy(np.float64)[rows]
    return references, omitted


def predict_class_prior(train: pd.DataFrame, rows: pd.DataFrame) -> FloatArray:
    """Give every row the class frequencies of the training rows, with add-one (Laplace) smoothing.

    Smoothing keeps the log loss of an unseen class finite.

    >>> predict_class_prior(pd.DataFrame({"label": [0, 0, 2]}), pd.DataFrame(index=[0])).round(2)
    array([[0.5 , 0.17, 0.33]])
    """
    counts = np.bincount(check_labels(train["label"]), minlength=N_CLASSES) + 1.0
    return np.tile(counts / counts.sum(), (len(rows), 1))


def predict_length_only(train: pd.DataFrame, rows: pd.DataFrame) -> FloatArray:
    """Predict from the lengths of prompt and responses, in characters, by logistic regression.

    Training and prediction use both orders of each pair, so swapping the responses exchanges P(A)
    and P(B) exactly.
    """
    labels = check_labels(train["label"])
    features = np.vstack([_length_features(train), _length_features(_swap(train))])
    # One row of each class at the mean: the additional rows of `predict_class_prior`.
    features = np.vstack([features, *[features.mean(0, keepdims=True)] * N_CLASSES])
    targets = np.concatenate([labels, swap_labels(labels), np.arange(N_CLASSES)])
    model = make_pipeline(
        StandardScaler(), LogisticRegression(C=_INVERSE_PENALTY, max_iter=1000)
    ).fit(features, targets)
    one = model.predict_proba(_length_features(rows))
    other = model.predict_proba(_length_features(_swap(rows)))
    return np.asarray((one + swap_probs(other)) / 2, dtype=np.float64)


def _length_features(table: pd.DataFrame) -> FloatArray:
    """Return log ratio and relative difference, signed and absolute, and both log lengths."""
    prompt, a, b = table[LENGTH_COLUMNS].to_numpy(np.float64).T
    ratio = np.log1p(a) - np.log1p(b)
    relative = (a - b) / (a + b + 1)
    scale = np.log1p(a) + np.log1p(b)
    columns = [ratio, relative, np.abs(ratio), np.abs(relative), scale, np.log1p(prompt)]
    return np.column_stack(columns)


def _swap(table: pd.DataFrame) -> pd.DataFrame:
    return table.rename(columns={"n_chars_a": "n_chars_b", "n_chars_b": "n_chars_a"})


def _by_fold(folds_table: pd.DataFrame, rows: npt.NDArray[np.int64], model: Model) -> FloatArray:
    """Predict each row with the model fitted on the labelled rows of the other folds."""
    folds = folds_table["fold"].to_numpy()
    is_labelled = folds_table["label"].notna().to_numpy()
    probs = np.empty((len(rows), N_CLASSES))
    for fold in np.unique(folds[rows]):
        held_out = folds[rows] == fold
        train = folds_table[is_labelled & (folds != fold)]
        if not len(train):
            raise ScoresError(f"there is no labelled row outside fold {fold} to fit it on")
        probs[held_out] = model(train, folds_table.iloc[rows[held_out]])
    return probs
