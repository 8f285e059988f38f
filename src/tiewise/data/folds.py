"""Prompt groups, and the assignment of rows to folds.

A prompt group is all rows with the same first user text, apart from case, white space,
invisible characters and the code points of accents, united with the rows of the same session. A
system text before it does not count. `fold_by_group` never
splits a group; folds by position and by id, those of the Kaggle notebook, do.
"""

from __future__ import annotations

import hashlib
import numbers
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from tiewise.data.first_text import first_texts
from tiewise.data.ids import id_key
from tiewise.errors import FoldError, PairsError

Folds = npt.NDArray[np.int64]
_MAX_NAMED = 5
_FIRST_ROUNDED = 2**53  # floats from here on are not every integer


def fold_by_position(n: int, n_splits: int = 5) -> Folds:
    """Hold out row i in fold i modulo `n_splits`, as the notebook's code does.

    Parameters
    ----------
    n, n_splits
        Number of rows, and number of folds (at least 2).

    Returns
    -------
    int64 array
        Shape (n,), in [0, n_splits).

    Examples
    --------
    >>> fold_by_position(7, n_splits=3)
    array([0, 1, 2, 0, 1, 2, 0])
    """
    _check_n_splits(n_splits)
    if n < 0:
        raise FoldError(f"n is {n}; expected at least 0")
    return np.arange(n, dtype=np.int64) % n_splits


def fold_by_id(ids: Iterable[Any], n_splits: int = 5) -> Folds:
    """Hold out the row of id i in fold i modulo `n_splits`, as the notebook's text describes.

    Parameters
    ----------
    ids
        Length n: integers, or text that holds an integer.
    n_splits
        Number of folds, at least 2.

    Returns
    -------
    int64 array
        Shape (n,), in [0, n_splits).

    Raises
    ------
    FoldError
        When an id is not an integer; the message names the first.

    Examples
    --------
    >>> fold_by_id([30192, 53567, 65089], n_splits=5)
    array([2, 2, 4])
    """
    _check_n_splits(n_splits)
    return np.array([_as_integer(value) % n_splits for value in ids], dtype=np.int64)


def derive_groups(pairs: pd.DataFrame) -> npt.NDArray[np.str_]:
    """Return the prompt group of each pair.

    Parameters
    ----------
    pairs
        n rows with a column ``prompt``, each a list of turns, and, optionally, ``system`` and
        ``session``, such as :func:`tiewise.read_pairs` returns.

    Returns
    -------
    str array
        Shape (n,). Rows share a group when their first user texts are equal after normalisation
        (case, white space, invisible characters, composed accents), when their sessions are equal,
        or when a chain of such rows connects them. The name is the smallest digest of the chain
        (16 hexadecimal digits), in any order of the rows. The first user text is found as in
        :func:`tiewise.data.first_text.first_user_text`; rows without one share a group.

    Raises
    ------
    PairsError
        When there is no column ``prompt``, or a prompt is no list, as in a csv that pandas read.

    Examples
    --------
    >>> prompts = [["Hi  there"], ["hi there", "And?"], ["Bye"]]
    >>> derive_groups(pd.DataFrame({"prompt": prompts}))
    array(['7a5c7b9e4ea42eb4', '7a5c7b9e4ea42eb4', '416d90fdfef12f9f'],
          dtype='<U16')
    >>> sessions = ["s1", "s2", "s2"]
    >>> len(set(derive_groups(pd.DataFrame({"prompt": prompts, "session": sessions}))))
    1
    """
    if "prompt" not in pairs:
        raise PairsError(f"the columns are {', '.join(map(str, pairs))}; expected prompt")
    for row, prompt in enumerate(pairs["prompt"]):
        if isinstance(prompt, str) or not isinstance(prompt, Collection):
            raise PairsError(
                f"row {row}: the prompt is {str(prompt)[:40]!r}; expected a list of turns. Read "
                "files and tables of texts with tiewise.read_pairs."
            )
    digests = [_digest(text) for text in first_texts(pairs)]
    if "session" not in pairs.columns:
        return np.array(digests, dtype="U16")
    return merge_groups(digests, pairs["session"])


def merge_groups(names: Sequence[str], keys: Iterable[Any]) -> npt.NDArray[np.str_]:
    """Merge groups that share a key, such as a session; a missing key merges nothing.

    `names` and `keys` have one item a row. The result, shape (n,), has for each row the smallest
    name among the groups that a chain of shared keys connects. Keys that spell one integer are
    equal, as in :func:`tiewise.data.ids.id_key`: files write the session 12 as 12, 12.0 or "12".

    >>> merge_groups(["a", "b", "c", "d"], ["s", "t", "s", None])
    array(['a', 'b', 'a', 'd'], dtype='<U1')
    """
    name_codes, unique_names = pd.factorize(np.asarray(names, dtype=str), sort=True)
    spelled = [None if _is_missing(key) else id_key(key) for key in keys]
    key_codes, unique_keys = pd.factorize(np.array(spelled, dtype=object))
    has_key = key_codes >= 0
    n_names, n_nodes = len(unique_names), len(unique_names) + len(unique_keys)
    edges = (np.ones(has_key.sum()), (name_codes[has_key], n_names + key_codes[has_key]))
    graph = coo_array(edges, shape=(n_nodes, n_nodes))
    component = connected_components(graph, directed=False)[1][:n_names]
    # Names are sorted, so the first of a component is its smallest.
    first_name = np.unique(component, return_index=True)[1]
    merged: npt.NDArray[np.str_] = unique_names[first_name[component[name_codes]]]
    return merged


def read_groups(groups: Any, n_rows: int | None = None) -> npt.NDArray[np.object_]:
    """Return the name of each row's group as text, shape (n,); different groups differ in name.

    Parameters
    ----------
    groups
        Length n: text, numbers, or tuples of these. Numbers are compared as numbers (1 and 1.0 are
        one group), and never with text (1 and "1" are two).
    n_rows
        The expected n, if it is known.

    Raises
    ------
    FoldError
        When `groups` is no list of n such values, or a row has no group; the message names the
        first such rows.

    Examples
    --------
    >>> read_groups(["p", "q"]).tolist(), read_groups([1, 2.0, 1.0]).tolist()
    (['p', 'q'], ['1', '2', '1'])
    >>> read_groups([1, "1", ("s", 2)]).tolist()
    ['1', "'1'", "('s', 2)"]
    """
    if isinstance(groups, str | bytes | pd.DataFrame):
        raise FoldError(f"groups is a {type(groups).__name__}; expected a list, one per row")
    values = groups.tolist() if hasattr(groups, "tolist") else list(groups)
    if n_rows is not None and len(values) != n_rows:
        raise FoldError(
            f"groups has {len(values)} entries for {n_rows} rows; expected one per row."
        )
    if not all(type(value) is str for value in values):
        missing = [row for row, value in enumerate(values) if _is_missing(value)]
        if missing:
            listed = ", ".join(map(str, missing[:_MAX_NAMED])) + ", …" * (len(missing) > _MAX_NAMED)
            raise FoldError(
                f"groups is missing in {len(missing)} rows, the first at row {listed}; every row "
                "needs a group."
            )
        named = [_as_group(value, row) for row, value in enumerate(values)]
        is_text = all(isinstance(value, str) for value in named)
        values = named if is_text else [repr(value) for value in named]
    names = np.empty(len(values), dtype=object)
    names[:] = values
    return names


def fold_by_group(
    groups: Iterable[Any] | npt.ArrayLike,
    labels: Iterable[Any],
    n_splits: int = 5,
    *,
    seed: int = 0,
) -> Folds:
    """Assign whole groups to folds of balanced size and class shares.

    Parameters
    ----------
    groups
        Length n: the group of each row, as for :func:`read_groups`.
    labels
        Length n: in {0, 1, 2}; missing labels are balanced as a class of their own.
    n_splits
        Number of folds, from 2 to the number of groups.
    seed
        Seed of the order of groups of equal size. The order of the rows has no effect.

    Returns
    -------
    int64 array
        Shape (n,), in [0, n_splits). No group is in two folds and no fold is empty.

    Raises
    ------
    FoldError
        When there are fewer groups than folds, groups and labels differ in length, a row has no
        group, or a label is no integer.

    Examples
    --------
    >>> fold_by_group(["p", "p", "q", "r"], [0, 1, 0, 1], n_splits=2)
    array([0, 0, 1, 1])
    """
    _check_n_splits(n_splits)
    names, group_codes = np.unique(read_groups(groups), return_inverse=True)
    labels = list(labels)
    try:
        label_array = pd.array(labels, dtype="Int64").to_numpy(dtype=np.int64, na_value=-1)
    except (TypeError, ValueError) as error:
        raise FoldError(
            f"labels are not 0 (A), 1 (B), 2 (tie) or missing: {error}. tiewise.label_from_winner "
            "reads a word."
        ) from error
    classes, label_codes = np.unique(label_array, return_inverse=True)
    if len(group_codes) != len(label_codes):
        raise FoldError(
            f"the number of labels is {len(label_codes)}; expected {len(group_codes)}, one per row"
        )
    if len(names) < n_splits:
        raise FoldError(
            f"the number of prompt groups is {len(names)}; expected at least {n_splits}, one for "
            "each fold. Lower n_splits (command line: --n-splits) or give more rows."
        )
    counts = np.zeros((len(names), len(classes) + 1))  # (n_groups, n_classes + all)
    np.add.at(counts, (group_codes, label_codes), 1)
    counts[:, -1] = counts[:, :-1].sum(axis=1)
    # Large groups first, so that small ones can balance them; equal sizes in the order of digests.
    digests = np.array([_digest(f"{seed}:{name}") for name in names])
    order = np.lexsort((digests, -counts[:, -1]))
    return _assign_stratified(counts, order, n_splits)[group_codes]


def split(folds: npt.ArrayLike, fold: int) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Return the rows to train on and the rows that one fold holds out.

    Parameters
    ----------
    folds
        Shape (n,): the fold in which each row is held out.
    fold
        The fold to hold out.

    Returns
    -------
    train_idx, eval_idx
        Positions, both ascending; each row is in exactly one of them.

    Raises
    ------
    FoldError
        When `fold` holds out no row or every row.

    Examples
    --------
    >>> split([0, 1, 0, 1], 1)
    (array([0, 2]), array([1, 3]))
    """
    folds = np.asarray(folds)
    is_held_out = folds == fold
    if not is_held_out.any():
        known = ", ".join(map(str, np.unique(folds).tolist()))
        raise FoldError(f"fold is {fold}; expected a fold with rows: {known or 'there is none'}")
    if is_held_out.all():
        raise FoldError(f"fold {fold} holds out every row; expected at least one to train on")
    return np.flatnonzero(~is_held_out), np.flatnonzero(is_held_out)


def _assign_stratified(
    counts: npt.NDArray[np.float64], order: npt.NDArray[np.intp], n_splits: int
) -> Folds:
    """Assign each group to the fold where it adds least to the sum of squared class counts."""
    weighted = counts / np.maximum(counts.sum(axis=0), 1)
    totals = np.zeros((n_splits, counts.shape[1]))
    fold_of_group = np.zeros(len(counts), dtype=np.int64)
    for group in order:
        fold = int((totals * weighted[group]).sum(axis=1).argmin())
        fold_of_group[group] = fold
        totals[fold] += counts[group]
    return fold_of_group


def _is_missing(value: Any) -> bool:
    return value is None or (pd.api.types.is_scalar(value) and bool(pd.isna(value)))


def _as_group(value: Any, row: int) -> Any:
    """Return text, a number or a tuple of these such that equal groups have one `repr`."""
    if isinstance(value, str):
        return str(value)
    if isinstance(value, tuple) and not any(map(_is_missing, value)):
        return tuple(_as_group(part, row) for part in value)
    if isinstance(value, numbers.Integral | np.bool_):
        return int(value)
    if isinstance(value, float | np.floating) and abs(float(value)) < _FIRST_ROUNDED:
        return int(value) if value == int(value) else float(value)
    raise FoldError(
        f"groups is {value!r:.40} at row {row}; expected text, an integer, a float below 2**53 "
        "(larger ones are rounded), or a tuple of these."
    )


def _digest(text: str) -> str:
    data = text.encode("utf-8", "surrogatepass")
    return hashlib.blake2b(data, digest_size=8).hexdigest()


def _as_integer(value: Any) -> int:
    with suppress(TypeError, ValueError, OverflowError):
        number = int(value)
        if isinstance(value, str) or number == value:
            return number
    raise FoldError(
        f"id is {value!r:.40}; expected an integer for folds by id. "
        "Assign folds by group or by position instead."
    )


def _check_n_splits(n_splits: int) -> None:
    if not isinstance(n_splits, int | np.integer) or n_splits < 2:
        raise FoldError(f"n_splits is {n_splits!r}; expected an integer, at least 2")
