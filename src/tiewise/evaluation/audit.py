"""Audit a pairs table: findings in words, counts, repeated texts, leakage, lengths."""

from __future__ import annotations

import html
import textwrap
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from tiewise.data.first_text import SYSTEM_COLUMN, first_texts, fold, normalise, user_texts
from tiewise.data.folds import Folds, fold_by_group, fold_by_id, fold_by_position
from tiewise.data.labels import Winner
from tiewise.data.near_duplicates import merge_near_duplicates
from tiewise.data.pairs import (
    TEXT_COLUMNS,
    compose_turns,
    is_degenerate,
    row_digests,
    text_lengths,
)
from tiewise.errors import FoldError
from tiewise.evaluation.findings import SEVERITIES, Finding, find_problems

Figures = dict[str, int | float]
_N_LARGEST, _MAX_SHOWN = 5, 48
_LINE = 100  # characters of a line
_CLASSES = {"A": Winner.A, "B": Winner.B, "tie": Winner.TIE}
_LEVELS = {"median": 0.5, "90th percentile": 0.9, "maximum": 1.0}


@dataclass(frozen=True)
class Audit:
    """Findings about a data set in words, then its figures by section.

    Counts are numbers of rows unless the name says otherwise; shares are in [0, 1].
    """

    rows: Figures
    """Rows read, rejected and repaired, and rows that are unusual."""
    classes: Figures
    winners: Figures
    """Rows of each word for a winner; "both bad" is counted apart from other ties."""
    missing: Figures
    """Rows with a missing turn and rows with a blank text, by column."""
    repeats: Figures
    """Number of prompt groups; rows that share their group, prompt, a response or all texts; rows
    whose prompt group has several spellings of the first text, such as accents in one code point
    and in two; and rows without a user text, which are one group."""
    largest: Figures
    """Rows of the largest prompt groups, by group and the beginning of the prompt."""
    leakage: Figures
    """By fold rule: share of the held-out rows with rows of their group in the training set;
    `random` is its expectation where each row is assigned to a fold at random."""
    characters: Figures
    """Characters of each text and of the row: median, 90th percentile, maximum."""
    tokens: Figures
    """Tokens of each text and of the row, as for characters; and for each truncation rule the share
    of a text's tokens that it cuts."""
    omitted: dict[str, str]
    """Figures that are not available, and the reason; and the columns that are not read."""
    findings: list[Finding] = field(default_factory=list)
    """Problems and what to do about them, worst first."""

    def to_dict(self) -> dict[str, Any]:
        """Return findings and sections as dictionaries and lists that JSON can hold."""
        sections = asdict(self)
        return {"findings": sections.pop("findings"), **sections}

    def __str__(self) -> str:
        """Return the findings, then the sections as a table of plain text."""
        sections = self.to_dict()
        del sections["findings"]
        lines = ["findings", *(self._describe_findings() or ["  none"])]
        for section, figures in sections.items():
            width = max(map(len, figures), default=0)
            lines += [section] if figures else []
            lines += [f"  {name:<{width}}  {_formatted(value)}" for name, value in figures.items()]
        return "\n".join(lines)

    def _describe_findings(self) -> list[str]:
        width = max(map(len, SEVERITIES))
        lines = []
        for finding in self.findings:
            first, further = f"  {finding.severity:{width}}  ", " " * (width + 4)
            text = " ".join(finding.text.split())
            lines += textwrap.wrap(text, _LINE, initial_indent=first, subsequent_indent=further)
        return lines

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(str(self))}</pre>"


def audit_pairs(
    pairs: pd.DataFrame,
    *,
    n_splits: int = 5,
    seed: int = 0,
    token_lengths: npt.ArrayLike | None = None,
    kept_tokens: Mapping[str, npt.ArrayLike] | None = None,
) -> Audit:
    """Count rows, classes, unusual and repeated rows, leakage and lengths of a pairs table.

    `n_splits` and `seed` are those of the folds whose leakage is measured. `token_lengths`,
    integers of shape (n, 3), count the tokens of prompt, response A and response B; `kept_tokens`
    those that each named truncation rule keeps.

    >>> from tiewise.data.pairs import build_pairs
    >>> texts = {"prompt": [["Hi"]] * 4, "response_a": [["x"]] * 4, "response_b": [["y"]] * 4}
    >>> pairs = build_pairs({"id": range(4), **texts, "label": [0, 1, 2, 2]})
    >>> found = audit_pairs(pairs, n_splits=2)
    >>> found.classes, found.leakage["position"]
    ({'A': 1, 'B': 1, 'tie': 2, 'unlabelled': 0}, 1.0)
    """
    unread = ", ".join(pairs.attrs.get("unread", []))
    omitted = {"columns not read": unread} if unread else {}
    words = sorted(pairs["winner"].dropna().unique())
    figures: dict[str, Figures] = {
        "rows": _count_rows(pairs),
        "classes": {
            **{name: int((pairs["label"] == label).sum()) for name, label in _CLASSES.items()},
            "unlabelled": int(pairs["label"].isna().sum()),
        },
        "winners": {word: int((pairs["winner"] == word).sum()) for word in words},
        "missing": _count_missing(pairs),
        "repeats": _count_repeats(pairs),
        "largest": _largest_groups(pairs),
        "leakage": _measure_leakage(pairs, n_splits, seed, omitted),
        "characters": _quantiles(text_lengths(pairs).to_numpy()),
        "tokens": _describe_tokens(token_lengths, kept_tokens, omitted),
    }
    return Audit(**figures, omitted=omitted, findings=find_problems(pairs, figures))


def leak_share(groups: npt.ArrayLike, folds: npt.ArrayLike) -> float:
    """Return the share of rows that are held out while rows of their group are trained on.

    >>> leak_share(["p", "p", "q", "r"], [0, 1, 0, 1])
    0.5
    """
    n_folds = pd.Series(np.asarray(folds)).groupby(np.asarray(groups)).transform("nunique")
    return float((n_folds > 1).mean()) if len(n_folds) else 0.0


def random_leak_share(groups: npt.ArrayLike, n_splits: int) -> float:
    """Return the expected :func:`leak_share` when each row is assigned to a fold at random.

    A row of a group of m rows leaks unless the m - 1 others are in its own fold.

    >>> random_leak_share(["p", "p", "q", "r"], 2)
    0.25
    """
    sizes = pd.Series(np.asarray(groups)).value_counts().to_numpy()
    return float((sizes * (1 - float(n_splits) ** (1 - sizes))).sum() / max(sizes.sum(), 1))


def _count_rows(pairs: pd.DataFrame) -> Figures:
    n_turns = [pairs[name].map(len) for name in TEXT_COLUMNS]
    is_mismatched = (n_turns[0] != n_turns[1]) | (n_turns[0] != n_turns[2])
    is_identical = [a == b for a, b in zip(pairs["response_a"], pairs["response_b"], strict=True)]
    return {
        "read": len(pairs),
        "rejected": len(pairs.attrs.get("rejected", [])),
        "repaired": int(pairs.attrs.get("repaired", 0)),
        "identical responses": sum(is_identical),
        "degenerate": int(is_degenerate(pairs).sum()),
        "turn mismatches": int(is_mismatched.sum()),
        "several turns": int((n_turns[0] > 1).sum()),
        "system text": int(pairs[SYSTEM_COLUMN].notna().sum()) if SYSTEM_COLUMN in pairs else 0,
        "duplicate ids": _count_repeated(pairs["id"]),
    }


def _count_missing(pairs: pd.DataFrame) -> Figures:
    figures: Figures = {}
    for name in TEXT_COLUMNS:
        figures[f"{name}, missing turn"] = sum(None in turns for turns in pairs[name])
        figures[f"{name}, blank"] = sum(
            not any(turn and turn.strip() for turn in turns) for turns in pairs[name]
        )
    return figures


def _count_repeats(pairs: pd.DataFrame) -> Figures:
    prompts, *responses = (
        pd.Series([tuple(compose_turns(turns)) for turns in pairs[name]], dtype=object)
        for name in TEXT_COLUMNS
    )
    is_repeated = pd.concat(responses).duplicated(keep=False).to_numpy().reshape(2, -1).any(axis=0)
    spellings = pd.Series(user_texts(pairs), dtype=object)
    texts = spellings.map(normalise)
    n_spellings = spellings.map(fold).groupby(texts).transform("nunique")
    return {
        "prompt groups": int(pairs["group"].nunique()),
        "rows with a shared prompt group": _count_repeated(pairs["group"]),
        "rows with a repeated prompt": _count_repeated(prompts),
        "rows with a repeated response": int(is_repeated.sum()),
        "rows with all texts repeated": _count_repeated(
            pd.Series(row_digests(pairs, composed=True))
        ),
        "rows equal but for code points": int((n_spellings > 1).sum()),
        "rows without a user text": int((texts == "").sum()),
    }


def _count_repeated(values: pd.Series) -> int:
    return int(values.duplicated(keep=False).sum())


def _largest_groups(pairs: pd.DataFrame) -> Figures:
    texts = dict(zip(pairs["group"], first_texts(pairs), strict=True))
    sizes = Counter(pairs["group"])
    largest = sorted(sizes, key=lambda group: (-sizes[group], group))[:_N_LARGEST]
    return {
        f"{group} {texts[group][:_MAX_SHOWN]}": sizes[group]
        for group in largest
        if sizes[group] > 1
    }


def _measure_leakage(
    pairs: pd.DataFrame, n_splits: int, seed: int, omitted: dict[str, str]
) -> Figures:
    rules: Mapping[str, Callable[[], Folds]] = {
        "position": lambda: fold_by_position(len(pairs), n_splits),
        "id": lambda: fold_by_id(pairs["id"], n_splits),
        "group": lambda: fold_by_group(pairs["group"], pairs["label"], n_splits, seed=seed),
    }
    figures: Figures = {"random": random_leak_share(pairs["group"], n_splits)}
    for name, rule in rules.items():
        try:
            folds = rule()
            figures[name] = leak_share(pairs["group"], folds)
        except FoldError as error:
            omitted[f"leakage by {name}"] = str(error)
    if "group" in figures:  # the last rule, so `folds` are by group
        try:
            figures["group, near-duplicates"] = leak_share(merge_near_duplicates(pairs), folds)
        except ImportError:
            omitted["near-duplicates"] = "rensa is not installed: pip install 'tiewise[audit]'"
    return figures


def _describe_tokens(
    token_lengths: npt.ArrayLike | None,
    kept_tokens: Mapping[str, npt.ArrayLike] | None,
    omitted: dict[str, str],
) -> Figures:
    if token_lengths is None:
        omitted["tokens"] = "no backbone was given, so no text was tokenised"
        return {}
    lengths = np.asarray(token_lengths, dtype=np.int64).reshape(-1, 3)
    figures = _quantiles(lengths)
    if kept_tokens is None:
        omitted["truncation"] = "no truncation rule was given"
    for rule, rows in (kept_tokens or {}).items():
        kept = np.asarray(rows, dtype=np.int64).reshape(-1, 3)
        cut = (lengths - kept).sum(axis=0) / np.maximum(lengths.sum(axis=0), 1)
        figures[f"{rule}, truncated rows"] = int((kept < lengths).any(axis=1).sum())
        for name, share in zip(TEXT_COLUMNS, cut.tolist(), strict=True):
            figures[f"{rule}, share cut of {name}"] = share
        is_lost = (lengths[:, 2] > 0) & (kept[:, 2] == 0)
        figures[f"{rule}, rows without response_b"] = int(is_lost.sum())
    return figures


def _quantiles(lengths: npt.NDArray[np.int64]) -> Figures:
    """Return quantiles of each text's length and of the row's: lengths (n, 3)."""
    if len(lengths) == 0:
        return {}
    columns = np.c_[lengths, lengths.sum(axis=1)].T
    return {
        f"{name}, {level}": int(np.quantile(column, share, method="higher"))
        for name, column in zip((*TEXT_COLUMNS, "row"), columns, strict=True)
        for level, share in _LEVELS.items()
    }


def _formatted(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.3f}"
    return f"{value:,}" if isinstance(value, int) else str(value)
