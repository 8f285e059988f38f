"""Comparison of the feature model with simpler models on real votes, out of fold, by group.

    python benchmarks/baseline.py ../shared/data/human_votes.csv --out benchmarks/baseline.md

Five folds by group for each of three seeds. Every model sees the same rows, no model sees names of
models or sources, and penalties are chosen by group inside the training rows. *TF-IDF + length* is
a logistic regression on the difference of the TF-IDF vectors of the responses and on lengths;
``--by-source`` adds one such model per source, which no other model has. The feature model is
fitted as ``tiewise fit --preset baseline --folds all`` does, in runs that resume.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.sparse import csr_matrix, hstack, vstack
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from tiewise.config import RunConfig, load_preset
from tiewise.crossfit import cross_fit
from tiewise.data.folds import fold_by_group, split
from tiewise.data.formats import read_many
from tiewise.data.labels import PROB_COLUMNS
from tiewise.data.pairs import text_lengths
from tiewise.data.parse import join_turns
from tiewise.evaluation.references import predict_class_prior, predict_length_only
from tiewise.evaluation.scores import compare, evaluate
from tiewise.files import write_bytes, write_parquet
from tiewise.runs.folder import RunFolder
from tiewise.runs.references import score_finished_folds
from tiewise.runs.tables import read_folds, read_oof

Model = Callable[[pd.DataFrame, pd.DataFrame, int], np.ndarray]
N_SPLITS = 5
PENALTIES = (0.03, 0.1, 0.3, 1.0)
"""Candidates for the inverse penalty ``C`` of TF-IDF + length."""
REFERENCE = "TF-IDF + length"


def main() -> None:
    """Parse the arguments, fit, print and write the table."""
    parser = argparse.ArgumentParser(prog="baseline", description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, help="write the table to this markdown file")
    parser.add_argument("--artifacts", type=Path, default=Path("artifacts"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--by-source", action="store_true")
    arguments = parser.parse_args()
    pairs = read_many([arguments.data])
    pairs = pairs.join(text_lengths(pairs))
    lines = []
    for seed in range(arguments.seeds):
        lines += describe_seed(pairs, predict_seed(pairs, seed, arguments), seed)
        print("\n".join(lines), flush=True)
    if arguments.out:
        write_bytes(arguments.out, render(pairs, lines, arguments).encode())


def predict_seed(
    pairs: pd.DataFrame, seed: int, arguments: argparse.Namespace
) -> dict[str, np.ndarray]:
    """Predict every row out of fold by every model; the runs of the CPU-class model are kept."""
    run = fit_runs(arguments, seed)
    folds = read_folds(run)["fold"].to_numpy()
    models: dict[str, Model] = {
        "class prior": lambda train, rows, _: predict_class_prior(train, rows),
        "length only": lambda train, rows, _: predict_length_only(train, rows),
        REFERENCE: predict_tfidf,
    }
    if arguments.by_source:
        models[f"{REFERENCE}, by source"] = predict_tfidf_by_source
    kept = arguments.artifacts / "benchmark"
    probs = {
        name: keep(kept / f"{name}-{seed}.parquet", pairs, folds, model, seed)
        for name, model in models.items()
    }
    probs["baseline"] = probs_of(run, pairs)
    return probs


def fit_runs(arguments: argparse.Namespace, seed: int) -> RunFolder:
    """Fit every fold of the CPU-class model, or find it fitted."""
    config = configure(arguments.data, seed)
    run, _ = cross_fit(
        config, range(N_SPLITS), arguments.artifacts, name=f"human-{seed}", resume=True
    )
    score_finished_folds(run)
    return run


def configure(data: Path, seed: int) -> RunConfig:
    """Return the preset with a seed, of folds and model alike."""
    config = load_preset("baseline")
    return replace(
        config,
        data=replace(config.data, data=(str(data),), data_seed=seed, n_splits=N_SPLITS),
        train=replace(config.train, seed=seed),
    )


def probs_of(run: RunFolder, pairs: pd.DataFrame) -> np.ndarray:
    """Return a run's out-of-fold probabilities in the order of the pairs."""
    return read_oof(run).set_index("id").loc[pairs["id"], PROB_COLUMNS].to_numpy()


def keep(path: Path, pairs: pd.DataFrame, folds: np.ndarray, model: Model, seed: int) -> np.ndarray:
    """Return out-of-fold probabilities, from a file where they stand there for the same folds."""
    if path.is_file():
        found = pd.read_parquet(path)
        if found["id"].tolist() == pairs["id"].tolist() and (found["fold"] == folds).all():
            return found[PROB_COLUMNS].to_numpy()
    probs = predict_out_of_fold(pairs, folds, model, seed)
    table = pd.DataFrame(probs, columns=PROB_COLUMNS).assign(id=pairs["id"], fold=folds)
    write_parquet(path, table)
    return probs


def predict_out_of_fold(
    pairs: pd.DataFrame, folds: np.ndarray, model: Model, seed: int
) -> np.ndarray:
    """Return probabilities of every row by a model that has not seen its group."""
    probs = np.empty((len(pairs), 3))
    for fold in range(N_SPLITS):
        train_idx, eval_idx = split(folds, fold)
        probs[eval_idx] = model(pairs.iloc[train_idx], pairs.iloc[eval_idx], seed)
    return probs


def describe_seed(pairs: pd.DataFrame, probs: dict[str, np.ndarray], seed: int) -> list[str]:
    """Return a seed's lines of the table."""
    return [
        describe(pairs, name, found, probs[REFERENCE], f"| {seed} | {name} ")
        for name, found in probs.items()
    ]


def describe(
    pairs: pd.DataFrame, name: str, probs: np.ndarray, reference: np.ndarray, head: str
) -> str:
    """Return a line of the table: scores with intervals, each source, and the paired difference."""
    labels, groups = pairs["label"].to_numpy(int), pairs["group"].to_numpy(str)
    scores = evaluate(labels, probs, groups=groups)
    costs = -np.log(probs[np.arange(len(labels)), labels])
    by_source = [f"{cost:.3f}" for cost in pd.Series(costs).groupby(list(pairs["source"])).mean()]
    gap = "–"
    if name != REFERENCE:
        gap = f"{compare(labels, probs, reference, groups=groups):+.4f}"
    cells = [f"{scores.log_loss:.4f}", f"{scores.accuracy:.3f}", *by_source, gap]
    return f"{head}| {' | '.join(cells)} |"


def predict_tfidf(train: pd.DataFrame, rows: pd.DataFrame, seed: int) -> np.ndarray:
    """Fit TF-IDF + length and predict, both in both orders, the penalty chosen by group."""
    folds = fold_by_group(train["group"], train["label"], 3, seed=seed)
    costs: dict[float, list[float]] = {penalty: [] for penalty in PENALTIES}
    for fold in range(3):
        train_idx, eval_idx = split(folds, fold)
        held_out = train.iloc[eval_idx]
        labels = held_out["label"].to_numpy(int)
        for penalty, probs in fit_tfidf(train.iloc[train_idx], held_out, PENALTIES).items():
            costs[penalty] += (-np.log(probs[np.arange(len(labels)), labels])).tolist()
    best = min(PENALTIES, key=lambda penalty: np.mean(costs[penalty]))
    return fit_tfidf(train, rows, (best,))[best]


def predict_tfidf_by_source(train: pd.DataFrame, rows: pd.DataFrame, seed: int) -> np.ndarray:
    """Fit and predict each source by itself."""
    probs = np.empty((len(rows), 3))
    for source in rows["source"].unique():
        chosen = (rows["source"] == source).to_numpy()
        same = train[train["source"] == source]
        probs[chosen] = predict_tfidf(same, rows[chosen], seed)
    return probs


def fit_tfidf(
    train: pd.DataFrame, rows: pd.DataFrame, inverse_penalties: tuple[float, ...]
) -> dict[float, np.ndarray]:
    """Fit logistic regressions on both orders of the training rows; average over both orders."""
    answers = pd.concat([train["response_a"], train["response_b"]]).map(join_turns)
    vectorizer = TfidfVectorizer(min_df=3, sublinear_tf=True, max_features=20_000).fit(answers)
    table = vstack([tfidf_table(train, vectorizer, sign) for sign in (1, -1)]).tocsr()
    labels = train["label"].to_numpy(int)
    both_labels = np.concatenate([labels, np.array([1, 0, 2])[labels]])
    orders = [tfidf_table(rows, vectorizer, sign) for sign in (1, -1)]
    probs = {}
    for penalty in inverse_penalties:
        model = LogisticRegression(C=penalty, max_iter=1000).fit(table, both_labels)
        given, exchanged = (model.predict_proba(order) for order in orders)
        probs[penalty] = (given + exchanged[:, [1, 0, 2]]) / 2
    return probs


def tfidf_table(pairs: pd.DataFrame, vectorizer: TfidfVectorizer, sign: int) -> csr_matrix:
    """Return the difference of TF-IDF vectors and lengths; `sign` -1 exchanges the answers."""
    a, b = (vectorizer.transform(pairs[f"response_{side}"].map(join_turns)) for side in "ab")
    prompt, n_a, n_b = (np.log1p(pairs[f"n_chars_{name}"]) for name in ("prompt", "a", "b"))
    gap = sign * (n_a - n_b)
    relative = sign * (pairs["n_chars_a"] - pairs["n_chars_b"]) / 1000
    lengths = np.column_stack([gap, gap.abs(), relative, relative.abs(), n_a + n_b, prompt])
    return hstack([sign * (a - b), csr_matrix(lengths / [1, 1, 1, 1, 4, 2])]).tocsr()


def render(pairs: pd.DataFrame, lines: list[str], arguments: argparse.Namespace) -> str:
    """Return the page: what was done, the table, how to repeat it."""
    sources = sorted(pairs["source"].unique())
    n_groups = pairs["group"].nunique()
    flag = " --by-source" if arguments.by_source else ""
    head = ["seed", "model", "log loss", "accuracy", *sources, f"minus {REFERENCE}"]
    return "\n".join(
        [
            "# The feature model on real votes",
            "",
            f"`{arguments.data.name}`: {len(pairs):,} rows in {n_groups} groups, {N_SPLITS} folds "
            "by group, every row predicted by models that have not seen its group. Log loss in "
            "nats with 95 % intervals by bootstrap over groups; the columns of the sources are log "
            "loss on their rows; the last column is the paired difference with its interval.",
            "",
            f"    python benchmarks/baseline.py ../shared/data/{arguments.data.name}"
            f"{flag} --seeds {arguments.seeds} --out benchmarks/baseline.md",
            "",
            f"| {' | '.join(head)} |",
            f"|{' --- |' * len(head)}",
            *lines,
            "",
            "*TF-IDF + length*: logistic regression on the difference of the responses' TF-IDF "
            "vectors and on lengths, both orders, penalty chosen by group inside the training "
            "rows. *By source*: one such model for each source; the other models do not know "
            "the source.",
            "",
        ]
    )


if __name__ == "__main__":
    main()
