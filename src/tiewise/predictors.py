"""Predictions of models that need no torch themselves, though runs below them may.

A blend mixes what its members say. The CPU-class model averages its folds; where it stands on other
runs, these are asked first, in both orders, so that it stays symmetric. A cascade asks a dear run
where a cheap one is in two minds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from tiewise.baseline import load_baseline
from tiewise.errors import RunError
from tiewise.mixture import load_mixture
from tiewise.orders import is_close
from tiewise.pairs import is_degenerate
from tiewise.runs import Run
from tiewise.stacking import stack_columns, table_logits

_PROBS = ["prob_a", "prob_b", "prob_tie"]
Judge = Callable[..., pd.DataFrame]


def open_blend(run: Run, members: Mapping[str, Judge]) -> Judge:
    """Return a blend's predictions of pairs, from its members'."""
    mixture = load_mixture(run.mixture_path)

    def predict(pairs: pd.DataFrame, options: Any) -> pd.DataFrame:
        logits = [table_logits(members[name](pairs, options)) for name in mixture.members]
        return _tabulate(pairs, np.exp(mixture.apply(logits)))

    return predict


def open_baseline(run: Run, members: Mapping[str, Judge]) -> Judge:
    """Return the CPU-class model's predictions of pairs, its finished folds averaged.

    Parameters
    ----------
    run
        A run of the CPU-class model.
    members
        What predicts pairs for each run that it stands on.

    Raises
    ------
    RunError
        When no fold is finished.
    """
    folds = run.finished_folds()
    if not folds:
        raise RunError(f"{run.path}: no fold is finished yet. Go on with tiewise fit --resume.")
    models = [load_baseline(run.fold(fold).adapter_dir) for fold in folds]

    def predict(pairs: pd.DataFrame, _: Any) -> pd.DataFrame:
        told = {name: table_logits(judge(pairs)) for name, judge in members.items()}
        columns = {
            column: values
            for name, logits in told.items()
            for column, values in zip(stack_columns(name), logits.T, strict=True)
        }
        known = pairs.assign(**columns)
        return _tabulate(pairs, np.mean([model.predict(known) for model in models], axis=0))

    return predict


def open_cascade(cheap: Judge, dear: Judge, share: float) -> Judge:
    """Return predictions of which close calls are made by the dear one.

    Parameters
    ----------
    cheap, dear
        What predicts pairs.
    share
        The ratio of a row's two largest probabilities from which on the dear one is asked.
    """

    def predict(pairs: pd.DataFrame, options: Any) -> pd.DataFrame:
        table = cheap(pairs, options)
        goes_on = is_close(table_logits(table), share)
        probs = table[_PROBS].to_numpy(np.float64).copy()
        if goes_on.any():
            probs[goes_on] = dear(pairs[goes_on], options)[_PROBS]
        return _tabulate(pairs, probs).assign(is_dear=goes_on)

    return predict


def _tabulate(pairs: pd.DataFrame, probs: Any) -> pd.DataFrame:
    table = pd.DataFrame(probs, columns=_PROBS)
    table.insert(0, "id", pairs["id"].to_numpy())
    return table.assign(is_degenerate=is_degenerate(pairs))
