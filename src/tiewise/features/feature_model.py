"""The CPU-class model: counted features, logistic regressions and boosted trees.

Exchanging A and B exchanges their probabilities, bit for bit (`parts`). Rows of a source in which
nobody ever chose a tie teach A against B alone: such a source did not offer ties. A fitted model is
JSON and plain arrays; nothing is pickled.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from tiewise.data.schema import TEXT_COLUMNS
from tiewise.data.targets import make_targets
from tiewise.errors import ModelError
from tiewise.features.binary_models import Part, Settings, fit_part
from tiewise.features.logistic import Logistic
from tiewise.features.pair_features import FORMAT_VERSION, PairFeatures, extract_features
from tiewise.features.shipped import join_log_odds, softmax
from tiewise.features.trees import Trees
from tiewise.files import atomic_path, digest_file, write_json

FloatArray = npt.NDArray[np.float64]

_MODEL_FILE = "baseline.json"
_TREES_FILE = "trees.npz"
_MEND = "fit the model again or restore its files"


@dataclass(frozen=True)
class Baseline:
    """A fitted model.

    Attributes
    ----------
    winner, tie
        Log odds of A against B, and of a tie against none.
    signed_names, shared_names
        The features they were fitted on, in order.
    n_rows
        How many pairs they were fitted on.
    """

    winner: Part
    tie: Part
    signed_names: tuple[str, ...]
    shared_names: tuple[str, ...]
    n_rows: int

    def predict(self, pairs: pd.DataFrame) -> FloatArray:
        """Return P(A), P(B), P(tie).

        Parameters
        ----------
        pairs
            A pairs table of n rows; only the three text columns are read.

        Returns
        -------
        float64 array, shape (n, 3), rows sum to 1
        """
        if pairs.empty:
            return np.zeros((0, 3))
        return self.predict_features(describe_pairs(pairs))

    def predict_features(self, features: PairFeatures) -> FloatArray:
        """Return P(A), P(B), P(tie), shape (n, 3), of pairs described before."""
        log_odds = self.winner.log_odds(features), self.tie.log_odds(features)
        return softmax(join_log_odds(*log_odds))

    def save(self, folder: Path | str) -> None:
        """Write ``trees.npz`` and then ``baseline.json`` into a folder."""
        folder = Path(folder)
        parts = {"winner": self.winner, "tie": self.tie}
        arrays = {
            f"{name}_{key}": array
            for name, part in parts.items()
            for key, array in part.trees.to_arrays().items()
        }
        with atomic_path(folder / _TREES_FILE) as temporary:
            np.savez_compressed(temporary, allow_pickle=False, **arrays)
        values = {
            "kind": "tiewise baseline",
            "features_version": FORMAT_VERSION,
            "n_rows": self.n_rows,
            "signed_names": self.signed_names,
            "shared_names": self.shared_names,
            "trees_sha256": digest_file(folder / _TREES_FILE),
            **{name: _part_to_json(part) for name, part in parts.items()},
        }
        write_json(folder / _MODEL_FILE, values)


def fit_baseline(
    pairs: pd.DataFrame,
    *,
    groups: npt.ArrayLike | None = None,
    seed: int = 0,
    soft_weight: float = 1.0,
    features: PairFeatures | None = None,
) -> Baseline:
    """Fit the CPU-class model.

    Parameters
    ----------
    pairs
        A labelled pairs table of n rows. Soft labels (``prob_a, prob_b, prob_tie``) and ``weight``
        are used where the columns are there. Names of models are not looked at; ``source`` only
        tells which rows could not be ties (`targets.find_no_tie_sources`).
    groups
        Shape (n,); by default the column ``group``.
    seed
        Of the inner splits and the trees.
    soft_weight
        Share of the soft label where a row has a label too (`targets.make_targets`).
    features
        What :func:`describe_pairs` says of the rows, where that is known already.

    Returns
    -------
    Baseline

    Raises
    ------
    PairsError
        When there is no row, or a row has neither a label nor soft labels.

    Examples
    --------
    >>> from tiewise.data.simulation.simulate import simulate
    >>> pairs = simulate(90)
    >>> fit_baseline(pairs, groups=["one group"] * 90).predict(pairs).shape
    (90, 3)
    """
    targets = make_targets(pairs, soft_weight=soft_weight)
    named = np.asarray(pairs["group"] if groups is None else groups).astype(str)
    if features is None:
        features = describe_pairs(pairs)
    wins_a, wins_b, ties = targets.probs.T
    decided, asked = wins_a + wins_b, 1 - targets.binary_fraction
    first_wins, is_tie = _divide(wins_a, decided), _divide(ties, asked)
    winner = fit_part(
        features, first_wins, targets.weights * decided, named, is_odd=True, seed=seed
    )
    tie = fit_part(features, is_tie, targets.weights * asked, named, is_odd=False, seed=seed)
    return Baseline(winner, tie, features.signed_names, features.shared_names, len(pairs))


def load_baseline(folder: Path | str) -> Baseline:
    """Return the model that `Baseline.save` wrote.

    Raises
    ------
    ModelError
        When a file is missing, damaged, or from a version that counts other features.
    """
    folder = Path(folder)
    values = _read_model(folder)
    try:
        names = tuple(values["signed_names"]), tuple(values["shared_names"])
        with np.load(folder / _TREES_FILE, allow_pickle=False) as file:
            arrays = dict(file)
        winner, tie = (
            _part_from_json(values[part], _with_prefix(arrays, f"{part}_"), names)
            for part in ("winner", "tie")
        )
        return Baseline(winner, tie, *names, values["n_rows"])
    except (KeyError, TypeError, OSError) as error:
        raise ModelError(f"{folder}: the baseline is damaged ({error!r}); {_MEND}") from error


def describe_pairs(pairs: pd.DataFrame) -> PairFeatures:
    """Return the features of n pairs, at least one."""
    prompts, responses_a, responses_b = (list(pairs[name]) for name in TEXT_COLUMNS)
    return extract_features(prompts, responses_a, responses_b)


def _divide(part: FloatArray, whole: FloatArray) -> FloatArray:
    return part / np.where(whole > 0, whole, 1.0)


def _part_to_json(part: Part) -> dict[str, Any]:
    return {
        "is_odd": part.is_odd,
        "settings": dataclasses.asdict(part.settings),
        "logistic": part.logistic.to_json(),
    }


def _part_from_json(
    values: Mapping[str, Any],
    arrays: Mapping[str, npt.NDArray[Any]],
    names: tuple[tuple[str, ...], tuple[str, ...]],
) -> Part:
    signed, shared = names
    n_seen = len(signed) + len(shared)
    is_odd = bool(values["is_odd"])
    logistic = Logistic.from_json(values["logistic"], len(signed) if is_odd else n_seen)
    settings = Settings(**{**values["settings"], "blend": tuple(values["settings"]["blend"])})
    return Part(logistic, Trees.from_arrays(arrays, n_seen), settings, is_odd)


def _with_prefix(
    arrays: Mapping[str, npt.NDArray[Any]], prefix: str
) -> dict[str, npt.NDArray[Any]]:
    names = [name for name in arrays if name.startswith(prefix)]
    return {name.removeprefix(prefix): arrays[name] for name in names}


def _read_model(folder: Path) -> dict[str, Any]:
    """Read the JSON and hold the trees' file against the digest in it."""
    try:
        values: dict[str, Any] = json.loads((folder / _MODEL_FILE).read_text(encoding="utf-8"))
        digest = digest_file(folder / _TREES_FILE)
    except (OSError, ValueError) as error:
        raise ModelError(f"{folder}: no readable baseline ({error}); {_MEND}") from error
    version = values.get("features_version")
    if version != FORMAT_VERSION:
        raise ModelError(
            f"{folder}: the baseline was fitted on features of version {version}, "
            f"this tiewise counts version {FORMAT_VERSION}; {_MEND}"
        )
    if values.get("trees_sha256") != digest:
        raise ModelError(f"{folder / _TREES_FILE}: the file was changed after fitting; {_MEND}")
    return values
