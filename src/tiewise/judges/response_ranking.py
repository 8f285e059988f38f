"""Rank several responses by the probabilities between every two, with intervals of the ranks.

Strengths are those of Davidson's model (:mod:`tiewise.evaluation.davidson`), in which a tie is an
outcome of its own, fitted to the probabilities as if they were shares of votes. For the intervals,
tournaments with one vote for every two responses are drawn from the probabilities; the three that
two responses can have are weighted instead. In a tournament where every two have met equally often,
the model ranks by wins minus losses, so none is fitted.
"""

from __future__ import annotations

import html
import itertools
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from tiewise.errors import PairsError
from tiewise.evaluation.davidson import Contests, fit_davidson
from tiewise.evaluation.intervals import check_confidence, check_resamples

_Floats = npt.NDArray[np.float64]
# A probability of zero would make a strength infinite; a lower one counts as this.
_LEAST_PROB = 1e-6
# The fit ends within 1e-7, so nearer strengths share a place.
_SAME_STRENGTH = 1e-6


@dataclass(frozen=True)
class Ranking:
    """Responses to one prompt, ranked.

    order
        Positions of the n responses, the best first: int64, shape (n,).
    probs
        ``probs[i, j]`` are P(i wins), P(j wins), P(tie): float64, shape (n, n, 3); NaN where i = j.
    strengths
        Strengths, mean 0: float64, shape (n,), by response. Half the log odds of a win against
        another response grow by the difference; probabilities below 1e-6 count as 1e-6.
    places
        1 is the best; equal strengths share a place: int64, shape (n,), by response.
    place_low, place_high
        Central interval of each response's place over drawn tournaments: int64, shape (n,).
    prob_best
        Share of drawn tournaments that the response wins, a shared first place split: float64,
        shape (n,).
    """

    order: npt.NDArray[np.int64]
    probs: _Floats
    strengths: _Floats
    places: npt.NDArray[np.int64]
    place_low: npt.NDArray[np.int64]
    place_high: npt.NDArray[np.int64]
    prob_best: _Floats
    confidence_level: float = 0.95
    names: tuple[str, ...] = ()
    """Names of the responses, by response; without them, they are shown by position from 0."""

    def to_dict(self) -> dict[str, Any]:
        """Return everything for JSON; the diagonal of `probs` is null."""
        values = {
            field.name: np.asarray(getattr(self, field.name)).tolist() for field in fields(self)
        }
        for i, row in enumerate(values["probs"]):
            row[i] = None
        return values

    def __str__(self) -> str:
        level = f"{self.confidence_level:.0%}"
        lines = [f"place  {level:^7}  strength  P(best)  response"]
        for response in self.order.tolist():
            between = f"{self.place_low[response]}-{self.place_high[response]}"
            lines.append(
                f"{self.places[response]:>5}  {between:^7}  {self.strengths[response]:>8.2f}  "
                f"{self.prob_best[response]:>7.2f}  "
                f"{self.names[response] if self.names else response}"
            )
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(str(self))}</pre>"


def rank_answers(
    probs: _Floats,
    *,
    n_resamples: int = 500,
    confidence_level: float = 0.95,
    seed: int = 0,
) -> Ranking:
    """Rank responses by the probabilities between every two of them.

    Parameters
    ----------
    probs
        ``probs[i, j]`` are P(i wins), P(j wins), P(tie), shape (n, n, 3), with
        ``probs[j, i] == probs[i, j, [1, 0, 2]]``; the diagonal is not read.
    n_resamples, seed
        Number of tournaments that are drawn for the intervals of the places, and their seed; not
        used for two responses, whose intervals are exact.
    confidence_level
        Mass of the interval of each place, in (0, 1).

    Raises
    ------
    PairsError
        There are fewer than two responses.
    ScoresError
        `n_resamples` or `confidence_level` is out of range.

    Examples
    --------
    >>> probs = np.full((2, 2, 3), 0.2)
    >>> probs[0, 1, 1] = probs[1, 0, 0] = 0.6
    >>> ranking = rank_answers(probs)
    >>> ranking.order, ranking.places
    (array([1, 0]), array([2, 1]))
    """
    n = len(probs)
    if n < 2:
        raise PairsError(f"A ranking needs at least two responses, not {n}.")
    check_confidence(confidence_level)
    check_resamples(n_resamples, seed)
    shares = probs[_pairs_of(n)]
    strengths = _fit(shares, n)
    if n == 2:
        low, high, prob_best = _place_two(shares[0], confidence_level)
    else:
        drawn = _draw_places(shares, n, n_resamples, np.random.default_rng(seed))
        low, high = _central_interval(drawn, confidence_level)
        winners = drawn == 1
        prob_best = (winners / winners.sum(axis=1, keepdims=True)).mean(axis=0)
    return Ranking(
        order=np.lexsort((np.arange(n), -np.round(strengths, 9))),
        probs=probs,
        strengths=strengths,
        places=_places(strengths),
        place_low=low,
        place_high=high,
        prob_best=prob_best,
        confidence_level=confidence_level,
    )


def _fit(shares: _Floats, n: int) -> _Floats:
    """Fit strengths, shape (n,), to shares of votes for every i < j, shape (n (n-1) / 2, 3)."""
    i, j = _pairs_of(n)
    bounded = np.maximum(shares, _LEAST_PROB)
    if n == 2:  # the optimum in closed form, as the search takes longer than a small judge
        lead = float(np.log(bounded[0, 0] / bounded[0, 1])) / 2
        return np.array([lead, -lead])
    contests = Contests(i, j, bounded, np.zeros(len(bounded)), n)
    return fit_davidson(contests, is_controlled=False).strengths


def _place_two(
    share: _Floats, confidence_level: float
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], _Floats]:
    """Return the intervals of the places of two responses, and their probabilities of being best.

    All have shape (2,). `share` are P(first wins), P(second wins), P(tie), shape (3,).
    """
    prob_first, prob_second, prob_tie = share / share.sum()
    is_second = np.array([prob_second, prob_first])  # P(place 2) of each response
    outside = (1 - confidence_level) / 2
    low = np.where(1 - is_second > outside, 1, 2)
    high = np.where(is_second > outside, 2, 1)
    return low, high, np.array([prob_first, prob_second]) + prob_tie / 2


def _draw_places(
    shares: _Floats, n: int, n_resamples: int, generator: np.random.Generator
) -> npt.NDArray[np.int64]:
    """Draw tournaments and return the places of the responses: (n_resamples, n)."""
    probs = shares / shares.sum(axis=1, keepdims=True)
    votes = generator.multinomial(1, probs, (n_resamples, len(shares)))
    i, j = _pairs_of(n)
    points = (votes[:, :, 0] - votes[:, :, 1]) @ (np.eye(n)[i] - np.eye(n)[j])
    return _places(points)


def _central_interval(
    drawn: npt.NDArray[np.int64], confidence_level: float
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    ordered = np.sort(drawn, axis=0)
    n_outside = int(len(ordered) * (1 - confidence_level) / 2)
    return ordered[n_outside], ordered[len(ordered) - 1 - n_outside]


def _places(strengths: _Floats) -> npt.NDArray[np.int64]:
    """Return 1 plus the number of responses that are stronger, along the last axis."""
    is_above = strengths[..., None, :] > strengths[..., :, None] + _SAME_STRENGTH
    return np.asarray(1 + is_above.sum(axis=-1), dtype=np.int64)


def _pairs_of(n: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    pairs = np.array(list(itertools.combinations(range(n), 2)), dtype=np.int64)
    return pairs[:, 0], pairs[:, 1]
