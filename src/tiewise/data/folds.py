"""Which rows belong together, and which row is held out in which fold.

A group is a conversation's origin: the digest of the first prompt turn, its case and spaces folded,
united with the session where one is known. Rows of one group are never on both sides of a split.
Folds by position and by id exist for comparison with the notebook; both let groups leak.

Folds by group depend on the rows' groups and labels and on the seed alone, not on the rows' order.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from tiewise.errors import FoldError

Folds = npt.NDArray[np.int64]
_DIGEST_BYTES = 8


def fold_by_position(n: int, n_splits: int = 5) -> Folds:
    """Hold out row i in fold i modulo `n_splits`, as the notebook's code does.

    Parameters
    ----------
    n
        The number of rows.
    n_splits
        The number of folds, at least 2.

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
        raise FoldError(f"the number of rows cannot be {n}")
    return np.arange(n, dtype=np.int64) % n_splits


def fold_by_id(ids: Iterable[Any], n_splits: int = 5) -> Folds:
    """Hold out the row of id i in fold i modulo `n_splits`, as the notebook's prose says.

    Parameters
    ----------
    ids
        Length n: integers, or text that spells integers.
    n_splits
        The number of folds, at least 2.

    Returns
    -------
    int64 array
        Shape (n,), in [0, n_splits).

    Raises
    ------
    FoldError
        Where an id is not an integer; the message names the first.

    Examples
    --------
    >>> fold_by_id([30192, 53567, 65089], n_splits=5)
    array([2, 2, 4])
    """
    _check_n_splits(n_splits)
    return np.array([_as_integer(value) % n_splits for value in ids], dtype=np.int64)


def derive_groups(pairs: pd.DataFrame) -> npt.NDArray[np.str_]:
    """Name the conversation that each pair comes from.

    Parameters
    ----------
    pairs
        A pairs table of n rows. Only ``prompt`` is read, and ``session`` where that column exists.

    Returns
    -------
    str array
        Shape (n,). Rows share a name when their first prompt turns are equal but for case and
        spaces, or their sessions are, or a chain of such rows joins them. The name is the
        smallest digest in the chain (16 hex digits), whatever the order of the rows. A prompt
        without a first turn counts as empty.

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
    digests = [_digest(fold_first_turn(prompt)) for prompt in pairs["prompt"]]
    if "session" not in pairs.columns:
        return np.array(digests, dtype="U16")
    return merge_groups(digests, pairs["session"])


def fold_first_turn(prompt: Sequence[str | None]) -> str:
    """Return a prompt's first turn with its case and spaces folded; empty where it is missing.

    Examples
    --------
    >>> fold_first_turn(["Hi  THERE ", "And?"])
    'hi there'
    """
    first_turn = prompt[0] if len(prompt) else None
    return " ".join((first_turn or "").casefold().split())


def merge_groups(names: Sequence[str], keys: Iterable[Any]) -> npt.NDArray[np.str_]:
    """Join groups that share a key.

    Parameters
    ----------
    names
        Length n: the groups so far.
    keys
        Length n: what else makes rows belong together, such as sessions; missing keys join nothing.

    Returns
    -------
    str array
        Shape (n,): for each row the smallest name among the groups that a chain of shared keys
        connects.

    Examples
    --------
    >>> merge_groups(["a", "b", "c", "d"], ["s", "t", "s", None])
    array(['a', 'b', 'a', 'd'], dtype='<U1')
    """
    name_codes, unique_names = pd.factorize(np.asarray(names, dtype=str), sort=True)
    key_codes, unique_keys = pd.factorize(np.fromiter(keys, dtype=object))
    has_key = key_codes >= 0
    n_names, n_nodes = len(unique_names), len(unique_names) + len(unique_keys)
    edges = (np.ones(has_key.sum()), (name_codes[has_key], n_names + key_codes[has_key]))
    graph = coo_array(edges, shape=(n_nodes, n_nodes))
    component = connected_components(graph, directed=False)[1][:n_names]
    # Names are sorted, so the first of a component is its smallest.
    first_name = np.unique(component, return_index=True)[1]
    united: npt.NDArray[np.str_] = unique_names[first_name[component[name_codes]]]
    return united


def fold_by_group(
    groups: Iterable[str], labels: Iterable[Any], n_splits: int = 5, *, seed: int = 0
) -> Folds:
    """Hold out whole groups, the classes balanced over the folds.

    Parameters
    ----------
    groups
        Length n: the group of each row.
    labels
        Length n: in {0, 1, 2}; missing labels are balanced like a class of their own.
    n_splits
        The number of folds, from 2 to the number of groups.
    seed
        Which of the many balanced foldings. Rows in another order get the same folds.

    Returns
    -------
    int64 array
        Shape (n,), in [0, n_splits). No group is in two folds and no fold is empty.

    Raises
    ------
    FoldError
        Where there are fewer groups than folds, or groups and labels differ in length.

    Examples
    --------
    >>> fold_by_group(["p", "p", "q", "r"], [0, 1, 0, 1], n_splits=2)
    array([0, 0, 1, 1])
    """
    _check_n_splits(n_splits)
    names, group_codes = np.unique(np.array(list(groups), dtype=str), return_inverse=True)
    label_array = pd.array(list(labels), dtype="Int64").to_numpy(dtype=np.int64, na_value=-1)
    classes, label_codes = np.unique(label_array, return_inverse=True)
    if len(group_codes) != len(label_codes):
        raise FoldError(f"{len(group_codes)} groups but {len(label_codes)} labels")
    if len(names) < n_splits:
        raise FoldError(
            f"{len(names)} groups cannot fill {n_splits} folds; "
            "ask for fewer folds or read more rows"
        )
    counts = np.zeros((len(names), len(classes) + 1))  # (n_groups, n_classes + all)
    np.add.at(counts, (group_codes, label_codes), 1)
    counts[:, -1] = counts[:, :-1].sum(axis=1)
    return _deal(counts, _order_of(names, counts[:, -1], seed), n_splits)[group_codes]


def split(folds: npt.ArrayLike, fold: int) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Give the rows to train on and the rows held out in one fold.

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
        Where no row is held out in `fold`, or every row is.

    Examples
    --------
    >>> split([0, 1, 0, 1], 1)
    (array([0, 2]), array([1, 3]))
    """
    folds = np.asarray(folds)
    is_held_out = folds == fold
    if not is_held_out.any():
        known = ", ".join(map(str, np.unique(folds).tolist()))
        raise FoldError(f"fold {fold} holds out no row; the folds are {known or 'none'}")
    if is_held_out.all():
        raise FoldError(f"fold {fold} holds out every row, which leaves none to train on")
    return np.flatnonzero(~is_held_out), np.flatnonzero(is_held_out)


def _deal(counts: npt.NDArray[np.float64], order: npt.NDArray[np.intp], n_splits: int) -> Folds:
    """Give each group to the fold where it adds least to the sum of squared class counts."""
    weighted = counts / np.maximum(counts.sum(axis=0), 1)
    totals = np.zeros((n_splits, counts.shape[1]))
    fold_of_group = np.zeros(len(counts), dtype=np.int64)
    for group in order:
        fold = int((totals * weighted[group]).sum(axis=1).argmin())
        fold_of_group[group] = fold
        totals[fold] += counts[group]
    return fold_of_group


def _order_of(
    names: npt.NDArray[np.str_], sizes: npt.NDArray[np.float64], seed: int
) -> npt.NDArray[np.intp]:
    """Put large groups first, while there is room to make up for them; equal sizes by digest."""
    digests = np.array([_digest(f"{seed}:{name}") for name in names])
    return np.lexsort((digests, -sizes))


def _digest(text: str) -> str:
    data = text.encode("utf-8", "surrogatepass")
    return hashlib.blake2b(data, digest_size=_DIGEST_BYTES).hexdigest()


def _as_integer(value: Any) -> int:
    try:
        number = int(value)
    except (TypeError, ValueError, OverflowError):
        number = None
    if number is None or (not isinstance(value, str) and number != value):
        raise FoldError(
            f"folds by id need integer ids, found {value!r:.40}; use folds by position or by group"
        )
    return number


def _check_n_splits(n_splits: int) -> None:
    if n_splits < 2:
        raise FoldError(f"n_splits must be at least 2, found {n_splits}")
