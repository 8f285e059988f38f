"""Logistic regression on the hidden states of two responses, reduced to principal components."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tiewise.features.estimators import Logistic, fit_logistic

FloatArray = npt.NDArray[np.float64]
States = npt.NDArray[np.float32]

N_COMPONENTS = 32
"""Principal components of each depth."""
PENALTY = 0.1
_LEAST_VARIANCE = 1e-6  # of that of the first component
_CHUNK_ROWS = 1024


@dataclass(frozen=True)
class Projection:
    """Principal components of states with k depths and h numbers for each depth.

    States are centred and scaled, float64 (k, h) each, and multiplied by `axes`, (k, h, c); the
    components have unit variance, or are 0 where the states have fewer directions.
    """

    centre: FloatArray
    scale: FloatArray
    axes: FloatArray

    def compare(self, states: States) -> FloatArray:
        """Return the components of A minus those of B, shape (n, k * c), from (n, 2, k, h).

        Exchanging the responses changes exactly the sign.
        """
        table = np.empty((len(states), self.axes.shape[0] * self.axes.shape[2]))
        for start in range(0, len(states), _CHUNK_ROWS):
            scaled = (states[start : start + _CHUNK_ROWS] - self.centre) / self.scale
            # A product for each response alone: in a larger one, rounding depends on the place.
            components = (scaled[..., None, :] @ self.axes)[..., 0, :]
            table[start : start + _CHUNK_ROWS] = (components[:, 0] - components[:, 1]).reshape(
                len(scaled), -1
            )
        return table


def fit_projection(states: States) -> Projection:
    """Fit the components to the distinct responses among n pairs, shape (n, 2, k, h)."""
    from sklearn.decomposition import PCA

    n_depths, width = states.shape[2:]
    responses = states.reshape(-1, n_depths, width)
    distinct = sorted({row.tobytes(): place for place, row in enumerate(responses)}.items())
    chosen = [place for _, place in distinct]
    parts = []
    for depth in range(n_depths):  # one after the other: float64 takes twice the memory
        values = responses[chosen, depth].astype(np.float64)
        centre, scale = values.mean(axis=0), values.std(axis=0)
        scale = np.where(scale > 1e-9, scale, 1.0)
        axes = np.zeros((width, min(N_COMPONENTS, width)))
        if len(values) > 1:
            n_components = min(N_COMPONENTS, width, len(values))
            found = PCA(n_components, svd_solver="covariance_eigh")
            found.fit((values - centre) / scale)
            variance = found.explained_variance_
            is_used = variance > _LEAST_VARIANCE * variance[0]
            axes[:, :n_components][:, is_used] = found.components_[is_used].T / np.sqrt(
                variance[is_used]
            )
        parts.append((centre, scale, axes))
    return Projection(*(np.stack(part) for part in zip(*parts, strict=True)))


@dataclass(frozen=True)
class StateModel:
    """A fitted model of states, odd or even as a BinaryModel is."""

    projection: Projection
    logistic: Logistic

    def log_odds(self, states: States, *, is_odd: bool) -> FloatArray:
        """Return log odds, shape (n,), of states of shape (n, 2, k, h)."""
        table = self.projection.compare(states)
        return self.logistic.log_odds(table if is_odd else np.abs(table))


def fit_state_model(
    states: States, outcomes: FloatArray, weights: FloatArray, *, is_odd: bool
) -> StateModel:
    """Fit to n pairs; outcomes and weights, (n,), as in :func:`fit_binary_model`."""
    projection = fit_projection(states)
    table = projection.compare(states)
    columns = table if is_odd else np.abs(table)
    logistic = fit_logistic(columns, outcomes, weights, penalty=PENALTY, is_odd=is_odd)
    return StateModel(projection, logistic)
