"""Pairs, or several answers to one prompt, judged by a run: what a notebook or a service calls.

The run's model is loaded at the first call and kept for the next ones. Without a run the small
model that ships in the package judges, which needs no torch.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from tiewise.data.formats import read_pairs
from tiewise.data.labels import PROB_COLUMNS, swap_probs
from tiewise.data.pairs import TEXT_COLUMNS, build_pairs, is_degenerate
from tiewise.data.parse import repair_text
from tiewise.errors import PairsError
from tiewise.features.pair_features import extract_features
from tiewise.features.shipped import load_shipped
from tiewise.judges.predictors import Predict, PredictOptions, open_predictor
from tiewise.judges.response_ranking import Ranking, rank_answers
from tiewise.runs.folder import default_artifacts, open_run

Text = str | Sequence[str | None]
_BOTH_ORDERS = PredictOptions(swap=True)


def predict(
    pairs: Any,
    *,
    run: str | Path | None = None,
    swap: bool | None = None,
    device: str | None = None,
) -> pd.DataFrame:
    """Predict who wins each pair of a table, a run's folds averaged; ``tiewise predict`` in memory.

    Parameters
    ----------
    pairs
        A pairs table of n rows, or whatever :func:`tiewise.read_pairs` reads: a file, a frame with
        Kaggle's columns and so on. Winners are not looked at.
    run
        Name of a run in the artifacts folder (``TIEWISE_ARTIFACTS``, else ``artifacts``), or the
        path of its folder; the model that ships in the package, which is symmetric, when None.
    swap
        Score both orders of each pair and average them; as the run was configured when None.
    device
        `cpu` or `cuda`; where the run was fitted when None.

    Returns
    -------
    DataFrame
        A line per pair in their order, duplicate ids kept: ``id``, ``prob_a``, ``prob_b``,
        ``prob_tie`` and ``is_degenerate``; of a language model also ``logit_*``, ``n_tokens``,
        ``n_truncated`` and, when both orders were scored, ``prob_*_given`` and ``prob_*_swapped``.

    Raises
    ------
    TiewiseError
        When the pairs cannot be read, or the run is not finished or damaged.

    Examples
    --------
    >>> texts = {"prompt": [["2+2?"]], "response_a": [["4"]], "response_b": [["I can't say."]]}
    >>> predict(pd.DataFrame({"id": [7], **texts}))[["id", "is_degenerate"]]
       id  is_degenerate
    0   7          False
    """
    options = PredictOptions(swap=swap)
    table = read_pairs(pairs, labelled=False)
    if table.empty:
        raise PairsError("There are no pairs to predict.")
    return _open_predictor(run, device)(table, options)


def score(
    prompt: Text,
    response_a: Text,
    response_b: Text,
    *,
    run: str | Path | None = None,
    device: str | None = None,
) -> npt.NDArray[np.float64]:
    """Return P(A wins), P(B wins), P(tie) for one pair, averaged over both orders.

    Parameters
    ----------
    prompt, response_a, response_b
        A text, or a list of turns in which None is a missing turn.
    run, device
        See :func:`predict`.

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
    table = _open_predictor(run, device)(pairs, _BOTH_ORDERS)
    return table[PROB_COLUMNS].to_numpy(np.float64)[0]  # type: ignore[no-any-return]


def rank(
    prompt: Text,
    responses: Sequence[Text],
    *,
    run: str | Path | None = None,
    device: str | None = None,
    **options: Any,
) -> Ranking:
    """Rank several responses to one prompt.

    Parameters
    ----------
    prompt
        A text, or a list of turns.
    responses
        n responses, at least two, each a text or a list of turns.
    run, device
        See :func:`predict`.
    **options
        Those of :func:`tiewise.judges.response_ranking.rank_answers`: `n_resamples`,
        `confidence_level`, `seed`.

    Returns
    -------
    Ranking
        The order, the probabilities between every two responses, strengths and places.
    """
    judge = _open_predictor(run, device)
    return rank_answers(compare_all(judge, prompt, responses), **options)


def compare_all(judge: Predict, prompt: Text, responses: Sequence[Text]) -> npt.NDArray[np.float64]:
    """Predict every two responses to one prompt, in both orders.

    Parameters
    ----------
    judge
        From a pairs table and options to predictions, with ``prob_*`` averaged over both orders.
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
    pairs = _as_pairs(prompt, list(itertools.combinations(responses, 2)))
    table = judge(pairs, _BOTH_ORDERS)
    probs = np.full((n, n, 3), np.nan)
    i, j = np.triu_indices(n, 1)  # in the order of combinations
    probs[i, j] = table[PROB_COLUMNS].to_numpy(np.float64)
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
    turns = [text] if isinstance(text, str) else text
    if not isinstance(turns, Sequence) or not all(isinstance(t, str | None) for t in turns):
        raise PairsError(f"A text is a string, or a list of strings and None, not {text!r}.")
    return [turn if turn is None else repair_text(turn) for turn in turns]


def _open_predictor(name: str | Path | None, device: str | None) -> Predict:
    if name is None:
        return _predict_shipped
    run = open_run(name, default_artifacts())
    files = [run.fold(fold).scores_path for fold in run.finished_folds()]
    files += run.path.glob("calibration.json")
    states = tuple((path.name, path.stat().st_mtime_ns) for path in files)
    return _load_run(run.path, states, device)


@functools.lru_cache(maxsize=1)
def _load_run(run_dir: Path, files: tuple[tuple[str, int], ...], device: str | None) -> Predict:
    """Load a run; a fold finished or a calibration adopted since makes it another one."""
    del files
    artifacts_dir = default_artifacts()
    run = open_run(run_dir, artifacts_dir)
    return open_predictor(run, cache_dir=artifacts_dir / "cache", device=device)


def _predict_shipped(pairs: pd.DataFrame, _: PredictOptions) -> pd.DataFrame:
    features = extract_features(*(pairs[name].tolist() for name in TEXT_COLUMNS))
    table = pd.DataFrame(load_shipped().predict(features), columns=PROB_COLUMNS)
    table.insert(0, "id", pairs["id"].to_numpy())
    return table.assign(is_degenerate=is_degenerate(pairs))
