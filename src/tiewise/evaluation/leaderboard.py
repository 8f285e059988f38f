"""Bradley-Terry leaderboards of models, from labels and from predictions, also length-controlled.

A judge that only measures length agrees with people to the extent that longer responses win. With
length controlled, the spread of its strengths shrinks to a fraction, while the spread from people's
labels does not. Where the spread is near zero, the order means nothing.

The model is Davidson's (:mod:`tiewise.evaluation.davidson`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import sparse
from scipy.sparse.csgraph import connected_components
from scipy.stats import norm, t

from tiewise.data.labels import PROB_COLUMNS
from tiewise.data.parse import count_characters
from tiewise.errors import ScoresError
from tiewise.evaluation.davidson import Contests, Fit, fit_davidson, influence
from tiewise.evaluation.intervals import (
    FloatArray,
    IntArray,
    Interval,
    Result,
    check_confidence,
    check_resamples,
    few_groups_mark,
    group_rows,
    resampled_totals,
)
from tiewise.evaluation.metrics import N_CLASSES, check_labels, check_probs
from tiewise.evaluation.slices import join_rows

_TITLES = {
    "observed": "observed",
    "predicted": "predicted",
    "observed_controlled": "observed, length controlled",
    "predicted_controlled": "predicted, length controlled",
}
"""Fields of `Leaderboards` that hold a leaderboard, with their titles."""


@dataclass(frozen=True)
class Leaderboard(Result):
    """Models and their strengths, the strongest first."""

    models: tuple[str, ...]
    strengths: tuple[Interval, ...]
    """Log odds of a win against an average model; their mean is zero."""

    length_weight: Interval | None
    """Log odds that a unit of the log length ratio adds; None if length is not controlled."""

    spread: Interval
    """Standard deviation of the strengths; near zero, the models cannot be told apart."""

    def to_dict(self) -> dict[str, Any]:
        """Return the leaderboard for JSON."""
        board = zip(self.models, self.strengths, strict=True)
        found = super().to_dict()
        del found["strengths"]
        return found | {"models": [{"model": m, **strength.to_dict()} for m, strength in board]}

    def __str__(self) -> str:
        width = max(len(model) for model in self.models)
        board = zip(self.models, self.strengths, strict=True)
        lines = [f"{place:3}  {m:{width}}  {s:+.3f}" for place, (m, s) in enumerate(board, 1)]
        return "\n".join(lines)


@dataclass(frozen=True)
class Leaderboards(Result):
    """Leaderboards from labels and from predictions, without and with length control."""

    n: int
    n_groups: int
    observed: Leaderboard
    predicted: Leaderboard
    observed_controlled: Leaderboard
    predicted_controlled: Leaderboard
    agreement: Interval
    agreement_controlled: Interval
    """Kendall's tau between the predicted and the observed order."""

    omitted: tuple[str, ...]
    """Models that no chain of pairs connects with those ranked."""

    def __str__(self) -> str:
        lines = []
        if self.omitted:
            named = ", ".join(self.omitted)
            lines.append(f"not ranked, as no chain of pairs connects them to the others: {named}")
        lines.append(f"{self.n:,} rows in {self.n_groups:,} groups{few_groups_mark(self.n_groups)}")
        for name, title in _TITLES.items():
            board: Leaderboard = getattr(self, name)
            weight = f", weight of length {board.length_weight:+.3f}" if board.length_weight else ""
            lines += [f"{title} (spread {board.spread:.3f}{weight})", str(board)]
        lines.append(
            f"agreement of order (Kendall's tau) {self.agreement:+.3f}, length controlled "
            f"{self.agreement_controlled:+.3f}"
        )
        return "\n".join(lines)


def rank_models(
    pairs: pd.DataFrame,
    oof: pd.DataFrame,
    *,
    confidence_level: float = 0.95,
    n_resamples: int = 999,
    seed: int = 0,
) -> Leaderboards:
    """Rank the models of a pairs table by labels and by the predictions `oof`.

    Only the largest set of models that a chain of pairs connects is ranked. For each
    resample of prompt groups the strengths move by one Newton step, so the intervals are clustered
    by group. ScoresError is raised if no labelled row names two different models.
    """
    check_confidence(confidence_level)
    check_resamples(n_resamples, seed)
    table, codes, models, omitted = _connected_rows(join_rows(pairs, oof[oof["label"].notna()]))
    labels = check_labels(table["label"])
    probs = check_probs(table[PROB_COLUMNS].to_numpy(), len(labels)).astype(np.float64)
    grouped = group_rows(table["group"], labels, probs)
    a, b = (table[f"response_{side}"].map(count_characters).to_numpy() for side in "ab")
    gap = np.log1p(a) - np.log1p(b)
    fits: dict[str, Fit] = {}
    influences = []
    for name in _TITLES:
        outcomes = np.eye(N_CLASSES)[labels] if name.startswith("observed") else probs
        contests = Contests(codes[:, 0], codes[:, 1], outcomes, gap, len(models))
        is_controlled = name.endswith("controlled")
        fits[name] = fit_davidson(contests.with_prior(), is_controlled=is_controlled)
        influences.append(influence(contests, fits[name]))
    # All four share the resamples, so that the values which are compared move together.
    sums = grouped.sums(np.hstack(influences))
    moves = resampled_totals(sums, n_resamples, np.random.default_rng(seed)) - sums.sum(0)
    moves *= _widening(grouped.n_groups, confidence_level)
    fitted = np.concatenate([fit.parameters for fit in fits.values()])
    # The sample is the first line, the resamples are the others.
    drawn = np.split(np.vstack([fitted, fitted + moves]), len(fits), axis=1)
    boards = {
        name: _board(models, fits[name], draws, confidence_level)
        for name, draws in zip(_TITLES, drawn, strict=True)
    }
    strengths = [parameters[:, : len(models)] for parameters in drawn]
    return Leaderboards(
        n=len(labels),
        n_groups=grouped.n_groups,
        **boards,
        agreement=_agreement(strengths[0], strengths[1], confidence_level),
        agreement_controlled=_agreement(strengths[2], strengths[3], confidence_level),
        omitted=omitted,
    )


def _widening(n_groups: int, confidence_level: float) -> float:
    """Return the factor by which resamples of few groups spread too little.

    It is the ratio of Student's to the normal quantile, and the square root of G / (G - 1).
    """
    degrees, level = max(n_groups - 1, 1), (1 + confidence_level) / 2
    return float(t.ppf(level, degrees) / norm.ppf(level) * np.sqrt(1 + 1 / degrees))


def _connected_rows(
    table: pd.DataFrame,
) -> tuple[pd.DataFrame, IntArray, list[str], tuple[str, ...]]:
    """Keep the rows of the largest connected set of models, and number its models by name.

    Returns the rows, the numbers of their two models (n, 2), and the names ranked and omitted.
    """
    is_named = table["model_a"].notna() & table["model_b"].notna()
    table = table[is_named & (table["model_a"] != table["model_b"])]
    if not len(table):
        raise ScoresError(
            "no labelled row names two different models; expected the columns model_a and model_b."
        )
    names, codes = np.unique(table[["model_a", "model_b"]].astype(str), return_inverse=True)
    codes = codes.reshape(len(table), 2)
    met = sparse.coo_array((np.ones(len(codes)), codes.T), shape=(len(names), len(names)))
    _, part = connected_components(met, directed=False)
    is_ranked = part == np.bincount(part[codes[:, 0]]).argmax()
    is_kept = is_ranked[codes[:, 0]]
    numbers = np.cumsum(is_ranked) - 1
    omitted = tuple(names[~is_ranked].tolist())
    return table[is_kept], numbers[codes[is_kept]], names[is_ranked].tolist(), omitted


def _board(models: list[str], fit: Fit, drawn: FloatArray, confidence_level: float) -> Leaderboard:
    n_models = len(models)
    spread = drawn[:, :n_models].std(1, keepdims=True)
    intervals = _intervals(drawn, confidence_level)
    order = sorted(range(n_models), key=lambda k: (-fit.strengths[k], models[k]))
    return Leaderboard(
        models=tuple(models[k] for k in order),
        strengths=tuple(intervals[k] for k in order),
        length_weight=intervals[n_models] if fit.is_controlled else None,
        spread=_intervals(spread, confidence_level)[0].clip(0, np.inf),
    )


def _agreement(observed: FloatArray, predicted: FloatArray, confidence_level: float) -> Interval:
    """Return Kendall's tau-b of strengths, (1 + n_resamples, n_models) each."""
    above, below = np.triu_indices(observed.shape[1], 1)
    orders = [np.sign(of[:, above] - of[:, below]) for of in (observed, predicted)]
    n_ordered = np.sqrt(np.prod([np.abs(order).sum(1) for order in orders], axis=0))
    with np.errstate(invalid="ignore"):
        taus = (orders[0] * orders[1]).sum(1) / n_ordered
    return _intervals(taus[:, None], confidence_level)[0].clip(-1, 1)


def _intervals(drawn: FloatArray, confidence_level: float) -> list[Interval]:
    """Return intervals from the sample, in the first line, and resamples; NaN if they are equal."""
    values, drawn = drawn[0], drawn[1:]
    half = np.quantile(np.abs(drawn - drawn.mean(0)), confidence_level, axis=0)
    half = np.where(np.ptp(drawn, axis=0) > 0, half, np.nan)
    ends = zip(values.tolist(), half.tolist(), strict=True)
    return [Interval(value, value - width, value + width) for value, width in ends]
