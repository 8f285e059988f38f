"""Boosted trees kept as plain arrays.

scikit-learn grows the trees; what it grew is copied into arrays that numpy alone can evaluate and
that a file can hold without pickle. Arrays from a file are checked before they are walked: a link
that leads backwards would walk for ever.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tiewise.errors import ModelError

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int32]

NAMES = ("column", "left", "right", "threshold", "value", "roots", "start")
_MOST_LEAVES = 12
_FEWEST_ROWS = 40


@dataclass(frozen=True)
class Trees:
    """Boosted trees for a probability.

    Attributes
    ----------
    column, left, right
        int32, shape (n_nodes,): a node sends a row to `left` when the row's value in `column` is at
        most `threshold`, else to `right`. A leaf sends it to itself.
    threshold, value
        float64, shape (n_nodes,): `value` is what a leaf adds to the log odds.
    roots
        int32, shape (n_trees,): where each tree begins.
    start
        float64, shape (): the log odds before the first tree.
    """

    column: IntArray
    left: IntArray
    right: IntArray
    threshold: FloatArray
    value: FloatArray
    roots: IntArray
    start: FloatArray

    def log_odds(self, table: FloatArray) -> FloatArray:
        """Return log odds, shape (n,), of a table of shape (n, n_columns)."""
        total = np.full(len(table), float(self.start))
        for root in self.roots:
            total += self._leaves(table, root)
        return total

    def staged_log_odds(self, table: FloatArray) -> Iterator[FloatArray]:
        """Yield the log odds, shape (n,), with no tree, with one tree, with two, …."""
        total = np.full(len(table), float(self.start))
        yield total.copy()
        for root in self.roots:
            total += self._leaves(table, root)
            yield total.copy()

    def to_arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Return the arrays to be stored, by `NAMES`."""
        return {name: getattr(self, name) for name in NAMES}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[Any]], n_columns: int) -> Trees:
        """Return the trees that `to_arrays` gave.

        Raises
        ------
        ModelError
            When an array is missing, or they do not make trees over so many columns.
        """
        missing = [name for name in NAMES if name not in arrays]
        if missing:
            raise ModelError(_damage(f"{', '.join(missing)} missing"))
        trees = cls(*(arrays[name] for name in NAMES))
        if not (trees._has_shapes() and trees._has_sound_links(n_columns)):
            raise ModelError(_damage(f"their arrays do not make trees over {n_columns} columns"))
        return trees

    def _leaves(self, table: FloatArray, root: int) -> FloatArray:
        rows = np.arange(len(table))
        node = np.full(len(table), root, dtype=np.int32)
        while True:
            goes_left = table[rows, self.column[node]] <= self.threshold[node]
            following = np.where(goes_left, self.left[node], self.right[node])
            if np.array_equal(following, node):
                return self.value[node]
            node = following

    def _has_shapes(self) -> bool:
        per_node = (self.column, self.left, self.right, self.threshold, self.value)
        integers = (self.column, self.left, self.right, self.roots)
        return (
            all(array.shape == self.column.shape for array in per_node)
            and self.column.ndim == self.roots.ndim == 1
            and self.start.shape == ()
            and all(array.dtype == np.int32 for array in integers)
            and all(array.dtype == np.float64 for array in (self.threshold, self.value, self.start))
        )

    def _has_sound_links(self, n_columns: int) -> bool:
        own = np.arange(len(self.column))
        is_leaf = (self.left == own) & (self.right == own)
        goes_down = (self.left > own) & (self.right > own)
        links = np.concatenate([self.left, self.right, self.roots])
        return bool(
            (is_leaf | goes_down).all()
            and ((links >= 0) & (links < len(own))).all()
            and ((self.column >= 0) & (self.column < n_columns)).all()
            and not np.isnan(self.threshold).any()
            and np.isfinite(self.value).all()
            and np.isfinite(self.start)
        )


def fit_trees(
    table: FloatArray,
    outcomes: FloatArray,
    weights: FloatArray,
    *,
    n_trees: int = 200,
    seed: int = 0,
) -> Trees:
    """Grow boosted trees.

    Parameters
    ----------
    table
        Shape (n, n_columns), finite. Without rows, or with one outcome only, no tree is grown.
    outcomes
        Shape (n,): probabilities in [0, 1]; 0 and 1 for plain labels.
    weights
        Shape (n,), positive; their mean does not matter.
    n_trees
        How many; with 0 every row gets the same log odds.
    seed
        Which columns a split may choose from.
    """
    from sklearn.ensemble import HistGradientBoostingClassifier

    parts = np.stack([1 - outcomes, outcomes], axis=1) * weights[:, None]
    rows, labels = np.nonzero(parts > 0)
    if n_trees < 1 or len(np.unique(labels)) < 2:
        return _no_trees(parts.sum(axis=0))
    model = HistGradientBoostingClassifier(
        learning_rate=0.05,
        max_iter=n_trees,
        max_leaf_nodes=_MOST_LEAVES,
        min_samples_leaf=_FEWEST_ROWS,
        l2_regularization=20.0,
        max_features=0.1,
        early_stopping=False,
        random_state=seed,
    )
    seen = parts[rows, labels] / parts[rows, labels].mean()
    # Equal weights are no weights; scikit-learn is many times slower when it is given any.
    is_weighted = bool((seen != 1).any())
    model.fit(table[rows], labels, sample_weight=seen if is_weighted else None)
    return _copy_trees(model)


def _no_trees(totals: FloatArray) -> Trees:
    """Constant log odds, as if half a row of each outcome had been seen besides."""
    start = np.asarray(np.log(totals[1] + 0.5) - np.log(totals[0] + 0.5))
    index, number = np.zeros(0, np.int32), np.zeros(0)
    return Trees(index, index, index, number, number, index, start)


def _copy_trees(model: Any) -> Trees:
    """Copy what scikit-learn grew; a test holds the copy against its own predictions."""
    nodes = [tree.nodes for (tree,) in model._predictors]
    sizes = [len(part) for part in nodes]
    roots = np.cumsum([0, *sizes[:-1]])
    flat = np.concatenate(nodes)
    offsets = np.repeat(roots, sizes)
    is_leaf = flat["is_leaf"].astype(bool)
    own = np.arange(len(flat))
    left, right = (np.where(is_leaf, own, flat[side] + offsets) for side in ("left", "right"))
    return Trees(
        column=np.where(is_leaf, 0, flat["feature_idx"]).astype(np.int32),
        left=left.astype(np.int32),
        right=right.astype(np.int32),
        threshold=np.where(is_leaf, np.inf, flat["num_threshold"]).astype(np.float64),
        value=flat["value"].astype(np.float64),
        roots=roots.astype(np.int32),
        start=np.asarray(model._baseline_prediction, dtype=np.float64).reshape(()),
    )


def _damage(what: str) -> str:
    return f"the boosted trees are damaged: {what}; fit the model again or restore its files"
