"""Several models' probabilities mixed into one: a weighted sum of logarithms, normalised.

The weights are not negative, and their sum is free: above one it sharpens, below one it softens,
so every single member and its temperature are mixtures. The loss is convex in the weights. Few rows
would make much of a member that hardly says anything, so the weights have a prior, normal about
equal shares with a standard deviation of 1, which many rows outweigh.
Exchanging A and B commutes with mixing to the last bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize
from scipy.special import log_softmax

from tiewise.errors import RunError
from tiewise.files import read_json, write_json

Floats = npt.NDArray[np.float64]
_LARGEST_WEIGHT = 10.0


@dataclass(frozen=True)
class Mixture:
    """What each member counts.

    members
        Names of runs.
    weights
        Not negative, one for each member.
    """

    members: tuple[str, ...]
    weights: tuple[float, ...]

    def apply(self, logits: Sequence[npt.ArrayLike]) -> Floats:
        """Return log-probabilities, shape (n, 3), of one array of logits (n, 3) a member.

        Examples
        --------
        >>> even = Mixture(("one", "two"), (0.5, 0.5))
        >>> np.exp(even.apply([np.log([[0.5, 0.25, 0.25]]), np.log([[0.25, 0.5, 0.25]])])).round(3)
        array([[0.369, 0.369, 0.261]])
        """
        return mix(
            np.stack([log_softmax(part, axis=1) for part in logits]), np.asarray(self.weights)
        )

    def save(self, path: Path) -> None:
        """Write members and weights as JSON."""
        write_json(path, asdict(self))


def load_mixture(path: Path) -> Mixture:
    """Read what `Mixture.save` wrote.

    Raises
    ------
    RunError
        When the file is missing or damaged.
    """
    try:
        values: dict[str, Any] = read_json(path)
        members, weights = tuple(values["members"]), tuple(map(float, values["weights"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"{path} cannot be read: {error!r}. Blend the runs again.") from error
    if len(members) != len(weights) or not members:
        raise RunError(f"{path} does not hold one weight for each member. Blend the runs again.")
    return Mixture(members, weights)


def mix(log_probs: Floats, weights: Floats) -> Floats:
    """Return the mixture's log-probabilities (n, 3) of the members' (k, n, 3)."""
    mixed = sum(w * part for w, part in zip(weights, log_probs, strict=True))
    return np.asarray(log_softmax(mixed, axis=1))


def fit_weights(labels: npt.NDArray[np.int64], log_probs: Floats) -> Floats:
    """Return the likeliest weights: those with the least log loss, but for the prior.

    Parameters
    ----------
    labels
        0 (A), 1 (B) or 2 (tie), shape (n,).
    log_probs
        Of k members, shape (k, n, 3).

    Returns
    -------
    float64 array, shape (k,), in [0, 10]

    Examples
    --------
    >>> sure, vague = np.log([[[0.8, 0.1, 0.1]] * 5, [[0.4, 0.3, 0.3]] * 5])
    >>> weights = fit_weights(np.array([0, 0, 0, 0, 1]), np.stack([sure, vague]))
    >>> bool(weights[0] > 0.5)
    True
    """
    n_members = len(log_probs)
    share = 1 / n_members
    rows = np.arange(len(labels))
    chosen = log_probs[:, rows, labels]  # (k, n)

    def loss_and_gradient(weights: Floats) -> tuple[float, Floats]:
        mixed = mix(log_probs, weights)
        expected = (np.exp(mixed) * log_probs).sum(axis=2)
        far = (weights - share) / len(labels)  # the prior's part in the loss of a row
        loss = -mixed[rows, labels].mean() + far @ (weights - share) / 2
        return float(loss), (expected - chosen).mean(axis=1) + far

    found = minimize(
        loss_and_gradient,
        np.full(n_members, share),
        jac=True,
        method="L-BFGS-B",
        bounds=[(0.0, _LARGEST_WEIGHT)] * n_members,
        options={"ftol": 1e-13, "gtol": 1e-8, "maxiter": 500},
    )
    return np.asarray(found.x, dtype=np.float64)
