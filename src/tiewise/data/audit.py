"""Audit a pairs table: counts, repeated texts, leakage of each fold rule, lengths.

Near-duplicate prompts are found with MinHash over five-character shingles (Broder, 1997, "On the
resemblance and containment of documents") and confirmed by the exact overlap of the shingles. They
need the library rensa (the extra ``audit``).
"""

from __future__ import annotations

import html
import importlib
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from tiewise.data.folds import (
    fold_by_group,
    fold_by_id,
    fold_by_position,
    normalise_first_turn,
)
from tiewise.data.labels import Winner
from tiewise.data.pairs import TEXT_COLUMNS, is_degenerate, row_digests, text_lengths
from tiewise.errors import FoldError

Figures = dict[str, int | float]
_N_LARGEST, _MAX_SHOWN = 5, 48
_CLASSES = {"A": Winner.A, "B": Winner.B, "tie": Winner.TIE}
_LEVELS = {"median": 0.5, "90th percentile": 0.9, "maximum": 1.0}

_NEAR_THRESHOLD = 0.8
_SHINGLE, _MAX_COMPARED = 5, 2_000
_N_HASHES, _N_BANDS, _SEED = 120, 20, 1


@dataclass(frozen=True)
class Audit:
    """Figures of a data set by section, printed as a table.

    Counts are numbers of rows unless the name says otherwise; shares are in [0, 1].
    """

    rows: Figures
    """Rows read, rejected and repaired, and rows that are unusual."""
    classes: Figures
    """Rows of each class."""
    winners: Figures
    """Rows of each word for a winner; "both bad" is counted apart from other ties."""
    missing: Figures
    """Rows with a missing turn and rows with a blank text, by column."""
    repeats: Figures
    """Number of prompt groups, and rows that share their group, prompt, a response or all texts."""
    largest: Figures
    """Rows of the largest prompt groups, by group and the beginning of the prompt."""
    leakage: Figures
    """By fold rule: share of the held-out rows with rows of their group in the training set."""
    characters: Figures
    """Characters of each text and of the row: median, 90th percentile, maximum."""
    tokens: Figures
    """Tokens of each text and of the row, as for characters; and for each truncation rule the share
    of a text's tokens that it cuts."""
    omitted: dict[str, str]
    """Figures that are not available, and the reason."""

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """Return every section as a dictionary that JSON can hold."""
        return asdict(self)

    def __str__(self) -> str:
        """Return the sections as a table of plain text."""
        lines = []
        for section, figures in self.to_dict().items():
            width = max(map(len, figures), default=0)
            lines += [section] if figures else []
            lines += [f"  {name:<{width}}  {_formatted(value)}" for name, value in figures.items()]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        rows = []
        for section, figures in self.to_dict().items():
            rows += [f'<tr><th colspan="2">{html.escape(section)}</th></tr>'] if figures else []
            rows += [
                f"<tr><td>{html.escape(name)}</td><td>{html.escape(_formatted(value))}</td></tr>"
                for name, value in figures.items()
            ]
        return f"<table>{''.join(rows)}</table>"


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
    omitted: dict[str, str] = {}
    words = sorted(pairs["winner"].dropna().unique())
    return Audit(
        rows=_count_rows(pairs),
        classes=_count_classes(pairs),
        winners={word: int((pairs["winner"] == word).sum()) for word in words},
        missing=_count_missing(pairs),
        repeats=_count_repeats(pairs),
        largest=_largest_groups(pairs),
        leakage=_measure_leakage(pairs, n_splits, seed, omitted),
        characters=_quantiles(text_lengths(pairs).to_numpy()),
        tokens=_describe_tokens(token_lengths, kept_tokens, omitted),
        omitted=omitted,
    )


def leak_share(groups: npt.ArrayLike, folds: npt.ArrayLike) -> float:
    """Return the share of rows that are held out while rows of their group are trained on.

    >>> leak_share(["p", "p", "q", "r"], [0, 1, 0, 1])
    0.5
    """
    n_folds = pd.Series(np.asarray(folds)).groupby(np.asarray(groups)).transform("nunique")
    return float((n_folds > 1).mean()) if len(n_folds) else 0.0


def merge_near_duplicates(
    pairs: pd.DataFrame, *, threshold: float = _NEAR_THRESHOLD
) -> npt.NDArray[np.str_]:
    """Return each row's group, shape (n,), after merging groups with nearly equal first turns.

    `threshold` is the share of five-character shingles in common (Jaccard index) among the first
    2,000 characters, without case and repeated white space. The order of the rows has no effect.
    """
    firsts = pairs.drop_duplicates("group").sort_values("group")
    texts = {
        group: normalise_first_turn(prompt)[:_MAX_COMPARED]
        for group, prompt in zip(firsts["group"], firsts["prompt"], strict=True)
    }
    merged = _find_near_groups(texts, threshold)
    return np.array([merged[group] for group in pairs["group"]], dtype=str)


def _find_near_groups(texts: dict[str, str], threshold: float) -> dict[str, str]:
    """Map each group to the first group with a similar text, or else to itself.

    Only groups that map to themselves are candidates, so no group is reached over a chain.
    """
    rensa: Any = importlib.import_module("rensa")
    index = rensa.RMinHashLSH(threshold=threshold, num_perm=_N_HASHES, num_bands=_N_BANDS)
    names = list(texts)
    merged: dict[str, str] = {}
    for number, name in enumerate(names):
        shingles = _shingles(texts[name])
        sketch = rensa.RMinHash(num_perm=_N_HASHES, seed=_SEED)
        sketch.update(sorted(shingles))
        near = (names[other] for other in sorted(index.query(sketch)))
        merged[name] = next((n for n in near if _overlap(shingles, texts[n]) >= threshold), name)
        if merged[name] == name:
            index.insert(number, sketch)
    return merged


def _overlap(shingles: set[str], text: str) -> float:
    others = _shingles(text)
    return len(shingles & others) / len(shingles | others)


def _shingles(text: str) -> set[str]:
    return {text[start : start + _SHINGLE] for start in range(max(1, len(text) - _SHINGLE + 1))}


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
        "duplicate ids": _count_repeated(pairs["id"]),
    }


def _count_classes(pairs: pd.DataFrame) -> Figures:
    labels = pairs["label"]
    counts = {name: int((labels == winner).sum()) for name, winner in _CLASSES.items()}
    return {**counts, "unlabelled": int(labels.isna().sum())}


def _count_missing(pairs: pd.DataFrame) -> Figures:
    figures: Figures = {}
    for name in TEXT_COLUMNS:
        figures[f"{name}, missing turn"] = sum(None in turns for turns in pairs[name])
        figures[f"{name}, blank"] = sum(
            not any(turn and turn.strip() for turn in turns) for turns in pairs[name]
        )
    return figures


def _count_repeats(pairs: pd.DataFrame) -> Figures:
    responses = pd.concat([pairs["response_a"].map(tuple), pairs["response_b"].map(tuple)])
    is_repeated = responses.duplicated(keep=False).to_numpy().reshape(2, -1).any(axis=0)
    return {
        "prompt groups": int(pairs["group"].nunique()),
        "rows with a shared prompt group": _count_repeated(pairs["group"]),
        "rows with a repeated prompt": _count_repeated(pairs["prompt"].map(tuple)),
        "rows with a repeated response": int(is_repeated.sum()),
        "rows with all texts repeated": _count_repeated(pd.Series(row_digests(pairs))),
    }


def _count_repeated(values: pd.Series) -> int:
    return int(values.duplicated(keep=False).sum())


def _largest_groups(pairs: pd.DataFrame) -> Figures:
    prompts = dict(zip(pairs["group"], pairs["prompt"], strict=True))
    sizes = Counter(pairs["group"])
    largest = sorted(sizes, key=lambda group: (-sizes[group], group))[:_N_LARGEST]
    return {
        f"{group} {normalise_first_turn(prompts[group])[:_MAX_SHOWN]}": sizes[group]
        for group in largest
        if sizes[group] > 1
    }


def _measure_leakage(
    pairs: pd.DataFrame, n_splits: int, seed: int, omitted: dict[str, str]
) -> Figures:
    rules: Mapping[str, Callable[[], Any]] = {
        "position": lambda: fold_by_position(len(pairs), n_splits),
        "id": lambda: fold_by_id(pairs["id"], n_splits),
        "group": lambda: fold_by_group(pairs["group"], pairs["label"], n_splits, seed=seed),
    }
    figures: Figures = {}
    for name, rule in rules.items():
        try:
            folds = rule()
        except FoldError as error:
            omitted[f"leakage by {name}"] = str(error)
            continue
        figures[name] = leak_share(pairs["group"], folds)
        if name == "group":
            figures |= _measure_near_leakage(pairs, folds, omitted)
    return figures


def _measure_near_leakage(pairs: pd.DataFrame, folds: Any, omitted: dict[str, str]) -> Figures:
    try:
        merged = merge_near_duplicates(pairs)
    except ImportError:
        omitted["near-duplicates"] = "rensa is not installed: pip install 'tiewise[audit]'"
        return {}
    return {"group, near-duplicates": leak_share(merged, folds)}


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
        figures |= {
            f"{rule}, share cut of {name}": float(x)
            for name, x in zip(TEXT_COLUMNS, cut, strict=True)
        }
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
