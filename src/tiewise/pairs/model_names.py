"""Who answered: names of models as a training signal, never as an input.

A model that must also guess which two models it reads learns what their answers are like, of which
the winner is a consequence. The names of the rows learned from are numbered here; of the rows held
out, and of rows to be predicted, nobody asks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from tiewise.errors import PairsError

UNKNOWN = -1
_COLUMNS = ["model_a", "model_b"]


@dataclass(frozen=True)
class ModelNames:
    """Which models answered.

    codes
        int64, shape (n, 2): numbers of A's and B's model, `UNKNOWN` where a row does not say.
    n_models
        How many there are.
    """

    codes: npt.NDArray[np.int64]
    n_models: int

    def with_swapped(self) -> ModelNames:
        """Return 2n rows: as given, then with A and B exchanged."""
        return ModelNames(np.concatenate([self.codes, self.codes[:, ::-1]]), self.n_models)


def number_models(pairs: pd.DataFrame) -> ModelNames:
    """Give each model that a pairs table names a number, in alphabetical order.

    Raises
    ------
    PairsError
        When no row names a model.

    Examples
    --------
    >>> number_models(pd.DataFrame({"model_a": ["vicuna", None], "model_b": ["alpaca", "vicuna"]}))
    ModelNames(codes=array([[ 1,  0],
           [-1,  1]]), n_models=2)
    """
    sides = [pairs[name] if name in pairs else pd.Series([None] * len(pairs)) for name in _COLUMNS]
    known = sorted({str(name) for side in sides for name in side.dropna()})
    if not known:
        raise PairsError(
            "--model-names-weight learns from who answered, and no row names its models (columns "
            "model_a, model_b). Leave the flag out, or give data with names."
        )
    number = {name: k for k, name in enumerate(known)}
    codes = [[number.get(str(name), UNKNOWN) for name in side.fillna("")] for side in sides]
    return ModelNames(np.array(codes, dtype=np.int64).T, len(known))
