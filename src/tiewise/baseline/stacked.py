"""What other models say of a pair, as features of the CPU-class model."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from tiewise.baseline.features import PairFeatures

FloatArray = npt.NDArray[np.float64]
_PREFIX = "stack:"


def add_stacked(features: PairFeatures, stacked: Mapping[str, FloatArray]) -> PairFeatures:
    """Add the log odds that other models give.

    Parameters
    ----------
    features
        Of n pairs.
    stacked
        For each model, by name, its logits of A, B, tie: shape (n, 3). Exchanging A and B must
        exchange its first two columns.

    Returns
    -------
    PairFeatures
        With one signed column for each model, the log odds of A against B, and one shared column,
        those of a tie against none.

    Examples
    --------
    >>> from tiewise.baseline.features import extract_features
    >>> features = extract_features([["2+2?"]], [["4"]], [["four"]])
    >>> logits = np.log([[0.25, 0.25, 0.5]])
    >>> more = add_stacked(features, {"first": logits})
    >>> more.signed_names[-1], more.signed[0, -1].item(), more.shared[0, -1].item()
    ('stack:first', 0.0, 0.0)
    """
    if not stacked:
        return features
    a, b, tie = (np.column_stack([part[:, k] for part in stacked.values()]) for k in range(3))
    names = [f"{_PREFIX}{name}" for name in stacked]
    return PairFeatures(
        np.concatenate([features.signed, a - b], axis=1),
        np.concatenate([features.shared, tie - np.logaddexp(a, b)], axis=1),
        (*features.signed_names, *names),
        (*features.shared_names, *names),
    )


def stacked_names(signed_names: tuple[str, ...]) -> list[str]:
    """Return the names of the models whose log odds are among the features.

    Examples
    --------
    >>> stacked_names(("log_chars", "stack:first"))
    ['first']
    """
    return [name.removeprefix(_PREFIX) for name in signed_names if name.startswith(_PREFIX)]
