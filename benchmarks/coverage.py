"""Coverage of the 95 % intervals, by simulation.

    python benchmarks/coverage.py --data-sets 1000 --out benchmarks/coverage.md

Each data set has groups of very unequal size. Rows of a group share a random effect, so they are
far from independent, and the scored model is overconfident and does not know the effect. The true
value is the same score on 200,000 groups. It takes about five minutes on one core.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from scipy.special import softmax

from tiewise.evaluation.intervals import Interval
from tiewise.evaluation.metrics import MAX_BINS, MIN_GROUPS_PER_BIN
from tiewise.evaluation.scores import METRICS, compare, evaluate

N_TRUTH_GROUPS = 200_000
COMPARISONS = ("log_loss", "accuracy")


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
    """Bins of the calibration error at this number of groups."""
    return min(MAX_BINS, max(2, n_groups // MIN_GROUPS_PER_BIN))


def true_values(n_groups: int) -> dict[str, float]:
    """Scores in the limit of many groups; calibration error in as many bins as `n_groups` give."""
    labels, probs, other, groups = draw_rows(N_TRUTH_GROUPS, [0, 0])
    scores = evaluate(labels, probs, groups=groups, n_resamples=1)
    truth = {name: getattr(scores, name).value for name in METRICS}
    truth["ece"] = plain_calibration_error(labels, probs, n_bins(n_groups))
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


def main() -> None:
    """Print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--groups", type=int, nargs="+", default=[20, 40, 80, 200])
    parser.add_argument("--data-sets", type=int, default=1000)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    measured = {n: measure_coverage(n, options.data_sets) for n in options.groups}
    lines = [
        f"Coverage of 95 % intervals over {options.data_sets:,} simulated data sets, by groups.",
        "",
        "| score | " + " | ".join(f"{n} groups" for n in measured) + " |",
        "| --- |" + " ---: |" * len(measured),
    ]
    for name in measured[options.groups[0]]:
        cells = " | ".join(f"{100 * shares[name]:.1f} %" for shares in measured.values())
        lines.append(f"| {name.replace('_', ' ')} | {cells} |")
    print("\n".join(lines))
    if options.out:
        options.out.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
