"""A scikit-learn estimator of the feature model."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted

from tiewise.data.labels import PROB_COLUMNS, Winner
from tiewise.data.pairs import TEXT_COLUMNS, build_pairs
from tiewise.evaluation.metrics import check_labels
from tiewise.features.feature_model import fit_feature_model


class PreferenceClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc] # untyped
    """The feature model as a scikit-learn classifier of pairs tables: P(A), P(B), P(tie).

    Parameters
    ----------
    seed
        Seed of the inner splits and the trees.
    new_sources
        Use the settings for votes of sources that are not among those of `fit`.

    Attributes
    ----------
    classes_
        The labels 0, 1, 2: A, B, tie. They are the columns of `predict_proba`.
    model_
        The fitted :class:`tiewise.features.feature_model.FeatureModel`.

    Examples
    --------
    >>> from tiewise.data.simulation.simulate import simulate
    >>> pairs = simulate(60)
    >>> classifier = PreferenceClassifier().fit(pairs, pairs["label"], groups=["one group"] * 60)
    >>> classifier.predict_proba(pairs).shape
    (60, 3)
    """

    def __init__(self, *, seed: int = 0, new_sources: bool = False) -> None:
        self.seed = seed
        self.new_sources = new_sources

    def fit(
        self, pairs: pd.DataFrame, labels: npt.ArrayLike, groups: npt.ArrayLike | None = None
    ) -> PreferenceClassifier:
        """Fit to pairs and their labels.

        Parameters
        ----------
        pairs
            A table of n pairs: ``prompt``, ``response_a`` and ``response_b`` are lists of turns;
            ``weight`` and ``source`` are used where they exist, soft labels are not.
        labels
            0 (A), 1 (B) or 2 (tie), shape (n,).
        groups
            Prompt group of each pair, shape (n,); derived from the prompts when None.

        Returns
        -------
        PreferenceClassifier
            The classifier itself.

        Raises
        ------
        PairsError, ScoresError
            If a text or a label is invalid; the message names the rows.
        """
        known = pairs.drop(columns=["label", "winner", *PROB_COLUMNS], errors="ignore")
        table = build_pairs({"id": range(len(pairs)), **known, "label": check_labels(labels)})
        self.model_ = fit_feature_model(
            table, groups=groups, seed=self.seed, new_sources=self.new_sources
        )
        self.classes_ = np.array(list(Winner), dtype=np.int64)
        return self

    def predict_proba(self, pairs: pd.DataFrame) -> npt.NDArray[np.float64]:
        """Return P(A), P(B), P(tie) of each pair.

        Parameters
        ----------
        pairs
            A table of n pairs with ``prompt``, ``response_a``, ``response_b``, as for :meth:`fit`.

        Returns
        -------
        float64 array, shape (n, 3)
            Rows sum to 1. Swapping the responses swaps the first two columns exactly.

        Raises
        ------
        PairsError
            If a text is invalid.
        """
        check_is_fitted(self)
        texts: dict[str, Any] = {name: pairs[name] for name in TEXT_COLUMNS}
        return self.model_.predict(build_pairs({"id": range(len(pairs)), **texts}))

    def predict(self, pairs: pd.DataFrame) -> npt.NDArray[np.int64]:
        """Return the most probable label of each pair.

        Parameters
        ----------
        pairs
            As for :meth:`predict_proba`.

        Returns
        -------
        int64 array, shape (n,)
            0 (A), 1 (B) or 2 (tie).
        """
        return np.asarray(self.classes_[self.predict_proba(pairs).argmax(axis=1)])
