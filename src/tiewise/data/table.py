"""What can be said of a pairs table without a model: the swap of A and B, strange rows, sizes.

The table itself is described in :mod:`tiewise.data.schema`.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from tiewise.data.labels import WINNER_WORDS, swap_labels, swap_winner
from tiewise.data.parse import count_characters
from tiewise.data.schema import TEXT_COLUMNS

_EXCHANGED = {
    f"{name}_{side}": f"{name}_{other}"
    for name in ("response", "model", "prob", "bayes")
    for side, other in ("ab", "ba")
}


def swap_pairs(pairs: pd.DataFrame) -> pd.DataFrame:
    """Exchange A and B in every row.

    Parameters
    ----------
    pairs
        A pairs table.

    Returns
    -------
    DataFrame
        The same rows with responses, models, soft labels, label and winner exchanged, and the true
        probabilities of simulated rows. Swapping twice gives the table back.

    Examples
    --------
    >>> from tiewise.data.schema import build_pairs
    >>> texts = {"prompt": [["2+2?"]], "response_a": [["4"]], "response_b": [["5"]]}
    >>> pairs = build_pairs({"id": [7], **texts, "winner": ["model_a"]})
    >>> swap_pairs(pairs)[["response_a", "response_b", "label", "winner"]]
      response_a response_b  label   winner
    0        [5]        [4]      1  model_b
    """
    swapped = pairs.rename(columns=_EXCHANGED)[list(pairs.columns)]
    swapped["label"] = _swap_known(pairs["label"])
    words = {word: swap_winner(word) for word in WINNER_WORDS}
    swapped["winner"] = pairs["winner"].map(words).astype(pairs["winner"].dtype)
    return swapped


def is_degenerate(pairs: pd.DataFrame) -> npt.NDArray[np.bool_]:
    """Tell which rows leave nothing to prefer.

    Parameters
    ----------
    pairs
        A pairs table of n rows.

    Returns
    -------
    bool array
        Shape (n,): True where both responses are blank or missing, or both are the same. A missing
        turn counts as an empty one.

    Examples
    --------
    >>> texts = {"response_a": [["4"], ["4"], [None]], "response_b": [["5"], ["4"], [" "]]}
    >>> is_degenerate(pd.DataFrame(texts)).tolist()
    [False, True, True]
    """
    responses = zip(pairs["response_a"], pairs["response_b"], strict=True)
    return np.array([_same_or_blank(a, b) for a, b in responses], dtype=bool)


def row_digests(pairs: pd.DataFrame) -> npt.NDArray[np.str_]:
    """Give each row's texts a name that nothing else has.

    Parameters
    ----------
    pairs
        A pairs table of n rows; only the three text columns are read.

    Returns
    -------
    str array
        Shape (n,): 32 hex digits. Equal exactly where prompt, response A and response B are, turn
        by turn, a missing turn being told apart from an empty one.

    Examples
    --------
    >>> texts = {"prompt": [["2+2?"]], "response_a": [["4"]], "response_b": [["5"]]}
    >>> row_digests(pd.DataFrame(texts))
    array(['eb9c7896268951b13859591df0ccbb8b'], dtype='<U32')
    """
    texts = zip(*(pairs[name] for name in TEXT_COLUMNS), strict=True)
    return np.array([_digest(row) for row in texts], dtype="U32")


def pair_digests(pairs: pd.DataFrame) -> npt.NDArray[np.str_]:
    """Give each row's texts a name that its swap has too, and nothing else.

    Returns
    -------
    str array
        Shape (n,): the smaller of the row's digest and its swap's (:func:`row_digests`).

    Examples
    --------
    >>> texts = {"prompt": [["2+2?"]] * 2, "response_a": [["4"], ["5"]]}
    >>> pairs = pd.DataFrame(texts | {"response_b": [["5"], ["4"]]})
    >>> len(set(pair_digests(pairs))), len(set(row_digests(pairs)))
    (1, 2)
    """
    exchanged = {"response_a": "response_b", "response_b": "response_a"}
    swapped = pairs[list(TEXT_COLUMNS)].rename(columns=exchanged)
    given, other = row_digests(pairs), row_digests(swapped)
    return np.where(given < other, given, other)


def text_lengths(pairs: pd.DataFrame) -> pd.DataFrame:
    """Count the characters of each field.

    Parameters
    ----------
    pairs
        A pairs table of n rows; only the three text columns are read.

    Returns
    -------
    DataFrame
        n rows, the same index: ``n_chars_prompt``, ``n_chars_a``, ``n_chars_b``, each int64, the
        code points of all turns of the field. A missing turn has none.

    Examples
    --------
    >>> texts = {"prompt": [["2+2?", None]], "response_a": [["4"]], "response_b": [["5", "ok"]]}
    >>> text_lengths(pd.DataFrame(texts))
       n_chars_prompt  n_chars_a  n_chars_b
    0               4          1          3
    """
    lengths = {
        f"n_chars_{name.removeprefix('response_')}": [
            count_characters(turns) for turns in pairs[name]
        ]
        for name in TEXT_COLUMNS
    }
    return pd.DataFrame(lengths, index=pairs.index, dtype=np.int64)


def _swap_known(labels: pd.Series) -> pd.Series:
    swapped, is_known = labels.copy(), labels.notna()
    swapped[is_known] = swap_labels(labels[is_known].to_numpy(dtype=np.int8))
    return swapped


def _same_or_blank(response_a: list[str | None], response_b: list[str | None]) -> bool:
    texts_a, texts_b = ([turn or "" for turn in turns] for turns in (response_a, response_b))
    return texts_a == texts_b or not any(turn.strip() for turn in texts_a + texts_b)


def _digest(row: tuple[Any, ...]) -> str:
    return hashlib.blake2b(json.dumps(row).encode(), digest_size=16).hexdigest()
