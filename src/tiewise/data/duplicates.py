"""Groups whose first turns are nearly the same, which folds by group cannot know.

MinHash over five-character pieces finds candidates in linear time, and the exact overlap of the
pieces decides. Needs the library rensa (the extra ``audit``).

References
----------
Broder (1997), "On the resemblance and containment of documents".
"""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from tiewise.data.folds import fold_first_turn

_PIECE = 5
_N_CHARACTERS = 2_000
_N_HASHES, _N_BANDS, _SEED = 120, 20, 1


def unite_near_duplicates(pairs: pd.DataFrame, *, threshold: float = 0.8) -> npt.NDArray[np.str_]:
    """Join groups whose first turns are nearly the same.

    Parameters
    ----------
    pairs
        A pairs table of n rows; ``prompt`` and ``group`` are read.
    threshold
        In (0, 1]: the share of five-character pieces that two first turns must have in common. The
        first 2,000 characters count, their case and spaces folded.

    Returns
    -------
    str array
        Shape (n,): the name of a group that stands for all that are nearly the same as it. The
        order of the rows does not matter.

    Raises
    ------
    ImportError
        Where rensa is not installed.
    """
    firsts = pairs.drop_duplicates("group").sort_values("group")
    texts = {
        group: fold_first_turn(prompt)[:_N_CHARACTERS]
        for group, prompt in zip(firsts["group"], firsts["prompt"], strict=True)
    }
    leaders = _find_leaders(texts, threshold)
    return np.array([leaders[group] for group in pairs["group"]], dtype=str)


def _find_leaders(texts: dict[str, str], threshold: float) -> dict[str, str]:
    """Give each group the first one that it is near to, and only such first ones to be near to."""
    rensa: Any = importlib.import_module("rensa")
    index = rensa.RMinHashLSH(threshold=threshold, num_perm=_N_HASHES, num_bands=_N_BANDS)
    names = list(texts)
    leaders: dict[str, str] = {}
    for number, name in enumerate(names):
        pieces = _pieces(texts[name])
        sketch = rensa.RMinHash(num_perm=_N_HASHES, seed=_SEED)
        sketch.update(sorted(pieces))
        near = (names[other] for other in sorted(index.query(sketch)))
        leaders[name] = next((n for n in near if _overlap(pieces, texts[n]) >= threshold), name)
        if leaders[name] == name:
            index.insert(number, sketch)
    return leaders


def _overlap(pieces: set[str], text: str) -> float:
    others = _pieces(text)
    return len(pieces & others) / len(pieces | others)


def _pieces(text: str) -> set[str]:
    return {text[start : start + _PIECE] for start in range(max(1, len(text) - _PIECE + 1))}
