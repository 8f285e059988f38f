"""Scores as functions of sums over rows: what the bootstrap needs of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from tiewise.evaluation.intervals import FloatArray, IntArray
from tiewise.evaluation.metrics import (
    N_CLASSES,
    area_components,
    brier_scores,
    decisive_correct,
    log_losses,
)
from tiewise.evaluation.resampling import Statistic

# Columns of the sums that every statistic is made of.
_ROWS, _LOSS, _BRIER, _DECISIVE, _DECISIVE_CORRECT = range(5)
_CONFUSION, _INSIDE, _OUTSIDE = slice(5, 14), slice(14, 17), slice(17, 20)


def score_columns(labels: IntArray, probs: npt.NDArray[Any]) -> FloatArray:
    """Return what each row adds to the totals: float64 (n, 20)."""
    confusion = np.eye(N_CLASSES**2)[labels * N_CLASSES + probs.argmax(1)]
    alone = [
        np.ones(len(labels)),
        log_losses(labels, probs),
        brier_scores(labels, probs),
        (labels < 2).astype(np.float64),
        decisive_correct(labels, probs),
    ]
    return np.hstack([np.column_stack(alone), confusion, area_components(labels, probs)])


def score_statistic(sample: FloatArray) -> Statistic:
    """Return the function from totals of `score_columns` to scores.

    They come in the order of `METRICS`, without ece; `sample` are the sample's totals, (20,).
    """
    with np.errstate(invalid="ignore"):
        area = sample[_INSIDE] / sample[_CONFUSION].reshape(N_CLASSES, N_CLASSES).sum(1)

    def statistic(totals: FloatArray) -> FloatArray:
        rows = totals[..., _ROWS]
        confusion = totals[..., _CONFUSION].reshape(*totals.shape[:-1], N_CLASSES, N_CLASSES)
        right = np.diagonal(confusion, axis1=-2, axis2=-1)
        return np.stack(
            [
                totals[..., _LOSS] / rows,
                right.sum(-1) / rows,
                totals[..., _BRIER] / rows,
                totals[..., _DECISIVE_CORRECT] / totals[..., _DECISIVE],
                _mean_of_known(2 * right / (confusion.sum(-1) + confusion.sum(-2))),
                _mean_of_known(_areas(totals, confusion.sum(-1), area)),
            ],
            axis=-1,
        )

    return statistic


def _areas(totals: FloatArray, inside: FloatArray, area: FloatArray) -> FloatArray:
    """Area of each class, (..., 3): exact for the sample, first-order for other weights."""
    outside = inside.sum(-1, keepdims=True) - inside
    return np.asarray(totals[..., _INSIDE] / inside + totals[..., _OUTSIDE] / outside - area)


def _mean_of_known(values: FloatArray) -> FloatArray:
    known = np.isfinite(values)
    return np.asarray(np.where(known, values, 0).sum(-1) / known.sum(-1))
