"""Who won: winners as words, as one-hot columns, as labels, and under the swap of A and B.

The order is A, B, tie = 0, 1, 2 everywhere.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from tiewise.errors import LabelError

_Number = TypeVar("_Number", bound=np.generic)
_SHOWN = 5


class Winner(IntEnum):
    """The three ways a comparison can end; the values are the labels."""

    A = 0
    B = 1
    TIE = 2


PROB_COLUMNS = ["prob_a", "prob_b", "prob_tie"]
"""Probabilities of the labels, in their order, as columns of every table that holds them."""

LOGIT_COLUMNS = ["logit_a", "logit_b", "logit_tie"]
"""The same for logits, or for logarithms of probabilities."""

WINNER_WORDS = {
    "model_a": Winner.A,
    "model_b": Winner.B,
    "tie": Winner.TIE,
    "tie (bothbad)": Winner.TIE,
    "both_bad": Winner.TIE,
    "bothbad": Winner.TIE,
}
"""Every known word for a winner. The words for «both bad» are ties by decision, not by accident."""

WORD_OF_WINNER = {Winner.A: "model_a", Winner.B: "model_b", Winner.TIE: "tie"}
"""The word that stands for a winner when only its label is known."""

_SWAPPED_WINNERS = (Winner.B, Winner.A, Winner.TIE)
_SWAPPED_WORDS = {"model_a": "model_b", "model_b": "model_a"}


def derive_labels(
    winner_a: npt.ArrayLike, winner_b: npt.ArrayLike, winner_tie: npt.ArrayLike
) -> npt.NDArray[np.int8]:
    """Turn three one-hot columns into labels.

    Parameters
    ----------
    winner_a, winner_b, winner_tie
        Shape (n,). Each value is 0 or 1, as an integer, a float or a boolean.

    Returns
    -------
    int8 array
        Shape (n,), in {0, 1, 2}: the column that holds the 1.

    Raises
    ------
    LabelError
        Where a row holds anything but one 1 and two 0; the message names the first such rows.

    Examples
    --------
    >>> derive_labels([1, 0, 0], [0, 1, 0], [0, 0, 1])
    array([0, 1, 2], dtype=int8)
    """
    columns = [_as_floats(column) for column in (winner_a, winner_b, winner_tie)]
    if len({len(column) for column in columns}) > 1:
        lengths = ", ".join(str(len(column)) for column in columns)
        raise LabelError(f"the three winner columns must be equally long, found {lengths} rows")
    one_hot = np.stack(columns, axis=1)  # (n, 3)
    is_valid = ((one_hot == 0) | (one_hot == 1)).all(axis=1) & (one_hot.sum(axis=1) == 1)
    if not is_valid.all():
        raise _wrong_rows(one_hot, is_valid)
    labels: npt.NDArray[np.intp] = np.argmax(one_hot, axis=1)
    return labels.astype(np.int8)


def label_from_winner(winner: str) -> Winner:
    """Turn a winner's word into its label.

    Parameters
    ----------
    winner
        One of ``model_a, model_b, tie, tie (bothbad), both_bad, bothbad``, spelled just so.

    Returns
    -------
    Winner
        Both bad is a tie.

    Raises
    ------
    LabelError
        For any other word; the message lists the known ones.

    Examples
    --------
    >>> label_from_winner("tie (bothbad)")
    <Winner.TIE: 2>
    """
    if isinstance(winner, str) and winner in WINNER_WORDS:
        return WINNER_WORDS[winner]
    known = ", ".join(WINNER_WORDS)
    raise LabelError(f"unknown winner {_shown(winner)}; the known words are {known}")


def swap_labels(labels: npt.NDArray[_Number]) -> npt.NDArray[_Number]:
    """Give the labels of the same comparisons with A and B exchanged.

    Parameters
    ----------
    labels
        Integers in {0, 1, 2}, any shape.

    Returns
    -------
    array
        Same shape and dtype; 0 and 1 exchanged, 2 kept.

    Raises
    ------
    LabelError
        Where a label is none of 0, 1, 2.

    Examples
    --------
    >>> swap_labels(np.array([0, 1, 2]))
    array([1, 0, 2])
    """
    labels = np.asarray(labels)
    is_label = np.isin(labels, _SWAPPED_WINNERS)
    if not is_label.all():
        raise LabelError(f"labels are 0, 1 or 2, found {_shown(labels[~is_label][0].item())}")
    return np.array(_SWAPPED_WINNERS, dtype=labels.dtype)[labels.astype(np.intp)]


def swap_probs(probs: npt.NDArray[_Number]) -> npt.NDArray[_Number]:
    """Give the probabilities of the same comparisons with A and B exchanged.

    Parameters
    ----------
    probs
        Shape (..., 3): A, B, tie. Logits will do as well.

    Returns
    -------
    array
        Same shape and dtype, columns in the order 1, 0, 2.

    Raises
    ------
    LabelError
        Where the last axis is not of length 3.

    Examples
    --------
    >>> swap_probs(np.array([[0.5, 0.2, 0.3]]))
    array([[0.2, 0.5, 0.3]])
    """
    probs = np.asarray(probs)
    if probs.ndim == 0 or probs.shape[-1] != len(Winner):
        raise LabelError(f"the last axis must be A, B, tie, found the shape {probs.shape}")
    return probs[..., list(_SWAPPED_WINNERS)]


def swap_winner(winner: str) -> str:
    """Give the word for the winner of the same comparison with A and B exchanged.

    Parameters
    ----------
    winner
        A known word; see :func:`label_from_winner`.

    Returns
    -------
    str
        ``model_a`` and ``model_b`` exchanged, words for ties kept as they are spelled.

    Examples
    --------
    >>> [swap_winner(word) for word in ("model_a", "both_bad")]
    ['model_b', 'both_bad']
    """
    label_from_winner(winner)
    return _SWAPPED_WORDS.get(winner, winner)


def _as_floats(column: npt.ArrayLike) -> npt.NDArray[np.float64]:
    try:
        return np.asarray(column, dtype=np.float64).reshape(-1)
    except (TypeError, ValueError) as error:
        raise LabelError(f"winner columns hold 0 and 1 as numbers: {error}") from None


def _wrong_rows(one_hot: npt.NDArray[np.float64], is_valid: npt.NDArray[np.bool_]) -> LabelError:
    rows = np.flatnonzero(~is_valid)
    shown = "; ".join(f"row {row}: {_listed(one_hot[row])}" for row in rows[:_SHOWN].tolist())
    more = f" and {len(rows) - _SHOWN} more" if len(rows) > _SHOWN else ""
    return LabelError(
        f"winner_model_a, winner_model_b, winner_tie must be one 1 and two 0; {shown}{more}"
    )


def _listed(values: npt.NDArray[np.float64]) -> str:
    return ", ".join(f"{value:g}" for value in values)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:40]}…"
