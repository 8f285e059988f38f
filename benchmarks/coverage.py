"""Coverage of the 95 % intervals, by simulation.

    python benchmarks/coverage.py --out benchmarks/coverage.md

Three tables: all scores, shares near 0 and 1, and leaderboards. In the first, groups have very
unequal sizes. Rows of a group share a random effect, so they are far from independent, and the
scored model is overconfident and does not know the effect. The true value is the same score on
200,000 groups.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import softmax

from tiewise.data.labels import PROB_COLUMNS
from tiewise.evaluation.intervals import Interval, bootstrap, mean_of_sums
from tiewise.evaluation.leaderboard import rank_models
from tiewise.evaluation.metrics import MAX_BINS, MIN_GROUPS_PER_BIN
from tiewise.evaluation.scores import METRICS, compare, evaluate

N_TRUTH_GROUPS = 200_000
COMPARISONS = ("log_loss", "accuracy")
SHARES = (0.5, 0.9, 0.95, 0.98)
SHARE_GROUPS = (10, 20, 30, 50, 100)
CLUSTERS = {
    "one row": (1, 0.0),
    "five independent rows": (5, 0.0),
    "five rows, correlation 0.2": (5, 0.2),
}
"""Rows of a group, and their correlation, by name."""
STRENGTHS = np.array([1.0, 0.5, 0.0, -0.5, -1.0])
DESIGNS = {
    "dense": [(i, j) for i in range(5) for j in range(i + 1, 5)],
    "star": [(0, j) for j in range(1, 5)],
    "chain": [(i, i + 1) for i in range(4)],
    "two models": [(0, 4)],
}
BOARD_GROUPS = (50, 200)


def draw_rows(n_groups: int, seed: list[int]):
    """Labels, probabilities of two models, and groups: one row in four is in a big group."""
    generator = np.random.default_rng(seed)
    size = 1 + generator.geometric(0.12, n_groups)
    size = np.where(generator.random(n_groups) < 0.05, 5 * size, size)
    groups = np.repeat(np.arange(n_groups), size)
    taste = generator.normal(0, [0.5, 0.5, 0.7], (n_groups, 3))
    seen = generator.normal(size=(len(groups), 3))
    prior = np.array([0, 0, -0.3])
    true = softmax(seen + taste[groups] + prior, axis=1)
    labels = (generator.random(len(groups))[:, None] > true.cumsum(1)[:, :2]).sum(1)
    other = 0.6 * seen + generator.normal(0, 0.3, seen.shape)
    return labels, softmax(1.2 * seen + prior, axis=1), softmax(other + prior, axis=1), groups


def n_bins(n_groups: int) -> int:
    """Bins of the RMS calibration error at this number of groups."""
    return min(MAX_BINS, max(2, n_groups // MIN_GROUPS_PER_BIN))


def true_values(n_groups: int) -> dict[str, float]:
    """Scores in the limit of many groups; the RMS error in as many bins as `n_groups` give."""
    labels, probs, other, groups = draw_rows(N_TRUTH_GROUPS, [0, 0])
    scores = evaluate(labels, probs, groups=groups, n_resamples=1)
    truth = {name: getattr(scores, name).value for name in METRICS}
    truth["rms_calibration_error"] = plain_calibration_error(labels, probs, n_bins(n_groups))
    for metric in COMPARISONS:
        interval = compare(labels, probs, other, groups=groups, metric=metric, n_resamples=1)
        truth[f"difference of {metric}"] = interval.value
    return truth


def plain_calibration_error(labels, probs, bins: int) -> float:
    """Root mean square gap over bins of equal mass, without any correction."""
    confidence = probs.max(1)
    place = np.searchsorted(np.quantile(confidence, np.arange(1, bins) / bins), confidence, "right")
    gap = np.bincount(place, confidence - (probs.argmax(1) == labels))
    return float(np.sqrt((gap**2 / np.bincount(place)).sum() / len(labels)))


def intervals_of(n_groups: int, seed: int) -> dict[str, Interval]:
    """Every interval of one data set."""
    labels, probs, other, groups = draw_rows(n_groups, [n_groups, seed])
    scores = evaluate(labels, probs, groups=groups, seed=seed)
    intervals = {name: getattr(scores, name) for name in METRICS}
    for metric in COMPARISONS:
        difference = compare(labels, probs, other, groups=groups, metric=metric, seed=seed)
        intervals[f"difference of {metric}"] = difference
    return intervals


def measure_coverage(n_groups: int, n_data_sets: int) -> dict[str, float]:
    """Share of data sets whose interval holds the truth, by score."""
    truth = true_values(n_groups)
    hits = dict.fromkeys(truth, 0)
    for seed in range(1, n_data_sets + 1):
        for name, interval in intervals_of(n_groups, seed).items():
            hits[name] += interval.low <= truth[name] <= interval.high
    return {name: count / n_data_sets for name, count in hits.items()}


def cover_shares(share: float, n_groups: int, n_rows: int, correlation: float, n: int) -> float:
    """Share of `n` data sets whose interval of a share holds it; groups have `n_rows` rows."""
    generator = np.random.default_rng([n_groups, n_rows, round(1000 * share)])
    chance = np.full((n, n_groups), share)
    if correlation:
        scale = 1 / correlation - 1
        chance = generator.beta(share * scale, (1 - share) * scale, (n, n_groups))
    hits = 0
    for right in generator.binomial(n_rows, chance):
        sums = np.column_stack([right, np.full(n_groups, n_rows)]).astype(float)
        drawn = bootstrap(sums, mean_of_sums, n_resamples=1)  # a share needs no resamples
        interval = drawn.share_intervals(sums[:, 1:])[0]
        hits += interval.low <= share <= interval.high
    return hits / n


def cover_strengths(design: str, tie: float, n_groups: int, n: int) -> float:
    """Mean coverage of the strengths over `n` data sets of four correlated votes a group."""
    ranked = sorted({model for pair in DESIGNS[design] for model in pair})
    true = STRENGTHS - STRENGTHS[ranked].mean()
    hits = 0
    for seed in range(n):
        tables = draw_votes(design, tie, n_groups, seed)
        board = rank_models(*tables, n_resamples=399, seed=seed).observed
        for model, interval in zip(board.models, board.strengths, strict=True):
            hits += interval.low <= true[int(model)] <= interval.high
    return hits / n / len(ranked)


def draw_votes(design: str, tie: float, n_groups: int, seed: int):
    """Return pairs and predictions; the four votes of a group are of one pair of models.

    In half of the groups the votes are copies of the first one, otherwise they are independent.
    """
    generator = np.random.default_rng([seed, n_groups])
    first, second = np.array(DESIGNS[design])[np.arange(n_groups) % len(DESIGNS[design])].T
    lead = (STRENGTHS[first] - STRENGTHS[second]) / 2
    odds = np.exp(np.column_stack([lead, -lead, np.full(n_groups, tie)]))
    probs = odds / odds.sum(1, keepdims=True)
    draws = generator.random((n_groups, 4))
    draws = np.where(generator.random((n_groups, 1)) < 0.5, draws[:, :1], draws).ravel()
    probs = probs.repeat(4, axis=0)
    labels = (draws[:, None] > probs.cumsum(1)[:, :2]).sum(1)
    ids = np.arange(4 * n_groups)
    models = {"model_a": first.repeat(4).astype(str), "model_b": second.repeat(4).astype(str)}
    texts = {name: [["x"]] * len(ids) for name in ("response_a", "response_b")}
    oof = pd.DataFrame({"id": ids, "label": labels, "group": ids // 4})
    oof[PROB_COLUMNS] = probs
    return pd.DataFrame({"id": ids, **models, **texts}), oof


def tabulate(header: list[str], rows: dict[str, list[float]]) -> list[str]:
    """Return a Markdown table of shares in percent."""
    lines = [f"| {' | '.join(header)} |", "| --- |" + " ---: |" * (len(header) - 1)]
    for name, shares in rows.items():
        cells = " | ".join(f"{100 * share:.1f} %" for share in shares)
        lines.append(f"| {name} | {cells} |")
    return lines


def measure_cells(measure: Callable[..., Any], cells: Sequence[tuple[Any, ...]]) -> list[Any]:
    """Return ``measure(*cell)`` for each cell, in several processes."""
    with ProcessPoolExecutor() as pool:
        return list(pool.map(measure, *zip(*cells, strict=True)))


def score_table(groups: list[int], n: int) -> list[str]:
    """Return the table of all scores."""
    measured = measure_cells(
        partial(measure_coverage, n_data_sets=n), [(n_groups,) for n_groups in groups]
    )
    rows = {name.replace("_", " "): [of[name] for of in measured] for name in measured[0]}
    return tabulate(["score", *(f"{n_groups} groups" for n_groups in groups)], rows)


def share_table(n: int) -> list[str]:
    """Return the table of shares, by rows of a group and by number of groups."""
    names = {
        f"{share}, {name}": [(share, n_groups, *of) for n_groups in SHARE_GROUPS]
        for name, of in CLUSTERS.items()
        for share in SHARES
    }
    return tabulate_cells("share, group", partial(cover_shares, n=n), names, SHARE_GROUPS)


def board_table(n: int) -> list[str]:
    """Return the table of leaderboards, by design and by number of groups."""
    names = {
        f"{design}, {name}": [(design, tie, size) for size in BOARD_GROUPS]
        for design in DESIGNS
        for name, tie in {"no ties": -np.inf, "ties": 0.0}.items()
    }
    return tabulate_cells("design", partial(cover_strengths, n=n), names, BOARD_GROUPS)


def tabulate_cells(
    title: str,
    measure: Callable[..., float],
    cells: dict[str, list[tuple[Any, ...]]],
    sizes: Sequence[int],
) -> list[str]:
    """Measure the cells of each row and return the table."""
    found = iter(measure_cells(measure, [cell for row in cells.values() for cell in row]))
    rows = {name: [next(found) for _ in row] for name, row in cells.items()}
    return tabulate([title, *(f"{size} groups" for size in sizes)], rows)


def describe_scores(groups: list[int], n: int) -> list[str]:
    """Return the section on all scores."""
    return [
        f"## Scores, {n:,} data sets",
        "",
        *score_table(groups, n),
        "",
        "The interval of the ECE is wider than needed: noise makes the ECE too large, and its low "
        "end allows for a calibrated model.",
    ]


def describe_shares(n: int) -> list[str]:
    """Return the section on shares."""
    return [
        f"## Shares, {n:,} data sets",
        "",
        "A share of few rows has few possible values, so its coverage jumps.",
        "",
        *share_table(n),
    ]


def describe_boards(n: int) -> list[str]:
    """Return the section on leaderboards."""
    return [
        f"## Strengths of leaderboards, {n:,} data sets",
        "",
        "A group has four votes on one pair of models, which are equal in half of the groups. The "
        "coverage is the mean over models.",
        "",
        *board_table(n),
    ]


def main() -> None:
    """Print and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--groups", type=int, nargs="+", default=[20, 40, 80, 200])
    parser.add_argument("--scores", type=int, default=1000, help="data sets for all scores")
    parser.add_argument("--shares", type=int, default=2000, help="data sets for shares")
    parser.add_argument("--boards", type=int, default=200, help="data sets for leaderboards")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    sections = [
        ["# Coverage of 95 % intervals", "", f"`python {shlex.join(sys.argv)}`"],
        describe_scores(options.groups, options.scores) if options.scores else [],
        describe_shares(options.shares) if options.shares else [],
        describe_boards(options.boards) if options.boards else [],
    ]
    text = "\n\n".join("\n".join(lines) for lines in sections if lines)
    print(text)
    if options.out:
        options.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
