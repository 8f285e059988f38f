"""Labels of pairs: from words and one-hot columns, and with A and B swapped.

The order is always A, B, tie = 0, 1, 2.
"""

from __future__ import annotations

import re
from enum import IntEnum
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from tiewise.errors import LabelError

_Number = TypeVar("_Number", bound=np.generic)
_MAX_NAMED = 5


class Winner(IntEnum):
    """Outcome of a pair; the values are the labels."""

    A = 0
    B = 1
    TIE = 2


ONE_HOT_COLUMNS = ("winner_model_a", "winner_model_b", "winner_tie")
PROB_COLUMNS = ["prob_a", "prob_b", "prob_tie"]
LOGIT_COLUMNS = ["logit_a", "logit_b", "logit_tie"]
WINNER_WORDS = {
    "model_a": Winner.A,
    "model_b": Winner.B,
    "tie": Winner.TIE,
    "tie (bothbad)": Winner.TIE,
    "both_bad": Winner.TIE,
    "bothbad": Winner.TIE,
    "tie (inconsistent)": Winner.TIE,
    "draw": Winner.TIE,
    "neither": Winner.TIE,
}
"""Label of each known word for a winner. "Both bad" counts as a tie, and so does the word of
MT-bench's split gpt4_pair for a judge that names another winner when A and B are swapped."""

WORD_OF_WINNER = {Winner.A: "model_a", Winner.B: "model_b", Winner.TIE: "tie"}
"""Word for a winner of which only the label is known."""

_SWAPPED_WINNERS = (Winner.B, Winner.A, Winner.TIE)
# The prompts of LLM judges ask for [[A]], [[B]] or [[C]], where C is a tie.
_match_letter = re.compile(
    r"(?P<open>\[*)"
    r"(?:(?P<tie>c)|(?:(?:model|response|assistant|answer|output)[ _-]*)?(?P<side>[ab]))"
    r"(?P<close>\]*)"
).fullmatch


def derive_labels(
    winner_a: npt.ArrayLike, winner_b: npt.ArrayLike, winner_tie: npt.ArrayLike
) -> npt.NDArray[np.int8]:
    """Convert three one-hot columns to labels.

    Parameters
    ----------
    winner_a, winner_b, winner_tie
        Shape (n,). Each value is 0 or 1: an integer, a float or a boolean.

    Returns
    -------
    int8 array
        Shape (n,), in {0, 1, 2}: the index of the column that holds the 1.

    Raises
    ------
    LabelError
        When a row is not one 1 and two 0 (the message names the first such rows), or the columns
        differ in length.

    Examples
    --------
    >>> derive_labels([1, 0, 0], [0, 1, 0], [0, 0, 1])
    array([0, 1, 2], dtype=int8)
    """
    columns = [_as_floats(column) for column in (winner_a, winner_b, winner_tie)]
    if len({len(column) for column in columns}) > 1:
        lengths = ", ".join(str(len(column)) for column in columns)
        raise LabelError(f"the lengths of the winner columns are {lengths}; expected equal lengths")
    one_hot = np.stack(columns, axis=1)  # (n, 3)
    is_valid = ((one_hot == 0) | (one_hot == 1)).all(axis=1) & (one_hot.sum(axis=1) == 1)
    if not is_valid.all():
        raise _not_one_hot(one_hot, np.flatnonzero(~is_valid))
    labels: npt.NDArray[np.intp] = np.argmax(one_hot, axis=1)
    return labels.astype(np.int8)


def label_from_winner(winner: str) -> Winner:
    """Return the label of a word for a winner.

    Parameters
    ----------
    winner
        One of ``model_a, model_b, tie, tie (bothbad), both_bad, bothbad, tie (inconsistent), draw,
        neither``, or ``A``, ``B``, ``C`` (a tie), also as ``[[A]]`` or ``Response A``. Case, white
        space at the ends, and a space or hyphen in place of ``_`` make no difference.

    Returns
    -------
    Winner
        The label; all but A and B are ties.

    Raises
    ------
    LabelError
        When the word is unknown; the message lists the known ones.

    Examples
    --------
    >>> label_from_winner("tie (bothbad)")
    <Winner.TIE: 2>
    """
    return WINNER_WORDS[standard_word(winner)]


def standard_word(winner: str) -> str:
    """Return the spelling in `WINNER_WORDS` of a word for a winner; LabelError if it is unknown.

    >>> standard_word("[[A]]"), standard_word("Both bad")
    ('model_a', 'both_bad')
    """
    text = winner.strip().lower() if isinstance(winner, str) else ""
    for word in (text, re.sub("[ _-]+", "_", text)):
        if word in WINNER_WORDS:
            return word
    letter = _match_letter(text)
    if letter is not None and len(letter["open"]) == len(letter["close"]):
        return "tie" if letter["tie"] else f"model_{letter['side']}"
    words = ", ".join(("A", "B", "C (a tie)", *WINNER_WORDS))
    raise LabelError(
        f"winner is {winner!r:.40}; expected one of {words}; letters also as [[A]] or Response A"
    )


def swap_labels(labels: npt.NDArray[_Number]) -> npt.NDArray[_Number]:
    """Return the labels of the same pairs with A and B swapped.

    Parameters
    ----------
    labels
        Integers in {0, 1, 2}, any shape.

    Returns
    -------
    array
        Same shape and dtype; 0 and 1 are exchanged, 2 is kept.

    Raises
    ------
    LabelError
        When a label is not 0, 1 or 2.

    Examples
    --------
    >>> swap_labels(np.array([0, 1, 2]))
    array([1, 0, 2])
    """
    labels = np.asarray(labels)
    is_label = np.isin(labels, _SWAPPED_WINNERS)
    if not is_label.all():
        raise LabelError(f"label is {labels[~is_label][0].item()!r}; expected 0, 1 or 2")
    return np.array(_SWAPPED_WINNERS, dtype=labels.dtype)[labels.astype(np.intp)]


def swap_probs(probs: npt.NDArray[_Number]) -> npt.NDArray[_Number]:
    """Return the probabilities of the same pairs with A and B swapped.

    Parameters
    ----------
    probs
        Shape (..., 3): A, B, tie. Logits are accepted too. The columns of a table are found by
        name.

    Returns
    -------
    array
        Same shape and dtype, columns in the order 1, 0, 2.

    Raises
    ------
    LabelError
        When the last axis does not have length 3, or a table has other columns.

    Examples
    --------
    >>> swap_probs(np.array([[0.5, 0.2, 0.3]]))
    array([[0.2, 0.5, 0.3]])
    """
    # Imported here, because that module needs the names of this one.
    from tiewise.data.class_columns import PROBS_OR_LOGITS, read_columns

    probs = read_columns(probs, "probs", known=PROBS_OR_LOGITS, error=LabelError)
    if probs.ndim == 0 or probs.shape[-1] != len(Winner):
        raise LabelError(f"the shape of probs is {probs.shape}; expected (..., 3): A, B, tie")
    return probs[..., list(_SWAPPED_WINNERS)]


def without_ties(probs: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Return the probabilities of A, B, tie, (n, 3), of pairs that cannot be a tie.

    They are P(A | not a tie), P(B | not a tie) and 0; 1/2 each where only a tie had a probability.

    >>> without_ties([[0.6, 0.2, 0.2], [0.0, 0.0, 1.0]]).round(2).tolist()
    [[0.75, 0.25, 0.0], [0.5, 0.5, 0.0]]
    """
    given = np.array(probs, dtype=np.float64)
    decided = given[:, :1] + given[:, 1:2]
    shares = np.where(decided == 0, 0.5, given[:, :2] / np.where(decided == 0, 1.0, decided))
    return np.hstack([shares, 0.0 * given[:, 2:]])


def _as_floats(column: npt.ArrayLike) -> npt.NDArray[np.float64]:
    try:
        return np.asarray(column, dtype=np.float64).reshape(-1)
    except (TypeError, ValueError) as error:
        raise LabelError(f"a winner column is not numeric; expected 0 and 1: {error}") from None


def _not_one_hot(one_hot: npt.NDArray[np.float64], rows: npt.NDArray[np.intp]) -> LabelError:
    shown = [
        f"{', '.join(f'{value:g}' for value in one_hot[row])} in row {row}"
        for row in rows[:_MAX_NAMED]
    ]
    more = [f"and {len(rows) - _MAX_NAMED} more rows"] * (len(rows) > _MAX_NAMED)
    return LabelError(
        f"winner_a, winner_b, winner_tie are {'; '.join(shown + more)}; exactly one must be 1"
    )
