"""Findings of an audit: problems of a data set in words, with their severity and a remedy.

A finding needs a share of rows above a threshold, or an interval that excludes chance, so that a
sound data set has none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from tiewise.data.labels import Winner
from tiewise.data.pairs import TEXT_COLUMNS, text_lengths
from tiewise.evaluation.intervals import (
    FEW_GROUPS,
    Interval,
    bootstrap,
    group_rows,
    mean_of_sums,
)
from tiewise.evaluation.languages import UNKNOWN_LANGUAGE, guess_language

Severity = Literal["high", "medium", "low"]
Figures = Mapping[str, int | float]

Found = Iterator[tuple[Severity, str]]

SEVERITIES: tuple[Severity, ...] = ("high", "medium", "low")
"""Worst first: scores would be wrong or a fit is refused; scores need care; good to know."""

NOTABLE_SHARE = 0.01
"""Share of rows from which a finding counts: fewer rows change no score by more than 0.01."""

A_SHARE_MARGIN = 0.05
"""Distance from one half of the share that A wins: public votes are within 0.02."""

FIXED_SIDE = 0.9
"""Share that one side wins from which the order of the responses tells the winner."""

LONGER_SHARE = 0.55
"""Share that the longer response wins from which length alone is a strong reference."""

UNKNOWN_LANGUAGES = 0.1
"""Share of prompts of unknown language from which slices by language say little."""


@dataclass(frozen=True)
class Finding:
    """A problem of a data set, and what to do about it."""

    severity: Severity
    text: str


def find_problems(pairs: pd.DataFrame, figures: Mapping[str, Figures]) -> list[Finding]:
    """Return the findings about a pairs table, worst first.

    `figures` are the sections of its audit: `rows`, `classes`, `missing`, `repeats`, `leakage`,
    `tokens`.
    """
    if pairs.empty:
        return [Finding("high", "There are no rows.")]
    found = [Finding(*each) for find in _FINDERS for each in find(pairs, figures)]
    return sorted(found, key=lambda finding: SEVERITIES.index(finding.severity))


def _find_leakage(pairs: pd.DataFrame, figures: Mapping[str, Figures]) -> Found:
    if not pairs["label"].notna().any():
        return
    leaking = figures["leakage"]
    if leaking["random"] >= NOTABLE_SHARE:
        yield (
            "medium",
            f"{leaking['random']:.1%} of held-out rows would share a prompt with training rows "
            "under a random split: use group folds (the default).",
        )
    if (near := leaking.get("group, near-duplicates", 0)) >= NOTABLE_SHARE:
        yield (
            "medium",
            f"{near:.1%} of held-out rows have a nearly equal prompt in the training rows, even "
            "with group folds: to unite such prompts, give them one value in a column group.",
        )


def _find_ids_and_groups(pairs: pd.DataFrame, figures: Mapping[str, Figures]) -> Found:
    if n := figures["rows"]["duplicate ids"]:
        yield "high", f"{_rows(n)} an id of another row; a fit needs unique ids: renumber them."
    n_groups = figures["repeats"]["prompt groups"]
    if n_groups < FEW_GROUPS:
        yield (
            "medium",
            f"There are {n_groups} different prompts: intervals from fewer than {FEW_GROUPS} are "
            "rough. Add pairs with other prompts.",
        )


def _find_classes(pairs: pd.DataFrame, figures: Mapping[str, Figures]) -> Found:
    counts = {name: figures["classes"][name] for name in ("A", "B", "tie")}
    if not any(counts.values()):
        return
    for side in ("A", "B"):
        if not counts[side]:
            yield "high", f"Response {side} never wins: check the column of the winners."
    if not counts["tie"]:
        yield "medium", "There are no ties, so a fit can only learn who wins, A or B."


def _find_sides(pairs: pd.DataFrame, figures: Mapping[str, Figures]) -> Found:
    rows = pairs[pairs["label"].isin([Winner.A, Winner.B]).to_numpy(bool)]
    if rows["label"].nunique() < 2:
        return
    wins = share_of(rows["label"] == Winner.A, rows["group"])
    gap = abs(wins.value - 0.5)
    if gap >= A_SHARE_MARGIN and not wins.low <= 0.5 <= wins.high:
        yield (
            "high" if gap >= FIXED_SIDE - 0.5 else "medium",
            f"Response A wins {wins:.1%} of the rows without a tie: check that the order of the "
            "responses was random.",
        )
    lengths = text_lengths(rows)[["n_chars_a", "n_chars_b"]].to_numpy()
    longer = np.sign(lengths[:, 0] - lengths[:, 1])
    unequal = rows[longer != 0]
    if unequal.empty:
        return
    is_longer = (longer[longer != 0] > 0) == (unequal["label"] == Winner.A)
    wins = share_of(is_longer, unequal["group"])
    if abs(wins.value - 0.5) >= LONGER_SHARE - 0.5 and not wins.low <= 0.5 <= wins.high:
        yield (
            "medium",
            f"The longer response wins {wins:.1%} of the rows without a tie: compare every judge "
            "with length only, as tiewise evaluate does.",
        )


def _find_repeats(pairs: pd.DataFrame, figures: Mapping[str, Figures]) -> Found:
    if n := figures["repeats"]["rows with all texts repeated"]:
        yield (
            _by_share(n, pairs),
            f"{_rows(n)} all texts of another row: if they are not votes of several people, remove "
            "the copies.",
        )
    is_same = [a == b for a, b in zip(pairs["response_a"], pairs["response_b"], strict=True)]
    is_won = pairs["label"].isin([Winner.A, Winner.B]).to_numpy(bool)
    if n := int((np.array(is_same, dtype=bool) & is_won).sum()):
        yield (
            _by_share(n, pairs),
            f"{_rows(n)} two identical responses and yet a winner: remove them, or make them ties.",
        )


def _find_damage(pairs: pd.DataFrame, figures: Mapping[str, Figures]) -> Found:
    if reasons := pairs.attrs.get("rejected", []):
        share = len(reasons) / (len(pairs) + len(reasons))
        yield (
            "medium" if share >= NOTABLE_SHARE else "low",
            f"{len(reasons):,} rows were rejected ({share:.1%}). The first: {reasons[0]}.",
        )
    for name in TEXT_COLUMNS:
        if n := figures["missing"][f"{name}, blank"]:
            yield _by_share(n, pairs), f"{_rows(n)} a blank {name}."
    if n := int(pairs.attrs.get("repaired", 0)):
        yield (
            "low",
            f"{_rows(n)} a lone surrogate, now U+FFFD, or an integer id written as a float.",
        )


def _find_unread(pairs: pd.DataFrame, figures: Mapping[str, Figures]) -> Found:
    if unread := pairs.attrs.get("unread", []):
        yield "low", f"Columns that are not read: {', '.join(unread)}."
    is_unknown = pairs["prompt"].map(guess_language) == UNKNOWN_LANGUAGE
    if (share := float(is_unknown.mean())) >= UNKNOWN_LANGUAGES:
        yield (
            "low",
            f"The language of {share:.1%} of the prompts is not known: slices by language count "
            f"them as {UNKNOWN_LANGUAGE}.",
        )


def _find_truncation(pairs: pd.DataFrame, figures: Mapping[str, Figures]) -> Found:
    n = figures["tokens"].get("balanced, truncated rows", 0)
    if n / len(pairs) >= NOTABLE_SHARE:
        yield (
            "medium",
            f"{n / len(pairs):.1%} of the rows have more tokens than max_length and are cut: "
            "raise --max-length if memory allows.",
        )


_FINDERS: tuple[Callable[[pd.DataFrame, Mapping[str, Figures]], Found], ...] = (
    _find_leakage,
    _find_ids_and_groups,
    _find_classes,
    _find_sides,
    _find_truncation,
    _find_repeats,
    _find_damage,
    _find_unread,
)


def share_of(is_counted: npt.ArrayLike, groups: npt.ArrayLike) -> Interval:
    """Return the share of rows that count, with an interval clustered by group.

    >>> f"{share_of([True, True, False, False] * 10, range(40)):.2f}"
    '0.50 [0.35, 0.65]'
    """
    counted = np.asarray(is_counted, dtype=np.float64)
    sums = group_rows(groups, counted).sums(np.column_stack([counted, np.ones(len(counted))]))
    # The interval of a share needs the standard error only, and no resamples.
    return bootstrap(sums, mean_of_sums, n_resamples=1).share_intervals(sums[:, 1:])[0]


def _rows(n: int | float) -> str:
    return "1 row has" if n == 1 else f"{n:,} rows have"


def _by_share(n: int | float, pairs: pd.DataFrame) -> Severity:
    return "medium" if n / len(pairs) >= NOTABLE_SHARE else "low"
