"""Tables with a column for each class, A, B and tie: found by name, with rows in one order."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from tiewise.data.labels import LOGIT_COLUMNS, ONE_HOT_COLUMNS, PROB_COLUMNS
from tiewise.errors import ScoresError, TiewiseError

PROBS = (PROB_COLUMNS, ONE_HOT_COLUMNS, ("a", "b", "tie"))
"""Names of P(A), P(B), P(tie) in a table: ours, those of a Kaggle submission, and the classes."""
LOGITS = (LOGIT_COLUMNS, *PROBS)
"""Names of logits; a table of log-probabilities may have those of probabilities."""
PROBS_OR_LOGITS = (*PROBS, LOGIT_COLUMNS)


def read_columns(
    values: npt.ArrayLike | pd.DataFrame,
    name: str,
    *,
    known: Sequence[Sequence[str]] = PROBS,
    error: type[TiewiseError] = ScoresError,
) -> npt.NDArray[Any]:
    """Return an array, or the columns of A, B and tie of a table, which may be in any order.

    Other columns of a table are not read. Columns without names, numbered from 0, are in this order
    already. `error` is raised for a table without such columns; it calls the table `name`.
    """
    other: Any = values
    if not isinstance(values, pd.DataFrame | pd.Series) and hasattr(other, "to_pandas"):
        values = other.to_pandas()  # of polars or pyarrow
    if not isinstance(values, pd.DataFrame):
        return np.asarray(values)
    columns: list[Any] = list(values.columns)
    if columns == list(range(len(columns))):
        return values.to_numpy()
    complete = [names for names in known if set(names) <= set(columns)]
    if len(complete) > 1 and complete[0] != known[0]:
        both = " and ".join(", ".join(names) for names in complete)
        raise error(
            f"{name} has the columns {both}; one of them may be the labels. Give only the three "
            f"columns of {name}, or rename them to {', '.join(known[0])}."
        )
    if complete:
        return values[list(complete[0])].to_numpy()
    listed = ", ".join(map(str, columns))
    unknown = {str(each).lower(): each for each in columns if each not in known[0]}
    missing = [each for each in known[0] if each not in columns]
    hints = [
        f"Rename {unknown[close]} to {each}."
        for each in missing
        for close in get_close_matches(each, unknown, n=1)
    ]
    raise error(
        f"columns of {name} are {listed}; expected {', '.join(known[0])} in any order "
        f"(or {', '.join(known[1])}). {[*hints, f'{missing[0]} is missing.'][0]}"
    )


def check_order(*, error: type[TiewiseError] = ScoresError, **tables: Any) -> None:
    """Raise `error` if the indices of two tables have the same values in different orders."""
    indexed = {name: table for name, table in tables.items() if hasattr(table, "iloc")}
    first, *others = indexed or [""]
    for name in others:
        one, other = indexed[first].index, indexed[name].index
        is_other = len(one) == len(other) and not one.equals(other) and one.nlevels == other.nlevels
        if is_other and one.symmetric_difference(other, sort=False).empty:
            raise error(
                f"the index of {name} has another order than that of {first}; expected the same "
                f"order of rows. Give {name}.loc[{first}.index]; or, if the rows correspond as "
                "they are, both with reset_index(drop=True)."
            )
