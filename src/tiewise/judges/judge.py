"""The public judge: load any fitted model, then predict pairs or rank responses."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pandas as pd

from tiewise.data.formats import read_pairs
from tiewise.data.labels import PROB_COLUMNS, swap_probs
from tiewise.data.pairs import TEXT_COLUMNS, build_pairs
from tiewise.data.parse import repair_text
from tiewise.errors import ModelError, PairsError, missing_extra
from tiewise.features.feature_model import MODEL_FILE, load_feature_model
from tiewise.judges.columns import Batch, add_columns
from tiewise.judges.hub import download_model, is_hub_name
from tiewise.judges.kinds import (
    PairJudge,
    ShippedJudge,
    judge_classes,
    open_feature_judge,
    open_judge,
)
from tiewise.judges.response_ranking import Ranking, rank_answers
from tiewise.runs.folder import RunFolder, default_artifacts, open_run

Text = str | Sequence[str | None]
SCHEME = "vllm:"


class Judge:
    """A fitted model that predicts which of two responses a person prefers.

    Load one with :meth:`from_pretrained`. ``Judge(name, ...)`` is the same, for libraries that make
    objects themselves, such as ``dataset.map_batches(Judge, fn_constructor_args=["first"])``.

    Attributes
    ----------
    name
        The name it was loaded by.
    model
        The model that predicts; see :mod:`tiewise.judges.kinds`.
    classes_
        Names of the columns of :meth:`predict_proba`.
    """

    classes_: ClassVar[tuple[str, str, str]] = ("a", "b", "tie")

    def __init__(
        self, name: str | Path | RunFolder, model: PairJudge | None = None, **options: Any
    ) -> None:
        self.name = _name_of(name)
        self.model = _open(self.name, **options) if model is None else model

    @classmethod
    def from_pretrained(
        cls,
        name: str | Path | RunFolder,
        *,
        artifacts: str | Path | None = None,
        device: str | None = None,
        revision: str | None = None,
        template_from: str | Path | None = None,
    ) -> Judge:
        """Load a judge.

        Parameters
        ----------
        name
            A run, its name or its folder; an exported folder, the adapter folder of a fold, a
            repository on the Hugging Face hub that ``tiewise push`` wrote, ``shipped`` for the
            small model in this package, or ``vllm:http://HOST:PORT`` for a server of vLLM or
            ``tiewise serve``.
        artifacts
            Folder of runs and caches; None means the environment variable ``TIEWISE_ARTIFACTS``,
            else ``artifacts``.
        device
            `cpu` or `cuda`; None means the device of the fit for a run, and otherwise CUDA where
            there is one.
        revision
            Branch, tag or id of a commit of a repository on the hub; None means its newest
            version. Name a commit to get the same model always.
        template_from
            The exported folder that a server has loaded; only for ``vllm:``. If the variable
            ``TIEWISE_TOKEN`` is set, it is sent as bearer token.

        Raises
        ------
        RunError
            When there is no such run, or no fold of it is finished.
        ModelError, DeviceError
            When the model is missing or damaged (a file differs from its manifest), or this
            machine cannot compute it.

        Examples
        --------
        >>> judge = Judge.from_pretrained("shipped")
        >>> judge.score("2+2?", "4", "5").shape
        (3,)
        """
        options: Any = {"revision": revision, "template_from": template_from}
        return cls(name, artifacts=artifacts, device=device, **options)

    def __call__(self, batch: Batch) -> Batch:
        """Add the predictions to a batch, as a step of Ray Data and similar libraries.

        Parameters
        ----------
        batch
            n pairs, of any format that :func:`tiewise.read_pairs` reads: a pyarrow table, a
            dictionary of n-long arrays by column, or a DataFrame.

        Returns
        -------
        Table, dict or DataFrame
            The batch with all columns of :meth:`predict` except ``id``; rows keep their order.

        Raises
        ------
        PairsError
            When the batch cannot be read, its rows are not one pair each, or it has a column of
            that name.

        Examples
        --------
        >>> batch = {"prompt": [["2+2?"]], "response_a": [["4"]], "response_b": [["I can't say."]]}
        >>> list(Judge("shipped")(batch))[3:]
        ['prob_a', 'prob_b', 'prob_tie', 'is_degenerate']
        """
        return add_columns(batch, self._predict_batch)

    def _predict_batch(self, pairs: pd.DataFrame) -> pd.DataFrame:
        """Return the columns to add; those of no rows too."""
        if not pairs.empty:
            return self.predict(pairs).drop(columns="id", errors="ignore")
        texts = {name: [[""]] for name in TEXT_COLUMNS}
        return self._predict_batch(pd.DataFrame({"id": [0], **texts})).iloc[:0]

    def predict(self, pairs: Any, *, swap: bool | None = None) -> pd.DataFrame:
        """Predict who wins each pair of a table.

        Parameters
        ----------
        pairs
            A pairs table of n rows, or anything that :func:`tiewise.read_pairs` reads: a file, a
            frame with Kaggle's columns and so on. Winners are not read.
        swap
            Score both orders of each pair and average them; None means as the run was configured.

        Returns
        -------
        DataFrame
            One row per pair, in the same order, duplicate ids kept: ``id``, ``prob_a``,
            ``prob_b``, ``prob_tie`` and ``is_degenerate``; of a language model also ``logit_*``,
            ``n_tokens``, ``n_truncated`` and, when both orders were scored, ``prob_*_given`` and
            ``prob_*_swapped``.

        Raises
        ------
        PairsError
            When the pairs cannot be read, or there are none.
        """
        table = read_pairs(pairs, labelled=False)
        if table.empty:
            raise PairsError("There are no pairs to predict.")
        return self.model.predict(table, swap=swap)

    def predict_proba(self, pairs: Any) -> npt.NDArray[np.float64]:
        """Return P(A wins), P(B wins), P(tie) of each pair, averaged over both orders.

        Parameters
        ----------
        pairs
            See :meth:`predict`.

        Returns
        -------
        float64 array, shape (n, 3)
            Swapping the responses swaps the first two columns exactly.
        """
        return self.predict(pairs, swap=True)[PROB_COLUMNS].to_numpy(np.float64)

    def score(self, prompt: Text, response_a: Text, response_b: Text) -> npt.NDArray[np.float64]:
        """Return P(A wins), P(B wins), P(tie) of one pair, averaged over both orders.

        Parameters
        ----------
        prompt, response_a, response_b
            A text, or a list of turns in which None is a missing turn.

        Returns
        -------
        float64 array, shape (3,)
            Swapping the responses swaps the first two exactly.

        Examples
        --------
        >>> judge = Judge.from_pretrained("shipped")
        >>> probs = judge.score("What is 2+2?", "2 + 2 = 4.", "I'm sorry, I can't help with that.")
        >>> bool(probs[0] > probs[1])
        True
        """
        pairs = pair_responses((prompt, [response_a, response_b]))
        table = self.model.predict(pairs, swap=True)
        return table[PROB_COLUMNS].to_numpy(np.float64)[0]  # type: ignore[no-any-return]

    def compare_all(self, prompt: Text, responses: Sequence[Text]) -> npt.NDArray[np.float64]:
        """Predict every two responses to one prompt, averaged over both orders.

        Returns
        -------
        float64 array, shape (n, n, 3)
            ``[i, j]`` are P(i wins), P(j wins), P(tie); NaN where i = j.

        Raises
        ------
        PairsError
            When there are fewer than two responses.
        """
        responses = responses if isinstance(responses, str) else list(responses)
        if isinstance(responses, str) or len(responses) < 2:
            raise PairsError("A ranking needs a list of at least two responses.")
        table = self.model.predict(pair_responses((prompt, responses)), swap=True)
        return arrange_probs(table[PROB_COLUMNS].to_numpy(np.float64), len(responses))

    def rank(self, prompt: Text, responses: Sequence[Text], **options: Any) -> Ranking:
        """Rank several responses to one prompt.

        Parameters
        ----------
        prompt
            A text, or a list of turns.
        responses
            n responses, at least two, each a text or a list of turns.
        **options
            `n_resamples`, `confidence_level`, `seed` of
            :func:`tiewise.judges.response_ranking.rank_answers`.

        Returns
        -------
        Ranking
            The order, the probabilities between every two responses, strengths and places.
        """
        return rank_answers(self.compare_all(prompt, responses), **options)


def predict(
    pairs: Any,
    *,
    run: str | Path | RunFolder | Judge | None = None,
    swap: bool | None = None,
    device: str | None = None,
    artifacts: str | Path | None = None,
) -> pd.DataFrame:
    """Predict a table with a judge that is kept for the next calls: :func:`tiewise.predict`."""
    return _get_judge(run, device, artifacts).predict(pairs, swap=swap)


def score(
    prompt: Text,
    response_a: Text,
    response_b: Text,
    *,
    run: str | Path | RunFolder | Judge | None = None,
    device: str | None = None,
    artifacts: str | Path | None = None,
) -> npt.NDArray[np.float64]:
    """Return P(A wins), P(B wins), P(tie) of one pair; see :meth:`Judge.score`.

    Parameters
    ----------
    prompt, response_a, response_b
        A text, or a list of turns in which None is a missing turn.
    run, device, artifacts
        As in :func:`tiewise.predict`.

    Returns
    -------
    float64 array, shape (3,)
        They sum to 1; swapping the responses swaps the first two exactly.

    Examples
    --------
    >>> score("What is 2+2?", "2 + 2 = 4.", "I'm sorry, I can't help with that.").shape
    (3,)
    """
    return _get_judge(run, device, artifacts).score(prompt, response_a, response_b)


def rank(
    prompt: Text,
    responses: Sequence[Text],
    *,
    run: str | Path | RunFolder | Judge | None = None,
    device: str | None = None,
    artifacts: str | Path | None = None,
    **options: Any,
) -> Ranking:
    """Rank several responses to one prompt; see :meth:`Judge.rank`.

    Parameters
    ----------
    prompt
        A text, or a list of turns.
    responses
        Two or more responses, each a text or a list of turns.
    run, device, artifacts
        As in :func:`tiewise.predict`.
    **options
        As in :meth:`Judge.rank`.

    Returns
    -------
    Ranking

    Examples
    --------
    >>> ranking = rank("What is 2+2?", ["I'm sorry, I can't help with that.", "2 + 2 = 4."])
    >>> ranking.order
    array([1, 0])
    """
    return _get_judge(run, device, artifacts).rank(prompt, responses, **options)


def pair_responses(*questions: tuple[Text, Sequence[Text]]) -> pd.DataFrame:
    """Return the pairs table of every two responses to each prompt.

    The pairs of a prompt are in the order of itertools.combinations.
    """
    rows = [
        (_as_turns(prompt), *map(_as_turns, pair))
        for prompt, responses in questions
        for pair in itertools.combinations(responses, 2)
    ]
    columns: dict[str, Any] = {"id": range(len(rows))}
    columns |= dict(zip(TEXT_COLUMNS, zip(*rows, strict=True), strict=True))
    return build_pairs(columns | {"group": ["one prompt"] * len(rows)})  # not searched for in texts


def arrange_probs(pair_probs: npt.NDArray[np.float64], n: int) -> npt.NDArray[np.float64]:
    """Arrange probabilities of every two of n responses as :meth:`Judge.compare_all` does."""
    probs = np.full((n, n, 3), np.nan)
    i, j = np.triu_indices(n, 1)  # in the order of itertools.combinations
    probs[i, j] = pair_probs
    probs[j, i] = swap_probs(probs[i, j])
    return probs


def _name_of(model: str | Path | RunFolder) -> str:
    return str(model.path if isinstance(model, RunFolder) else model)


def _get_judge(
    model: str | Path | RunFolder | Judge | None,
    device: str | None,
    artifacts: str | Path | None,
) -> Judge:
    """Return a judge that is loaded once, and again when files of its run have changed."""
    if isinstance(model, Judge):
        return model
    artifacts_dir = default_artifacts() if artifacts is None else Path(artifacts)
    name = "shipped" if model is None else _name_of(model)
    folders = (artifacts_dir / "runs" / name, Path(name))
    files = [path for folder in folders for path in _state_files(folder)]
    states = tuple((str(path), path.stat().st_mtime_ns) for path in files)
    return _load_cached(name, artifacts_dir, device, states)


def _state_files(folder: Path) -> list[Path]:
    patterns = ("fold*/scores.json", "calibration.json", "manifest.json")
    return sorted(path for pattern in patterns for path in folder.glob(pattern))


@functools.lru_cache(maxsize=1)
def _load_cached(
    name: str, artifacts_dir: Path, device: str | None, states: tuple[tuple[str, int], ...]
) -> Judge:
    del states
    return Judge.from_pretrained(name, artifacts=artifacts_dir, device=device)


def _open(
    name: str,
    *,
    artifacts: str | Path | None = None,
    device: str | None = None,
    revision: str | None = None,
    template_from: str | Path | None = None,
) -> PairJudge:
    """Open the model of a judge; see :meth:`Judge.from_pretrained`."""
    is_served = name.startswith(SCHEME)
    if is_served and revision is None:
        return _connect(name.removeprefix(SCHEME), template_from)
    if template_from is not None and not is_served:
        raise ModelError(f"template_from is only used with {SCHEME} addresses; leave it out.")
    artifacts_dir = default_artifacts() if artifacts is None else Path(artifacts)
    return _load(name, artifacts_dir, device, revision)


def _connect(address: str, template_from: str | Path | None) -> PairJudge:
    """Return the judge behind the address of a server."""
    if template_from is None or not address.startswith(("http://", "https://")):
        raise ModelError(
            f"{SCHEME}{address}: expected {SCHEME}http://HOST:PORT and template_from, the exported "
            "folder that the server has loaded."
        )
    try:
        from tiewise.judges.served import ServedJudge
    except ModuleNotFoundError as error:
        raise missing_extra("A judge on a server", error, "serve") from error
    return ServedJudge(address, Path(template_from))


def _load(
    name: str, artifacts_dir: Path, device: str | None, revision: str | None = None
) -> PairJudge:
    """Load the shipped model, a run, a folder with a model, or a repository of the hub."""
    cache_dir = artifacts_dir / "cache"
    folder = Path(name)
    # Joined to an absolute path, the folder of runs is ignored; an export has a config.json too.
    is_plain = folder.name == name
    is_run = is_plain and (artifacts_dir / "runs" / name / "config.json").is_file()
    is_on_hub = not is_run and not folder.exists() and is_hub_name(name) is not None
    if revision is not None and not is_on_hub:
        raise ModelError(f"revision is only used with a repository of the hub, not with {name}.")
    if name == "shipped" and not is_run:
        return ShippedJudge()
    if is_on_hub:
        folder = download_model(name, revision)
    if is_run or not _holds_model(folder):
        return open_judge(open_run(name, artifacts_dir), cache_dir=cache_dir, device=device)
    if (folder / MODEL_FILE).is_file():
        model = load_feature_model(folder)
        features = open_feature_judge([model], cache_dir=cache_dir, device=device)
        return judge_classes(features, has_ties=model.has_ties)
    try:
        from tiewise.models.adapters import has_trained_ties
        from tiewise.models.pretrained import load_folder
    except ModuleNotFoundError as error:
        raise missing_extra(name, error) from error
    judge = load_folder(folder, cache_dir=cache_dir, device=device)
    is_export = (folder / "export.json").is_file()  # none of an adapter without ties is written
    return judge_classes(judge, has_ties=is_export or has_trained_ties(folder))


def _holds_model(folder: Path) -> bool:
    return any((folder / file).is_file() for file in (MODEL_FILE, "export.json", "classifier.json"))


def _as_turns(text: Text) -> list[str | None]:
    turns = [text] if isinstance(text, str) else text
    if not isinstance(turns, Sequence) or not all(isinstance(t, str | None) for t in turns):
        raise PairsError(f"A text is {text!r}; expected a string, or a list of strings and None.")
    return [turn if turn is None else repair_text(turn) for turn in turns]
