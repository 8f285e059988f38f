r"""Scores of runs on all real votes, source by source, compared with length only.

    tiewise fit --preset baseline --new-sources --folds all --run final --data \
        ../shared/data/human_votes.csv ../shared/data/llmfao_votes.csv \
        ../shared/data/lmsys_decisive.csv
    python benchmarks/final.py artifacts/runs/final --out benchmarks/final.md

The blend with SmolLM2 takes hours more (two and a half a fold on one core, estimated):

    tiewise fit --preset smollm2-135m --folds all --run final-lm --data (the same)
    tiewise blend final final-lm --run final-blend
    python benchmarks/final.py artifacts/runs/final artifacts/runs/final-blend

On the rows of a source without ties the question is A or B, so P(tie) is removed from both
predictions and the rest is normalised. Length only is fitted, out of fold, on sources that offer
ties where the scored rows do. The last line scores all rows as `tiewise evaluate` does: there
length only is fitted on the mixture and knows its rate of ties, while the run has P(tie) from
sources that offer ties.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

from tiewise.data.labels import PROB_COLUMNS
from tiewise.evaluation.references import reference_probs
from tiewise.evaluation.scores import compare, evaluate
from tiewise.files import write_bytes
from tiewise.runs.folder import RunFolder, open_run
from tiewise.runs.tables import read_data, read_folds, read_oof

HEAD = ["run", "source", "rows", "groups", "log loss", "length only", "run minus length only"]


def main() -> None:
    """Parse the arguments, print and write the table."""
    parser = argparse.ArgumentParser(prog="final", description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    runs = [open_run(path, path.parent.parent) for path in arguments.runs]
    lines = [line for run in runs for line in score(run)]
    text = "\n".join([*lines_of_head(read_data(runs[0])["sources"]), *lines, ""])
    print(text)
    if arguments.out:
        write_bytes(arguments.out, text.encode())


def score(run: RunFolder) -> list[str]:
    """Return the lines of a run."""
    oof, folds = read_oof(run), read_folds(run)
    source = oof["id"].astype(str).str.partition(":")[0].to_numpy()
    ties = pd.Series(oof["label"] == 2).groupby(source).transform("any").to_numpy(bool)
    return [
        describe(run.name, name, oof[chosen], folds[folds["id"].isin(set(oof["id"][like]))])
        for name, chosen, like in [
            *((name, source == name, ties if ties[source == name].all() else source == name)
              for name in pd.unique(source)),
            ("all that offer ties", ties, ties),
            ("all, as if every source offered ties", ties | True, ties | True),
        ]
    ]  # fmt: skip


def describe(run: str, name: str, oof: pd.DataFrame, folds: pd.DataFrame) -> str:
    """Return a line: log loss of both with intervals, and the paired difference."""
    folds = folds.reset_index(drop=True)
    positions = pd.Index(folds["id"]).get_indexer(oof["id"])
    by_length = reference_probs(folds, positions)[0]["length_only"]
    probs, labels, groups = oof[PROB_COLUMNS].to_numpy(), oof["label"].to_numpy(int), oof["group"]
    if not (labels == 2).any():
        name, probs, by_length = f"{name}, A or B", decide(probs), decide(by_length)
    scores = [evaluate(labels, p, groups=groups).log_loss for p in (probs, by_length)]
    gap = compare(labels, probs, by_length, groups=groups)
    cells = [f"{len(oof):,}", f"{groups.nunique():,}", *(f"{s:.4f}" for s in scores), f"{gap:+.4f}"]
    return f"| {run} | {name} | {' | '.join(cells)} |"


def decide(probs: np.ndarray) -> np.ndarray:
    """Return the probabilities given that the pair is not a tie."""
    decided = probs * [1, 1, 0]
    return decided / decided.sum(axis=1, keepdims=True)


def lines_of_head(sources: list[str]) -> list[str]:
    """Return the head of the page: the commands, the files and the columns."""
    return [
        "# The feature model on all votes, with the settings for other sources",
        "",
        "    tiewise fit --preset baseline --new-sources --folds all --run final --data "
        + " ".join(f"../shared/data/{source.split()[0]}" for source in sources),
        "    python benchmarks/final.py artifacts/runs/final --out benchmarks/final.md",
        "",
        "Log loss in nats, out of fold by group, with 95 % intervals by bootstrap over groups "
        "(fewer than 30 groups: rough).",
        "",
        f"| {' | '.join(HEAD)} |",
        f"|{' --- |' * len(HEAD)}",
    ]


if __name__ == "__main__":
    main()
