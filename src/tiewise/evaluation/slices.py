"""Scores of slices of the data, such as one language, and which of them differ from the rest.

Each slice is compared with all other rows; the difference of log loss, its interval and its p-value
come from one bootstrap over groups. The p-values of all slices are Holm-adjusted together.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Unpack

import numpy as np
import numpy.typing as npt
import pandas as pd

from tiewise.data.labels import PROB_COLUMNS
from tiewise.data.parse import count_characters, join_turns
from tiewise.evaluation.intervals import (
    FEW_GROUPS,
    BootstrapOptions,
    FloatArray,
    GroupedRows,
    Interval,
    Result,
    bootstrap,
    group_rows,
)
from tiewise.evaluation.languages import guess_language
from tiewise.evaluation.metrics import (
    are_verdicts,
    check_labels,
    check_probs,
    find_ids,
    log_losses,
)

MAX_MODEL_PAIRS = 20
"""Number of model pairs that have a slice: the most frequent ones."""

_MAX_NAME = 26  # characters of a name in the printed table
_UNKNOWN = Interval(float("nan"), float("nan"), float("nan"))
_CODE = re.compile(
    r"```|^\s*(?:def |class |import |from \w+ import |#include|SELECT )", re.MULTILINE
)


@dataclass(frozen=True)
class SliceScores(Result):
    """Scores of one slice and its difference to the other rows."""

    family: str
    slice: str
    """Attribute by which the rows are sliced, such as "language", and its value, "German"."""

    n: int
    n_groups: int
    log_loss: Interval
    accuracy: Interval
    difference: Interval
    """Log loss of the slice minus that of all other rows; of verdicts, accuracy."""

    p_value: float
    p_holm: float = float("nan")
    """p-value adjusted for the number of slices; NaN where it is not defined."""

    n_groups_outside: int = FEW_GROUPS
    """Number of groups with rows outside the slice."""

    @property
    def is_rough(self) -> bool:
        """Whether the slice or the other rows have too few groups for a test."""
        return min(self.n_groups, self.n_groups_outside) < FEW_GROUPS


@dataclass(frozen=True)
class Slices(Result):
    """Scores of all slices."""

    rows: tuple[SliceScores, ...]
    omitted: dict[str, str]
    """By attribute: why the rows could not be sliced by it."""

    confidence_level: float
    metric: Literal["log_loss", "accuracy"] = "log_loss"
    """The compared score: accuracy where every probability is 0 or 1, as of verdicts."""

    def to_frame(self) -> pd.DataFrame:
        """Return one row per slice; `value`, `low` and `high` are of the compared score.

        `is_different` is whether the adjusted p-value is below one minus the confidence level, and
        the slice and the other rows have at least 30 groups each.
        """
        lines = [
            vars(row)
            | vars(getattr(row, self.metric))
            | {"accuracy": row.accuracy.value, "difference": row.difference.value}
            | {"is_different": self._differs(row)}
            for row in self.rows
        ]
        order = "family slice n n_groups value low high accuracy difference p_value p_holm"
        return pd.DataFrame(lines, columns=[*order.split(), "is_different"])

    def to_dict(self) -> dict[str, Any]:
        """Return the slices for JSON; numbers that are not defined are None."""
        rows = [row.to_dict() for row in self.rows]
        return {"slices": rows, "omitted": self.omitted, "metric": self.metric}

    def __str__(self) -> str:
        name, level = self.metric.replace("_", " "), f"{1 - self.confidence_level:.2g}"
        rough = f"rough, below {FEW_GROUPS} prompt groups in the part or outside it"
        lines = [
            f"{'part of the data':28}{'rows':>6}  {name:23}  {'minus all other rows':26}  Holm's p",
            f"*: p below {level}; ~: {rough}",
        ]
        left_out = []
        for family in dict.fromkeys(row.family for row in self.rows):
            rows = [row for row in self.rows if row.family == family]
            if len(rows) == 1:
                left_out.append(f"{family}: {rows[0].slice} in all rows")
            else:
                lines += [family, *map(self._show, rows)]
        left_out += [f"{name}: omitted, {why}" for name, why in self.omitted.items()]
        return "\n".join(lines + left_out)

    def _show(self, row: SliceScores) -> str:
        """Return the line of a slice, of at most 100 characters."""
        name = row.slice if len(row.slice) <= _MAX_NAME else row.slice[: _MAX_NAME - 1] + "…"
        score, difference = f"{getattr(row, self.metric):.4f}", f"{row.difference:+.4f}"
        p_value = format_p(row.p_holm).removeprefix("p ")
        mark = "*" if self._differs(row) else "~" if row.is_rough else ""
        line = f"  {name:{_MAX_NAME}}{row.n:6,}  {score:23}  {difference:26}  {p_value:6} {mark}"
        return line.rstrip()

    def _differs(self, row: SliceScores) -> bool:
        return not row.is_rough and row.p_holm < 1 - self.confidence_level


def evaluate_slices(
    pairs: pd.DataFrame, oof: pd.DataFrame, **options: Unpack[BootstrapOptions]
) -> Slices:
    """Score every slice of the labelled rows of `oof`.

    `pairs` has the `id` of every row, and as many columns of a pairs table as there are; `oof` has
    `id, label, group, prob_a, prob_b, prob_tie` and further columns to slice by.
    """
    table = join_rows(pairs, oof[oof["label"].notna()])
    labels = check_labels(table["label"])
    probs = check_probs(table[PROB_COLUMNS].to_numpy(), len(labels))
    has_verdicts = are_verdicts(probs)
    losses, is_right = log_losses(labels, probs), probs.argmax(1) == labels
    compared = is_right if has_verdicts else losses
    terms = np.column_stack([compared, is_right, np.ones(len(labels))])
    grouped = group_rows(table["group"], labels, probs)
    slicings, omitted = slice_rows(table)
    rows: list[SliceScores] = []
    for family, slices in slicings.items():
        rows += [
            SliceScores(
                **about,
                log_loss=_UNKNOWN if has_verdicts else first.clip(0, np.inf),
                accuracy=accuracy,
                difference=difference.clip(-1, 1) if has_verdicts else difference,
                p_value=p_values[2],
                n_groups_outside=table["group"][slices.astype(str) != about["slice"]].nunique(),
            )
            for about, (first, accuracy, difference), p_values in bootstrap_slices(
                family, slices, grouped, terms, is_share=True, **options
            )
        ]
    level = options.get("confidence_level", 0.95)
    metric: Literal["log_loss", "accuracy"] = "accuracy" if has_verdicts else "log_loss"
    return Slices(tuple(adjust_rows(rows)), omitted, level, metric)


def bootstrap_slices(
    family: str,
    slices: pd.Series,
    grouped: GroupedRows,
    terms: FloatArray,
    *,
    is_share: bool,
    **options: Unpack[BootstrapOptions],
) -> Iterator[tuple[dict[str, Any], list[Interval], list[float]]]:
    """Yield name and counts, three intervals and three p-values of each slice of a family.

    `terms`, (n, 3), has two values of each row, and a column of ones. The intervals are of the mean
    of both in the slice, and of the difference of the first to all other rows. `is_share` says
    whether the second is a share, otherwise it is a difference of shares.
    """
    names = slices.cat.categories.astype(str)
    # A row without a category (missing) counts in no slice.
    member = np.asarray(slices.cat.codes)[:, None] == np.arange(len(names))
    columns = (member[:, :, None] * terms[:, None, :]).reshape(len(terms), -1)
    sums = grouped.sums(np.hstack([columns, terms]))
    counts, whole = sums[:, 2:-3:3], sums[:, -1:]
    n_groups, n_rest = (counts > 0).sum(0), (whole > counts).sum(0)
    # The degrees of freedom of a difference are those of its part with fewer groups.
    degrees = np.concatenate([n_groups, n_groups, np.minimum(n_groups, n_rest)]) - 1
    drawn = bootstrap(sums, _compare_with_rest, **options)
    intervals, p_values = drawn.intervals(), drawn.p_values(np.maximum(degrees, 1)).tolist()
    second = slice(len(names), 2 * len(names))
    shares = drawn.share_intervals(np.tile(counts, 3))[second]
    clipped = [interval.clip(-1, 1) for interval in intervals[second]]
    intervals[second] = shares if is_share else clipped
    for k, (name, n) in enumerate(zip(names, counts.sum(0), strict=True)):
        about = {"family": family, "slice": name, "n": int(n), "n_groups": int(n_groups[k])}
        yield about, intervals[k :: len(names)], p_values[k :: len(names)]


def _compare_with_rest(totals: FloatArray) -> FloatArray:
    """From (..., (k + 1) * 3) to (..., 3 * k): log losses, accuracies and differences of k slices.

    The sums are those of loss, right rows and rows of each slice, then of all rows.
    """
    sums = totals.reshape(*totals.shape[:-1], -1, 3)
    parts, rest = sums[..., :-1, :], sums[..., -1:, :] - sums[..., :-1, :]
    log_loss, accuracy = parts[..., 0] / parts[..., 2], parts[..., 1] / parts[..., 2]
    difference = log_loss - rest[..., 0] / rest[..., 2]
    return np.concatenate([log_loss, accuracy, difference], axis=-1)


def join_rows(pairs: pd.DataFrame, oof: pd.DataFrame) -> pd.DataFrame:
    """Join predictions with the pairs they belong to, by id; rows and order are those of `oof`.

    Columns that both tables have are taken from `oof`.

    >>> pairs = pd.DataFrame({"id": [1, 2], "language": ["English", "German"]})
    >>> join_rows(pairs, pd.DataFrame({"id": [2], "fold": [0]}))
       id  fold language
    0   2     0   German
    """
    positions = find_ids(oof["id"], pairs["id"], name="pairs")
    further = [column for column in pairs.columns if column not in oof.columns]
    found = pairs[further].iloc[positions].reset_index(drop=True)
    return pd.concat([oof.reset_index(drop=True), found], axis=1)


def format_p(p_value: float) -> str:
    """Format a p-value, for example "p 0.040" or "p <0.001"."""
    if np.isnan(p_value):
        return "p not defined"
    return "p <0.001" if p_value < 0.001 else f"p {p_value:.3f}"


def adjust_holm(p_values: npt.ArrayLike) -> FloatArray:
    """Adjust p-values for their number by the method of Holm (1979); NaN are not counted.

    >>> adjust_holm([0.01, 0.04, float("nan"), 0.03]).round(3)
    array([0.03, 0.06,  nan, 0.06])
    """
    values = np.asarray(p_values, dtype=np.float64)
    known = np.flatnonzero(~np.isnan(values))
    order = known[np.argsort(values[known], kind="stable")]
    adjusted = np.full(len(values), np.nan)
    factors = np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(values[order] * factors), 1)
    return adjusted


def adjust_rows(rows: list[Any]) -> list[Any]:
    """Return results with `p_holm`: their p-values adjusted together."""
    adjusted = adjust_holm([row.p_value for row in rows]).tolist()
    return [replace(row, p_holm=p) for row, p in zip(rows, adjusted, strict=True)]


def slice_rows(table: pd.DataFrame) -> tuple[dict[str, pd.Series], dict[str, str]]:
    """Slice rows by every attribute in `SLICINGS` for which the table has the columns.

    Returns a categorical Series by attribute, missing where a row is in no slice, with the
    categories in the order in which to show them; and by attribute why the rows could not be sliced
    by it.

    >>> table = pd.DataFrame({"prompt": [["Hi"], ["Hi", "And?"]], "n_truncated": [0, 7]})
    >>> slicings, omitted = slice_rows(table)
    >>> slicings["truncated"].tolist(), omitted["code"]
    (['whole', 'truncated'], 'no column response_a, response_b')
    """
    slicings, omitted = {}, {}
    for name, (columns, assign) in SLICINGS.items():
        missing = [column for column in columns if column not in table]
        if missing:
            omitted[name] = f"no column {', '.join(missing)}"
            continue
        slices = assign(*(table[column] for column in columns))
        if slices.notna().any():
            slicings[name] = slices.cat.remove_unused_categories()
        else:
            omitted[name] = f"no values in {', '.join(columns)}"
    return slicings, omitted


def _is_blank(turns: Sequence[str | None]) -> bool:
    """Whether there is no turn, or one of them is missing or only white space."""
    return not turns or any(turn is None or not turn.strip() for turn in turns)


def _categories(values: Iterable[Any], order: Sequence[str], index: pd.Index) -> pd.Series:
    return pd.Series(pd.Categorical(list(values), categories=list(order)), index=index)


def _cut_numbers(numbers: pd.Series, edges: Sequence[float], names: Sequence[str]) -> pd.Series:
    """Name the bin of each number; `edges` are the lower ends of all bins but the first."""
    places = np.searchsorted(edges, numbers.to_numpy(np.float64), side="right")
    return _categories((names[place] for place in places), names, numbers.index)


def _either(flags: pd.Series, yes: str, no: str) -> pd.Series:
    return _categories(np.where(flags.to_numpy(bool), yes, no), [yes, no], flags.index)


def _by_frequency(names: pd.Series) -> pd.Series:
    """Make each value a slice, the most frequent first; equally frequent ones by name."""
    counts = names.dropna().astype(str).value_counts()
    order = sorted(counts.index, key=lambda name: (-counts[name], name))
    return _categories(names, order, names.index)


def _length_gap(response_a: pd.Series, response_b: pd.Series) -> pd.Series:
    a, b = (responses.map(count_characters) for responses in (response_a, response_b))
    factor = np.exp(np.abs(np.log1p(a) - np.log1p(b)))
    names = ["less than 1.1 times", "1.1 to 1.5 times", "1.5 to 3 times", "3 times or more"]
    return _cut_numbers(factor, [1.1, 1.5, 3], names)


def _prompt_length(prompts: pd.Series) -> pd.Series:
    names = ["under 100 characters", "100 to 499", "500 to 1,999", "2,000 or more"]
    return _cut_numbers(prompts.map(count_characters), [100, 500, 2000], names)


def _blank(response_a: pd.Series, response_b: pd.Series) -> pd.Series:
    either = response_a.map(_is_blank) | response_b.map(_is_blank)
    return _either(either, "a response null or empty", "both complete")


def _code(prompts: pd.Series, response_a: pd.Series, response_b: pd.Series) -> pd.Series:
    rows = zip(prompts, response_a, response_b, strict=True)
    has_code = [any(_CODE.search(join_turns(turns)) for turns in row) for row in rows]
    return _either(pd.Series(has_code, index=prompts.index), "code", "no code")


def _model_pair(model_a: pd.Series, model_b: pd.Series) -> pd.Series:
    both = model_a.notna() & model_b.notna()
    names = [" / ".join(sorted(pair)) for pair in zip(model_a[both], model_b[both], strict=True)]
    pairs = pd.Series(names, index=model_a.index[both], dtype=object).reindex(model_a.index)
    named = _by_frequency(pairs).cat
    return pd.Series(named.set_categories(named.categories[:MAX_MODEL_PAIRS]))


def _outcome(winners: pd.Series) -> pd.Series:
    words = {"model_a": "A or B won", "model_b": "A or B won", "tie": "tie"}
    known = winners.dropna().map(lambda word: words.get(word, "tie, both bad"))
    names = ["A or B won", "tie", "tie, both bad"]
    return _categories(known.reindex(winners.index), names, winners.index)


SLICINGS: dict[str, tuple[list[str], Callable[..., pd.Series]]] = {
    "turns": (
        ["prompt"],
        lambda prompts: _cut_numbers(prompts.map(len), [2, 3, 4], ["1", "2", "3", "4 or more"]),
    ),
    "length gap": (["response_a", "response_b"], _length_gap),
    "prompt length": (["prompt"], _prompt_length),
    "null or empty": (["response_a", "response_b"], _blank),
    "truncated": (["n_truncated"], lambda counts: _either(counts > 0, "truncated", "whole")),
    "code": (["prompt", "response_a", "response_b"], _code),
    "language": (["prompt"], lambda prompts: _by_frequency(prompts.map(guess_language))),
    "model pair": (["model_a", "model_b"], _model_pair),
    "outcome": (["winner"], _outcome),
    "source": (["source"], _by_frequency),
}
"""By attribute: the columns it needs, and the function from them to the slice of each row."""
