"""What is in a data set: counts, repetitions, what leaks under each fold rule, what a cut loses."""

from __future__ import annotations

import html
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from tiewise.data.duplicates import unite_near_duplicates
from tiewise.data.folds import fold_by_group, fold_by_id, fold_by_position, fold_first_turn
from tiewise.data.labels import Winner
from tiewise.data.schema import TEXT_COLUMNS
from tiewise.data.table import is_degenerate, row_digests, text_lengths
from tiewise.errors import FoldError
from tiewise.tokens.template import fill_in_order, share_budget

Figures = dict[str, int | float]
_NEAR = 0.8
_N_LARGEST, _SHOWN = 5, 48
_CLASSES = {"A": Winner.A, "B": Winner.B, "tie": Winner.TIE}


@dataclass(frozen=True)
class Audit:
    """The figures of a data set, section by section; printed, they are a table.

    Counts are of rows where nothing else is said; shares are in [0, 1].
    """

    rows: Figures
    """How many were read, left out, repaired, and are strange in which way."""
    classes: Figures
    """Rows of each class."""
    winners: Figures
    """Rows of each word for a winner; «both bad» is told apart from other ties here."""
    missing: Figures
    """Rows with a missing turn, and rows whose field is blank, by field."""
    repeats: Figures
    """Rows that are not the only ones of their conversation, prompt, response or text."""
    largest: Figures
    """Rows of the conversations that most rows come from, by group and the prompt's beginning."""
    leakage: Figures
    """By fold rule: the share of held-out rows whose group is also trained on."""
    characters: Figures
    """Characters a row, by field: median, nine tenths, most."""
    tokens: Figures
    """The same in tokens; and what a cut at ``max_length`` takes from each field, as a share of its
    tokens, from the right and balanced."""
    omitted: dict[str, str]
    """What could not be said, and why."""

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """Return every section as plain numbers and text, ready for JSON."""
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
    max_length: int | None = None,
) -> Audit:
    """Count what a pairs table holds and where it is dangerous.

    Parameters
    ----------
    pairs
        A pairs table of n rows.
    n_splits
        Folds for the leakage of each fold rule.
    seed
        Seed of the folds by group.
    token_lengths
        Shape (n, 3), integers >= 0: tokens of prompt, response A, response B before any cut.
    max_length
        Tokens of text that a row may keep. Delimiters are not counted here.

    Returns
    -------
    Audit
        Sections of figures, and what was omitted for which reason.

    Examples
    --------
    >>> from tiewise.data.schema import build_pairs
    >>> texts = {"prompt": [["Hi"]] * 4, "response_a": [["x"]] * 4, "response_b": [["y"]] * 4}
    >>> pairs = build_pairs({"id": range(4), **texts, "label": [0, 1, 2, 2]})
    >>> found = audit_pairs(pairs, n_splits=2)
    >>> found.classes, found.leakage["position"]
    ({'A': 1, 'B': 1, 'tie': 2, 'unlabelled': 0}, 1.0)
    """
    omitted: dict[str, str] = {}
    return Audit(
        rows=_count_rows(pairs),
        classes=_count_classes(pairs),
        winners={word: int((pairs["winner"] == word).sum()) for word in _words_of(pairs)},
        missing=_count_missing(pairs),
        repeats=_count_repeats(pairs),
        largest=_name_largest(pairs),
        leakage=_measure_leakage(pairs, n_splits, seed, omitted),
        characters=_spread(text_lengths(pairs).to_numpy(), TEXT_COLUMNS),
        tokens=_describe_tokens(token_lengths, max_length, omitted),
        omitted=omitted,
    )


def leak_share(groups: npt.ArrayLike, folds: npt.ArrayLike) -> float:
    """Give the share of rows that are held out while others of their group are trained on.

    Parameters
    ----------
    groups, folds
        Shape (n,): the group of each row, and the fold in which it is held out.

    Returns
    -------
    float
        In [0, 1], over all folds, each row being held out once; 0 for no rows.

    Examples
    --------
    >>> leak_share(["p", "p", "q", "r"], [0, 1, 0, 1])
    0.5
    """
    n_folds = pd.Series(np.asarray(folds)).groupby(np.asarray(groups)).transform("nunique")
    return float((n_folds > 1).mean()) if len(n_folds) else 0.0


def _count_rows(pairs: pd.DataFrame) -> Figures:
    n_turns = [pairs[name].map(len) for name in TEXT_COLUMNS]
    is_mismatched = (n_turns[0] != n_turns[1]) | (n_turns[0] != n_turns[2])
    is_identical = [a == b for a, b in zip(pairs["response_a"], pairs["response_b"], strict=True)]
    return {
        "read": len(pairs),
        "rejected": len(pairs.attrs.get("rejected", [])),
        "repaired": int(pairs.attrs.get("repaired", 0)),
        "identical answers": sum(is_identical),
        "degenerate": int(is_degenerate(pairs).sum()),
        "turn mismatches": int(is_mismatched.sum()),
        "several turns": int((n_turns[0] > 1).sum()),
        "duplicate ids": _count_shared(pairs["id"]),
    }


def _count_classes(pairs: pd.DataFrame) -> Figures:
    labels = pairs["label"]
    counts = {name: int((labels == winner).sum()) for name, winner in _CLASSES.items()}
    return {**counts, "unlabelled": int(labels.isna().sum())}


def _count_missing(pairs: pd.DataFrame) -> Figures:
    figures: Figures = {}
    for name in TEXT_COLUMNS:
        figures[f"{name}, a turn"] = sum(None in turns for turns in pairs[name])
        figures[f"{name}, blank"] = sum(
            not any(turn and turn.strip() for turn in turns) for turns in pairs[name]
        )
    return figures


def _count_repeats(pairs: pd.DataFrame) -> Figures:
    prompts = pairs["prompt"].map(tuple)
    responses = pd.concat([pairs["response_a"].map(tuple), pairs["response_b"].map(tuple)])
    is_repeated = responses.duplicated(keep=False).to_numpy().reshape(2, -1).any(axis=0)
    return {
        "conversations": int(pairs["group"].nunique()),
        "rows of one conversation": _count_shared(pairs["group"]),
        "rows of one prompt": _count_shared(prompts),
        "rows with a response again": int(is_repeated.sum()),
        "rows with all texts again": _count_shared(pd.Series(row_digests(pairs))),
    }


def _name_largest(pairs: pd.DataFrame) -> Figures:
    prompts = dict(zip(pairs["group"], pairs["prompt"], strict=True))
    sizes = Counter(pairs["group"])
    largest = sorted(sizes, key=lambda group: (-sizes[group], group))[:_N_LARGEST]
    return {
        f"{group} {fold_first_turn(prompts[group])[:_SHOWN]}": sizes[group]
        for group in largest
        if sizes[group] > 1
    }


def _words_of(pairs: pd.DataFrame) -> list[str]:
    return sorted(pairs["winner"].dropna().unique())


def _count_shared(values: pd.Series) -> int:
    return int(values.duplicated(keep=False).sum())


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
        near = unite_near_duplicates(pairs, threshold=_NEAR)
    except ImportError:
        omitted["near-duplicates"] = "rensa is not installed: pip install 'tiewise[audit]'"
        return {}
    return {"group, near-duplicates": leak_share(near, folds)}


def _describe_tokens(
    token_lengths: npt.ArrayLike | None, max_length: int | None, omitted: dict[str, str]
) -> Figures:
    if token_lengths is None:
        omitted["tokens"] = "no backbone was given, so no text was tokenised"
        return {}
    lengths = np.asarray(token_lengths, dtype=np.int64).reshape(-1, 3)
    figures = _spread(lengths, TEXT_COLUMNS)
    if max_length is None:
        omitted["what a cut loses"] = "no max_length was given"
        return figures
    figures["rows over max_length"] = int((lengths.sum(axis=1) > max_length).sum())
    for rule, share in (("right", fill_in_order), ("balanced", share_budget)):
        kept = share(lengths, max_length)
        lost = 1 - kept.sum(axis=0) / np.maximum(lengths.sum(axis=0), 1)
        lost[lengths.sum(axis=0) == 0] = 0
        figures |= {
            f"{rule}, lost of {name}": float(x) for name, x in zip(TEXT_COLUMNS, lost, strict=True)
        }
        is_lost = (lengths[:, 2] > 0) & (kept[:, 2] == 0)
        figures[f"{rule}, rows without response_b"] = int(is_lost.sum())
    return figures


def _spread(lengths: npt.NDArray[np.int64], names: tuple[str, ...]) -> Figures:
    if len(lengths) == 0:
        return {}
    columns = dict(zip((*names, "row"), np.c_[lengths, lengths.sum(axis=1)].T, strict=True))
    levels = {"median": 0.5, "nine tenths": 0.9, "most": 1.0}
    return {
        f"{name}, {level}": int(np.quantile(column, share, method="higher"))
        for name, column in columns.items()
        for level, share in levels.items()
    }


def _formatted(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.3f}"
    return f"{value:,}" if isinstance(value, int) else str(value)
