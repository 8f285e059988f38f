"""Runs that a model is built on: which they are, and their out-of-fold predictions as columns.

A model built on others may see of a row only what models say that never saw the row's
conversation. So the others must have the same folds, all of them finished: what they say of the
rows held out in fold k was then said without fold k, in the fit and in the evaluation. The digest
of each one's predictions is part of what is built on it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from tiewise.errors import RunError
from tiewise.files import digest_file
from tiewise.pairs.labels import LOGIT_COLUMNS, PROB_COLUMNS
from tiewise.runs.folder import Run, open_run
from tiewise.runs.tables import read_folds, read_oof

_SAME = ["id", "fold", "label", "group", "n_chars_prompt", "n_chars_a", "n_chars_b"]


def stack_columns(name: str) -> list[str]:
    """Return the columns of a pairs table that hold another run's logits of A, B, tie.

    Examples
    --------
    >>> stack_columns("first")
    ['logit_a:first', 'logit_b:first', 'logit_tie:first']
    """
    return [f"{column}:{name}" for column in LOGIT_COLUMNS]


def open_stack(names: Sequence[str], runs_dir: Path) -> list[Run]:
    """Open the runs of these names, which stand side by side.

    Raises
    ------
    RunError
        When there is none of such a name.
    """
    return [open_run(runs_dir / name, runs_dir.parent) for name in names]


def digest_stack(runs: Sequence[Run]) -> dict[str, str]:
    """Return the digest of each run's out-of-fold predictions, by its name."""
    return {run.name: digest_file(run.oof_path) for run in runs}


def check_stack(runs: Sequence[Run], digests: Mapping[str, str]) -> None:
    """Refuse runs that were fitted again since something was built on them.

    Raises
    ------
    RunError
        When the predictions of one are missing or have another digest.
    """
    for run in runs:
        if not run.oof_path.is_file() or digest_file(run.oof_path) != digests.get(run.name):
            raise RunError(
                f"{run.path} has changed since another run was built on it: its out-of-fold "
                "predictions have another digest. Restore it, or build the other run again."
            )


def read_stack(runs: Sequence[Run], table: pd.DataFrame) -> pd.DataFrame:
    """Return the out-of-fold logits of other runs, a line per row of the data.

    Parameters
    ----------
    runs
        Runs over the same folds, all finished, that average both orders.
    table
        The folds of the model to be built (:func:`tiewise.training_data.dataset.deal_folds`), n
        rows.

    Returns
    -------
    DataFrame
        n rows with the index of `table`, the columns :func:`stack_columns` of each run.

    Raises
    ------
    RunError
        When a run has other folds, unfinished ones, or depends on the order of A and B.
    """
    parts = [_read_one(run, table) for run in runs]
    return pd.concat([pd.DataFrame(index=table.index), *parts], axis=1)


def table_logits(table: pd.DataFrame) -> npt.NDArray[np.float64]:
    """Return logits of a table of predictions, shape (n, 3); log-probabilities without any."""
    if set(LOGIT_COLUMNS) <= set(table):
        return np.asarray(table[LOGIT_COLUMNS].to_numpy(np.float64))
    return np.asarray(np.log(table[PROB_COLUMNS].to_numpy(np.float64)))


def _read_one(run: Run, table: pd.DataFrame) -> pd.DataFrame:
    if not run.config.predict.swap:
        raise RunError(
            f"--stack {run.name}: it scores one order of A and B only, so what is built on it "
            "would depend on the order. Fit it with --swap."
        )
    missing = set(range(run.config.data.n_splits)) - set(run.finished_folds())
    if missing:
        raise RunError(
            f"--stack {run.name}: fold {min(missing)} is not finished, so some rows have no "
            f"out-of-fold prediction. Go on with tiewise fit --run {run.name} --folds all --resume."
        )
    if not _same_rows(read_folds(run), table):
        raise RunError(
            f"--stack {run.name}: its folds hold other rows than the data given now, so it may "
            "have learned from rows that are to be held out. Fit both with the same --data, "
            "--limit, --n-splits, --fold-rule and --data-seed."
        )
    oof = read_oof(run).set_index("id").loc[table["id"]]
    return pd.DataFrame(table_logits(oof), index=table.index, columns=stack_columns(run.name))


def _same_rows(first: pd.DataFrame, second: pd.DataFrame) -> bool:
    one, two = (table[_SAME].reset_index(drop=True) for table in (first, second))
    return len(one) == len(two) and all(_same_values(one[name], two[name]) for name in _SAME)


def _same_values(first: Any, second: Any) -> bool:
    return bool((first.astype(str).to_numpy() == second.astype(str).to_numpy()).all())
