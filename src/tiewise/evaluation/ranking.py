"""From predictions to a leaderboard, and whether a predictor is only a length meter.

Models are ranked twice by what people said and twice by what a predictor said: as it is, and with
length given a weight of its own (:mod:`tiewise.evaluation.davidson`). A predictor that only
measures length ranks as people do as far as longer answers win, and has little left to say once
length is controlled: the spread of its strengths shrinks to a fraction, while that of people's
votes does not. The order of strengths that are all about zero means nothing, so look at the spread
first.
"""

from __future__ import annotations

import html
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.stats import kendalltau

from tiewise.errors import ScoresError
from tiewise.evaluation.davidson import Contests, Fit, fit_controlled, fit_plain, influence
from tiewise.evaluation.intervals import (
    FloatArray,
    IntArray,
    Interval,
    check_confidence,
    few_groups_mark,
)
from tiewise.evaluation.metrics import N_CLASSES, check_labels, check_probs
from tiewise.evaluation.resampling import check_resamples, group_rows, resampled_totals
from tiewise.evaluation.slices import count_characters, join_rows
from tiewise.pairs.labels import PROB_COLUMNS


@dataclass(frozen=True)
class Leaderboard:
    """Models and their strengths, best first."""

    models: tuple[str, ...]
    strengths: tuple[Interval, ...]
    """Log odds of winning against an average model, mean zero."""

    length_weight: Interval | None
    """What a unit of the log length ratio adds to the log odds; None where not controlled."""

    spread: Interval
    """Standard deviation of the strengths: near zero, the models are not told apart."""

    def to_dict(self) -> dict[str, Any]:
        """Return the leaderboard for JSON."""
        board = zip(self.models, self.strengths, strict=True)
        return {
            "models": [{"model": model, **interval.to_dict()} for model, interval in board],
            "length_weight": self.length_weight.to_dict() if self.length_weight else None,
            "spread": self.spread.to_dict(),
        }

    def strength_of(self, model: str) -> float:
        """Return the strength of a model by name."""
        return self.strengths[self.models.index(model)].value

    def __str__(self) -> str:
        width = max(len(model) for model in self.models)
        board = zip(self.models, self.strengths, strict=True)
        lines = [f"{place:3}  {m:{width}}  {s:+.3f}" for place, (m, s) in enumerate(board, 1)]
        return "\n".join(lines)


@dataclass(frozen=True)
class Leaderboards:
    """Observed and predicted, plain and with length controlled."""

    n: int
    n_groups: int
    observed: Leaderboard
    predicted: Leaderboard
    observed_controlled: Leaderboard
    predicted_controlled: Leaderboard
    agreement: Interval
    """Kendall's tau between the predicted and the observed order."""

    agreement_controlled: Interval
    """The same once length is controlled."""

    omitted: tuple[str, ...]
    """Models that never met those ranked, directly or through others."""

    def to_dict(self) -> dict[str, Any]:
        """Return everything for JSON; what cannot be known is None."""
        return {
            "n": self.n,
            "n_groups": self.n_groups,
            "observed": self.observed.to_dict(),
            "predicted": self.predicted.to_dict(),
            "observed_controlled": self.observed_controlled.to_dict(),
            "predicted_controlled": self.predicted_controlled.to_dict(),
            "agreement": self.agreement.to_dict(),
            "agreement_controlled": self.agreement_controlled.to_dict(),
            "omitted": list(self.omitted),
        }

    def __str__(self) -> str:
        boards = {
            "observed": self.observed,
            "predicted": self.predicted,
            "observed, length controlled": self.observed_controlled,
            "predicted, length controlled": self.predicted_controlled,
        }
        lines = [f"{self.n:,} rows in {self.n_groups:,} groups{few_groups_mark(self.n_groups)}"]
        for name, board in boards.items():
            weight = f", weight of length {board.length_weight:+.3f}" if board.length_weight else ""
            lines += [f"{name} (spread {board.spread:.3f}{weight})", str(board)]
        lines.append(
            f"agreement of order (Kendall's tau) {self.agreement:+.3f}, length controlled "
            f"{self.agreement_controlled:+.3f}"
        )
        if self.omitted:
            lines.append(f"never met these: {', '.join(self.omitted)}")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(str(self))}</pre>"


def rank_models(
    pairs: pd.DataFrame,
    oof: pd.DataFrame,
    *,
    confidence_level: float = 0.95,
    n_resamples: int = 999,
    seed: int = 0,
) -> Leaderboards:
    """Rank the models of a pairs table by labels and by predictions.

    Parameters
    ----------
    pairs
        A pairs table with `model_a` and `model_b`.
    oof
        Predictions: `id, label, group, prob_a, prob_b, prob_tie`.
    confidence_level, n_resamples, seed
        As in :func:`tiewise.evaluate`. A resample moves the fitted strengths by what its groups
        pull them (one step of the fit), so intervals are clustered by group.

    Returns
    -------
    Leaderboards
        Of the largest set of models that are comparable, being joined by a chain of contests.

    Raises
    ------
    ScoresError
        Fewer than two models are named in labelled rows.
    TiewiseError
        evalica is not installed.
    """
    check_confidence(confidence_level)
    check_resamples(n_resamples)
    table, codes, models, omitted = _comparable_rows(join_rows(pairs, oof[oof["label"].notna()]))
    labels = check_labels(table["label"])
    probs = check_probs(table[PROB_COLUMNS].to_numpy(), len(labels)).astype(np.float64)
    grouped = group_rows(table["group"], labels, probs)
    outcomes = [np.eye(N_CLASSES)[labels], probs]
    fits = [
        _fit(
            Contests(codes[:, 0], codes[:, 1], shares, _length_gap(table), len(models)), controlled
        )
        for controlled in (False, True)
        for shares in outcomes
    ]
    # One draw of groups for all four, so that what is compared moves together.
    sums = grouped.sums(np.hstack([pulls for _, pulls in fits]))
    totals = resampled_totals(sums, n_resamples, np.random.default_rng(seed)) - sums.sum(0)
    moves = np.split(totals, len(fits), axis=1)
    drawn = [fit.parameters + move for (fit, _), move in zip(fits, moves, strict=True)]
    observed, predicted, observed_controlled, predicted_controlled = (
        _board(models, fit, draws, confidence_level)
        for (fit, _), draws in zip(fits, drawn, strict=True)
    )
    strengths = [
        np.vstack([fit.parameters, draws])[:, : len(models)]
        for (fit, _), draws in zip(fits, drawn, strict=True)
    ]
    return Leaderboards(
        n=len(labels),
        n_groups=grouped.n_groups,
        observed=observed,
        predicted=predicted,
        observed_controlled=observed_controlled,
        predicted_controlled=predicted_controlled,
        agreement=_agreement(strengths[0], strengths[1], confidence_level),
        agreement_controlled=_agreement(strengths[2], strengths[3], confidence_level),
        omitted=omitted,
    )


def _fit(contests: Contests, is_controlled: bool) -> tuple[Fit, FloatArray]:
    """Fit strengths, and what each row pulls them."""
    fit = fit_controlled(contests) if is_controlled else fit_plain(contests)
    return fit, influence(contests, fit)


def _length_gap(table: pd.DataFrame) -> FloatArray:
    a, b = (table[f"response_{side}"].map(count_characters).to_numpy() for side in "ab")
    return np.asarray(np.log1p(a) - np.log1p(b), dtype=np.float64)


def _comparable_rows(
    table: pd.DataFrame,
) -> tuple[pd.DataFrame, IntArray, list[str], tuple[str, ...]]:
    """Keep the rows of models that a chain of contests joins; number those models by name."""
    is_named = table["model_a"].notna() & table["model_b"].notna()
    table = table[is_named & (table["model_a"] != table["model_b"])]
    if not len(table):
        raise ScoresError("no labelled row names two different models in model_a and model_b.")
    names, codes = np.unique(table[["model_a", "model_b"]].astype(str), return_inverse=True)
    codes = codes.reshape(len(table), 2)
    is_row_kept, is_ranked = _largest_part(codes, len(names))
    renumbered = np.cumsum(is_ranked) - 1
    omitted = tuple(str(name) for name in names[~is_ranked])
    ranked = [str(name) for name in names[is_ranked]]
    return table[is_row_kept], renumbered[codes[is_row_kept]].astype(np.int64), ranked, omitted


def _largest_part(codes: IntArray, n_models: int) -> tuple[Any, Any]:
    """Find the rows and the models of the largest part, by rows, that contests hold together."""
    met = coo_array((np.ones(len(codes)), codes.T), shape=(n_models, n_models))
    _, part = connected_components(met, directed=False)
    largest = np.bincount(part[codes[:, 0]]).argmax()
    return part[codes[:, 0]] == largest, part == largest


def _board(models: list[str], fit: Fit, drawn: FloatArray, confidence_level: float) -> Leaderboard:
    n_models = len(models)
    spread = fit.strengths.std(keepdims=True), drawn[:, :n_models].std(1, keepdims=True)
    intervals = _intervals(fit.parameters, drawn, confidence_level)
    order = sorted(range(n_models), key=lambda k: (-fit.strengths[k], models[k]))
    return Leaderboard(
        models=tuple(models[k] for k in order),
        strengths=tuple(intervals[k] for k in order),
        length_weight=intervals[n_models] if fit.is_controlled else None,
        spread=_intervals(*spread, confidence_level)[0].clip(0, np.inf),
    )


def _agreement(observed: FloatArray, predicted: FloatArray, confidence_level: float) -> Interval:
    """Kendall's tau of strengths: those of the sample in the first line, then the resamples'."""
    taus = [kendalltau(*both).statistic for both in zip(observed, predicted, strict=True)]
    values = np.array(taus)[:, None]
    return _intervals(values[0], values[1:], confidence_level)[0].clip(-1, 1)


def _intervals(values: FloatArray, drawn: FloatArray, confidence_level: float) -> list[Interval]:
    """Intervals (k,) from values (k,) and resamples (n_resamples, k); unknown if none moves."""
    half = np.quantile(np.abs(drawn - drawn.mean(0)), confidence_level, axis=0)
    half = np.where(np.ptp(drawn, axis=0) > 0, half, np.nan)
    ends = zip(values.tolist(), half.tolist(), strict=True)
    return [Interval(value, value - width, value + width) for value, width in ends]
