"""Two orders of a pair, several folds of a run: how their probabilities become one row.

Everything here commutes with the swap of A and B to the last bit: sums of two numbers do not depend
on their order, and three outcomes are never summed in an order that the swap would change.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from tiewise.errors import ConfigError, PairsError
from tiewise.pairs.labels import PROB_COLUMNS, swap_probs

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
        Logits of the pairs as they are, shape (n, 3); NaN in rows that were not scored.
    swapped
        Logits of the swapped pairs, in their own A and B, shape (n, 3); NaN likewise. Each pair
        was scored in at least one order.

    Returns
    -------
    DataFrame
        n rows: ``prob_*`` the mean of both orders (or the one there is), ``logit_*`` its logarithm,
        ``prob_*_given``, and ``prob_*_swapped`` in the A and B of the pairs as they are.

    Examples
    --------
    >>> table = tabulate_both_orders(np.log([[0.5, 0.25, 0.25]]), np.log([[0.5, 0.25, 0.25]]))
    >>> table.filter(regex="prob_(a|b|tie)$").round(3).values.tolist()
    [[0.375, 0.375, 0.25]]
    """
    log_given, log_swapped = log_softmax(given), swap_probs(log_softmax(swapped))
    has_both = ~np.isnan(log_given + log_swapped)
    one_order = np.where(np.isnan(log_given), log_swapped, log_given)
    with np.errstate(invalid="ignore"):  # NaN marks an order that was not scored
        both = np.logaddexp(log_given, log_swapped) - np.log(2)
    averaged = np.where(has_both, both, one_order)
    probs = np.where(has_both, (np.exp(log_given) + np.exp(log_swapped)) / 2, np.exp(one_order))
    return pd.concat(
        [
            _columns("prob", probs),
            _columns("logit", averaged),
            _columns("prob", np.exp(log_given), "_given"),
            _columns("prob", np.exp(log_swapped), "_swapped"),
        ],
        axis=1,
    )


def is_close(logits: Floats, share: float) -> npt.NDArray[np.bool_]:
    """Tell where the second largest probability is at least `share` of the largest, shape (n,).

    Examples
    --------
    >>> is_close(np.log([[0.5, 0.4, 0.1], [0.6, 0.3, 0.1]]), 0.75).tolist()
    [True, False]
    """
    ordered = np.sort(logits, axis=1)
    return np.asarray(np.exp(ordered[:, 1] - ordered[:, 2]) >= share)


def check_share(share: float, flag: str = "--swap-when") -> None:
    """Refuse what is no share of the largest probability.

    Raises
    ------
    ConfigError
        When `share`, the value of `flag`, is not in [0, 1].
    """
    if not 0 <= share <= 1:
        raise ConfigError(f"{flag} is {share}; it is a share, from 0 (all) to 1 (ties).")


def average_folds(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Average the predictions of several models for the same pairs.

    Parameters
    ----------
    tables
        At least one, as :func:`tiewise.predicting.scoring.predict_pairs` returns them, of the same
        pairs in the same order.

    Returns
    -------
    DataFrame
        Of one table, the table itself. Of several, probabilities are means, ``logit_*`` is the
        logarithm of the mean, and what is known of the rows themselves is the first table's. What
        each order gave is the mean over the models that scored both, where any did; ``n_orders`` is
        how many orders were scored, the mean over the models.

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
    for name in PROB_COLUMNS:
        averaged[name] = np.mean([table[name].to_numpy() for table in tables], axis=0)
    _average_orders(averaged, tables)
    log_probs = [log_softmax(table[[f"logit_{name}" for name in OUTCOMES]]) for table in tables]
    mean = np.logaddexp.reduce(log_probs, axis=0) - np.log(len(tables))
    averaged[[f"logit_{name}" for name in OUTCOMES]] = mean
    return averaged


def _average_orders(averaged: pd.DataFrame, tables: Sequence[pd.DataFrame]) -> None:
    """Average what each order gave, over the models that scored both where any did."""
    names = [f"{name}_{order}" for order in ("given", "swapped") for name in PROB_COLUMNS]
    if not set(names) <= set(averaged):
        return
    values = np.stack([table[names].to_numpy(np.float64) for table in tables])  # (k, n, 6)
    has_both = ~np.isnan(values).any(axis=2)
    counts = np.where(has_both.any(axis=0), has_both, True)[:, :, None]
    averaged[names] = np.where(counts, values, 0).sum(axis=0) / counts.sum(axis=0)
    averaged["n_orders"] = 1 + has_both.mean(axis=0)


def _columns(name: str, values: Floats, suffix: str = "") -> pd.DataFrame:
    return pd.DataFrame(values, columns=[f"{name}_{outcome}{suffix}" for outcome in OUTCOMES])
