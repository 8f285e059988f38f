"""Two orders of a pair, several folds of a run: how their probabilities become one row.

Everything here commutes with the swap of A and B to the last bit: sums of two numbers do not depend
on their order, and three outcomes are never summed in an order that the swap would change.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from tiewise.data.labels import swap_probs
from tiewise.errors import PairsError

Floats = npt.NDArray[np.float64]
OUTCOMES = ("a", "b", "tie")


def log_softmax(logits: npt.ArrayLike) -> Floats:
    """Return the logarithm of the probabilities, shape (n, 3), finite where the logits are.

    Examples
    --------
    >>> np.exp(log_softmax([[0.0, 0.0, -1e9]])).round(2)
    array([[0.5, 0.5, 0. ]])
    """
    shifted = np.asarray(logits, dtype=np.float64)
    shifted = shifted - shifted.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))


def tabulate_one_order(logits: Floats) -> pd.DataFrame:
    """Return the columns ``prob_*`` and ``logit_*`` of pairs scored in the order given.

    Parameters
    ----------
    logits
        Shape (n, 3).
    """
    probs = np.exp(log_softmax(logits))
    return pd.concat([_columns("prob", probs), _columns("logit", logits)], axis=1)


def tabulate_both_orders(given: Floats, swapped: Floats) -> pd.DataFrame:
    """Average two orders of the same pairs.

    Parameters
    ----------
    given
        Logits of the pairs as they are, shape (n, 3).
    swapped
        Logits of the swapped pairs, in their own A and B, shape (n, 3).

    Returns
    -------
    DataFrame
        n rows: ``prob_*`` the mean of both orders, ``logit_*`` its logarithm, ``prob_*_given``,
        and ``prob_*_swapped`` in the A and B of the pairs as they are.

    Examples
    --------
    >>> table = tabulate_both_orders(np.log([[0.5, 0.25, 0.25]]), np.log([[0.5, 0.25, 0.25]]))
    >>> table.filter(regex="prob_(a|b|tie)$").round(3).values.tolist()
    [[0.375, 0.375, 0.25]]
    """
    log_given, log_swapped = log_softmax(given), swap_probs(log_softmax(swapped))
    probs_given, probs_swapped = np.exp(log_given), np.exp(log_swapped)
    return pd.concat(
        [
            _columns("prob", (probs_given + probs_swapped) / 2),
            _columns("logit", np.logaddexp(log_given, log_swapped) - np.log(2)),
            _columns("prob", probs_given, "_given"),
            _columns("prob", probs_swapped, "_swapped"),
        ],
        axis=1,
    )


def average_folds(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Average the predictions of several models for the same pairs.

    Parameters
    ----------
    tables
        At least one, as :func:`tiewise.models.scoring.predict_pairs` returns them, of the same
        pairs in the same order.

    Returns
    -------
    DataFrame
        Of one table, the table itself. Of several, probabilities are means, ``logit_*`` is the
        logarithm of the mean, and the other columns are the first table's.

    Raises
    ------
    PairsError
        When the tables are of other pairs, or there is none.
    """
    if not tables:
        raise PairsError("There is no prediction to average: the run has no finished fold.")
    first = tables[0]
    if any(not table["id"].equals(first["id"]) for table in tables):
        raise PairsError("The predictions to average are of different pairs.")
    if len(tables) == 1:
        return first
    averaged = first.copy()
    for name in first.columns[first.columns.str.startswith("prob_")]:
        averaged[name] = np.mean([table[name].to_numpy() for table in tables], axis=0)
    log_probs = [log_softmax(table[[f"logit_{name}" for name in OUTCOMES]]) for table in tables]
    mean = np.logaddexp.reduce(log_probs, axis=0) - np.log(len(tables))
    averaged[[f"logit_{name}" for name in OUTCOMES]] = mean
    return averaged


def _columns(name: str, values: Floats, suffix: str = "") -> pd.DataFrame:
    return pd.DataFrame(values, columns=[f"{name}_{outcome}{suffix}" for outcome in OUTCOMES])
