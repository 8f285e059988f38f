"""One pair or several answers, judged by a run: what a notebook or a service calls.

The run's model is loaded at the first call and kept for the next ones. Without a run the small
model that ships in the package judges, which needs no torch.
"""

from __future__ import annotations

import functools
import itertools
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from tiewise.errors import PairsError
from tiewise.features import extract_features
from tiewise.labels import swap_probs
from tiewise.pairs import TEXT_COLUMNS, build_pairs
from tiewise.parse import repair_text
from tiewise.runs import open_run
from tiewise.shipped import load_shipped
from tiewise.strengths import Ranking, rank_answers

Text = str | Sequence[str | None]
Predict = Callable[..., pd.DataFrame]
_PROBS = ["prob_a", "prob_b", "prob_tie"]


def score(
    prompt: Text, response_a: Text, response_b: Text, *, run: str | Path | None = None
) -> npt.NDArray[np.float64]:
    """Return P(A wins), P(B wins), P(tie) for one pair, averaged over both orders.

    Parameters
    ----------
    prompt, response_a, response_b
        A text, or a list of turns in which None is a missing turn.
    run
        Name of a run in the artifacts folder (``TIEWISE_ARTIFACTS``, else ``artifacts``), or the
        path of its folder; the model that ships in the package when None.

    Returns
    -------
    float64 array, shape (3,)
        Exchanging the responses exchanges the first two exactly.

    Examples
    --------
    >>> probs = score("What is 2+2?", "2 + 2 = 4.", "I'm sorry, but I can't help with that.")
    >>> bool(probs[0] > probs[1])
    True
    """
    pairs = _as_pairs(prompt, [(response_a, response_b)])
    table = _open_predictor(run)(pairs)
    return table[_PROBS].to_numpy(np.float64)[0]  # type: ignore[no-any-return]


def rank(
    prompt: Text, responses: Sequence[Text], *, run: str | Path | None = None, **options: Any
) -> Ranking:
    """Rank several responses to one prompt.

    Parameters
    ----------
    prompt
        A text, or a list of turns.
    responses
        n responses, at least two, each a text or a list of turns.
    run
        See :func:`score`.
    **options
        Those of :func:`tiewise.strengths.rank_answers`: `n_resamples`, `confidence_level`, `seed`.

    Returns
    -------
    Ranking
        The order, the probabilities between every two responses, strengths and places.
    """
    return rank_answers(compare_all(_open_predictor(run), prompt, responses), **options)


def compare_all(
    predict: Predict, prompt: Text, responses: Sequence[Text]
) -> npt.NDArray[np.float64]:
    """Predict every two responses to one prompt, in both orders.

    Parameters
    ----------
    predict
        From a pairs table to its predictions, with ``prob_*`` averaged over both orders.
    prompt, responses
        See :func:`rank`.

    Returns
    -------
    float64 array, shape (n, n, 3)
        ``[i, j]`` are P(i wins), P(j wins), P(tie); NaN where i = j.

    Raises
    ------
    PairsError
        When there are fewer than two responses.
    """
    n = len(responses)
    if isinstance(responses, str) or n < 2:
        raise PairsError("A ranking needs a list of at least two responses.")
    table = predict(_as_pairs(prompt, list(itertools.combinations(responses, 2))))
    probs = np.full((n, n, 3), np.nan)
    i, j = np.triu_indices(n, 1)  # in the order of combinations
    probs[i, j] = table[_PROBS].to_numpy(np.float64)
    probs[j, i] = swap_probs(probs[i, j])
    return probs


def _as_pairs(prompt: Text, responses: Sequence[tuple[Text, Text]]) -> pd.DataFrame:
    columns = {
        "id": range(len(responses)),
        "prompt": [_as_turns(prompt)] * len(responses),
        "response_a": [_as_turns(first) for first, _ in responses],
        "response_b": [_as_turns(second) for _, second in responses],
    }
    return build_pairs(columns)


def _as_turns(text: Text) -> list[str | None]:
    turns = [text] if isinstance(text, str) else list(text)
    return [turn if turn is None else repair_text(turn) for turn in turns]


def _artifacts_dir() -> Path:
    return Path(os.environ.get("TIEWISE_ARTIFACTS", "artifacts"))


def _open_predictor(name: str | Path | None) -> Predict:
    if name is None:
        return _predict_shipped
    run = open_run(name, _artifacts_dir())
    files = [run.fold(fold).scores_path for fold in run.finished_folds()]
    files += run.path.glob("calibration.json")
    return _load_run(run.path, tuple((path.name, path.stat().st_mtime_ns) for path in files))


@functools.lru_cache(maxsize=1)
def _load_run(run_dir: Path, files: tuple[tuple[str, int], ...]) -> Predict:
    """Load a run; a fold finished or a calibration adopted since makes it another one."""
    from tiewise.prediction import PredictOptions, open_predictor

    del files
    artifacts_dir = _artifacts_dir()
    run = open_run(run_dir, artifacts_dir)
    options = PredictOptions(swap=True)
    return open_predictor(run, cache_dir=artifacts_dir / "cache", options=options)


def _predict_shipped(pairs: pd.DataFrame) -> pd.DataFrame:
    features = extract_features(*(pairs[name].tolist() for name in TEXT_COLUMNS))
    return pd.DataFrame(load_shipped().predict(features), columns=_PROBS)
