r"""Scores of the feature model on sources that it was not trained on.

    python -m benchmarks.sources ../shared/data --cache states --out benchmarks/sources.md

Each source is held out in turn. The models are fitted on all others, without the rows that share a
prompt group with it. Where they differ in P(tie), the question is A or B: P(tie) is removed and the
rest is normalised, and length only is fitted on decided rows. The folder `--cache` keeps the hidden
states of SmolLM2, which reads 10,000 responses: 40 minutes on a core with bfloat16 arithmetic.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.final import decide
from benchmarks.quality_judges import SMOLLM2
from tiewise.config import load_preset, override
from tiewise.data.folds import fold_by_group, split
from tiewise.data.formats import read_pairs
from tiewise.data.pairs import text_lengths
from tiewise.data.targets import make_targets, mark_no_tie_rows
from tiewise.evaluation.references import predict_length_only
from tiewise.evaluation.scores import compare, evaluate
from tiewise.features.binary_models import FOR_NEW_SOURCES, fit_binary_model
from tiewise.features.feature_model import extract_table_features, fit_feature_model
from tiewise.features.pair_features import PairFeatures
from tiewise.files import write_bytes
from tiewise.models.states import StateReader

FILES = ("human_votes.csv", "llmfao_votes.csv", "lmsys_decisive.csv")
WITHOUT_TIES = "lmsys_decisive"
FEW_PROMPTS = "llmfao_votes"
"""Source with 13 prompts: too few for an interval, so it is left out of the sum."""
IN_DOMAIN = "human_votes.csv"
N_READ = 3_000
"""Rows of the source without ties whose responses are read."""
N_SPLITS = 5
N_ROUNDS = 200

PAGE = """# The feature model on sources that it has not seen

    python -m benchmarks.sources ../shared/data --cache states --out benchmarks/sources.md

Log loss in nats, with 95 % intervals by prompt group; negative differences are better than *length
only*, or than a coin (0.6931). *Chosen*: settings chosen on held-out prompt groups of the training
sources, the default. *For new sources*: `tiewise fit --preset baseline --new-sources`, penalty 0.1,
100 trees and the mean of both models. These settings were taken from a table like this one, of
penalties 0.03 to 1, 40 and 100 trees and their mean, so a little of the gain is the choice.

## A or B

| source | rows | prompt groups | length only | chosen | from length only | for new sources | from length only | from a coin |
| --- | ---: | ---: | --- | --- | --- | --- | --- | --- |
{decided}

{few} has 13 prompts, too few for intervals, and is left out of the sum.

## Hidden states

A or B, with {n_read:,} rows of lmsys_decisive, drawn at random. *With states*: the log odds for new
sources are the mean of three models, and the third is that of the hidden states of SmolLM2-135M-Instruct,
untrained (`--states`). *Added*: a quarter of its log odds is added to those for new sources. Neither is
better on the arena votes, so `--states` is refused together with `--new-sources`.

| source | rows | for new sources | with states | difference | added | difference |
| --- | ---: | --- | --- | --- | --- | --- |
{states}

## What it costs on the sources of the training rows

`{in_domain}`, five folds by prompt group, three classes:

- chosen {chosen}
- for new sources {new}
- difference {cost}

## The rate of ties

Log loss of a tie against none. A model of ties from other sources is better than their constant rate
on two sources and worse on two. Estimating the rate of a new source from its unlabelled pairs, by
the expectation-maximisation of Saerens et al. (2002), ends far from the true rate, because the model
does not have the same errors on all sources; it is not part of the package.

| source | true rate | rate of the others | estimated rate | constant | model | with the estimated rate | with the true rate |
| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |
{ties}
"""  # noqa: E501 - lines of a page


def main() -> None:
    """Parse the arguments, print and write the page."""
    parser = argparse.ArgumentParser(prog="sources", description=__doc__.splitlines()[0])
    parser.add_argument("data_dir", type=Path)
    parser.add_argument("--cache", type=Path, default=Path("states"), help="folder of states")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    pairs, features = read_sources(arguments.data_dir)
    page = PAGE.format(
        decided="\n".join(judge_decided(pairs, features)),
        states="\n".join(judge_states(pairs, features, arguments.cache)),
        n_read=N_READ,
        ties="\n".join(judge_ties(pairs, features)),
        few=FEW_PROMPTS,
        in_domain=IN_DOMAIN,
        **judge_in_domain(pairs, features),
    )
    print(page)
    if arguments.out is not None:
        write_bytes(arguments.out, page.encode())


def read_sources(data_dir: Path) -> tuple[pd.DataFrame, PairFeatures]:
    """Read the files as one table; a file without sources is a source of its own."""
    tables = []
    for name in FILES:
        table = read_pairs(data_dir / name)
        source = table["source"].fillna(name.removesuffix(".csv"))
        tables.append(table.assign(source=source, file=name))
    pairs = mark_no_tie_rows(pd.concat(tables, ignore_index=True), [WITHOUT_TIES])
    return pairs.join(text_lengths(pairs)), extract_table_features(pairs)


def hold_out(pairs: pd.DataFrame, source: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the numbers of the training rows and of the rows held out."""
    is_held = (pairs["source"] == source).to_numpy()
    shares_prompt = pairs["group"].isin(set(pairs["group"][is_held])).to_numpy()
    return np.flatnonzero(~is_held & ~shares_prompt), np.flatnonzero(is_held)


def predict(
    pairs: pd.DataFrame,
    features: PairFeatures,
    train_idx: np.ndarray,
    eval_idx: np.ndarray,
    *,
    new_sources: bool,
) -> np.ndarray:
    """Fit the feature model on some rows and predict others."""
    train = pairs.iloc[train_idx].reset_index(drop=True)
    known = features.rows(train_idx)
    model = fit_feature_model(train, features=known, new_sources=new_sources)
    return model.predict_features(features.rows(eval_idx))


def judge_decided(pairs: pd.DataFrame, features: PairFeatures) -> Iterator[str]:
    """Yield a line for each source, and one for all rows but those of few prompts."""
    everything = []
    for source in pairs["source"].unique():
        train_idx, eval_idx = hold_out(pairs, source)
        eval_idx = eval_idx[(pairs["label"] < 2).to_numpy()[eval_idx]]
        decided_idx = train_idx[(pairs["label"] < 2).to_numpy()[train_idx]]
        rows = pairs.iloc[eval_idx]
        scores = [predict_length_only(pairs.iloc[decided_idx], rows)]
        scores += [
            predict(pairs, features, train_idx, eval_idx, new_sources=flag)
            for flag in (False, True)
        ]
        part = (rows[["label", "group"]], [decide(probs) for probs in scores])
        yield describe(source, *part)
        if source != FEW_PROMPTS:
            everything.append(part)
    tables, scores = zip(*everything, strict=True)
    yield describe(
        f"all but {FEW_PROMPTS}",
        pd.concat(tables),
        [np.concatenate(each) for each in zip(*scores, strict=True)],
    )


def describe(source: str, rows: pd.DataFrame, scores: list[np.ndarray]) -> str:
    """Return a line of the first table."""
    labels, groups = rows["label"].to_numpy(int), rows["group"].to_numpy()
    length, chosen, new = scores
    coin = np.tile([0.5, 0.5, 0.0], (len(rows), 1))
    by_length, by_choice, by_new = (
        f"{evaluate(labels, probs, groups=groups).log_loss.value:.4f}" for probs in scores
    )
    from_length, new_from_length, new_from_coin = (
        f"{compare(labels, probs, other, groups=groups):+.4f}"
        for probs, other in ((chosen, length), (new, length), (new, coin))
    )
    cells = [source, f"{len(rows):,}", f"{rows['group'].nunique():,}", by_length, by_choice]
    return f"| {' | '.join([*cells, from_length, by_new, new_from_length, new_from_coin])} |"


def judge_states(pairs: pd.DataFrame, features: PairFeatures, cache: Path) -> Iterator[str]:
    """Yield a line for each source, and one for all: the settings for new sources, and states."""
    others = np.flatnonzero(pairs["source"] != WITHOUT_TIES)
    drawn = np.random.default_rng(0).permutation(len(pairs) - len(others))[:N_READ]
    chosen = np.sort(np.append(others, np.flatnonzero(pairs["source"] == WITHOUT_TIES)[drawn]))
    rows = pairs.iloc[chosen].reset_index(drop=True)
    config = override(load_preset("baseline"), states=SMOLLM2, dtype="bfloat16")
    states = StateReader(config.model, cache_dir=cache).read(rows)
    features = replace(features.rows(chosen), states=states)
    everything = []
    for source in rows["source"].unique():
        train_idx, eval_idx = hold_out(rows, source)
        eval_idx = eval_idx[(rows["label"] < 2).to_numpy()[eval_idx]]
        scores = predict_with_states(rows, features, train_idx, eval_idx)
        part = (rows.iloc[eval_idx][["label", "group"]], scores)
        yield describe_states(source, *part)
        if source != FEW_PROMPTS:
            everything.append(part)
    tables, found = zip(*everything, strict=True)
    joined = [np.concatenate(each) for each in zip(*found, strict=True)]
    yield describe_states(f"all but {FEW_PROMPTS}", pd.concat(tables), joined)


def predict_with_states(
    rows: pd.DataFrame, features: PairFeatures, train_idx: np.ndarray, eval_idx: np.ndarray
) -> list[np.ndarray]:
    """Return P(A), P(B) without states, with them as a third model, and with a quarter added."""
    targets = make_targets(rows.iloc[train_idx].reset_index(drop=True))
    wins, decided = targets.probs[:, 0], targets.probs[:, :2].sum(axis=1)
    is_used = decided > 0
    outcomes = np.divide(wins, decided, out=np.zeros(len(wins)), where=is_used)
    known, new = features.rows(train_idx), features.rows(eval_idx)
    model = fit_binary_model(
        known, outcomes, targets.weights * decided, rows["group"].to_numpy(object)[train_idx],
        is_odd=True, settings=replace(FOR_NEW_SOURCES, states=1.0),
    )  # fmt: skip
    assert model.states is not None
    assert new.states is not None
    of_states = model.states.log_odds(new.states, is_odd=True)
    without = replace(model, states=None).log_odds(new)
    log_odds = [without, (2 * without + of_states) / 3, without + of_states / 4]
    probs = [1 / (1 + np.exp(-values)) for values in log_odds]
    return [np.stack([p, 1 - p, np.zeros(len(p))], axis=1) for p in probs]


def describe_states(source: str, rows: pd.DataFrame, scores: list[np.ndarray]) -> str:
    """Return a line of the table of hidden states."""
    labels, groups = rows["label"].to_numpy(int), rows["group"].to_numpy()
    losses = [f"{evaluate(labels, probs, groups=groups).log_loss.value:.4f}" for probs in scores]
    third, added = (
        f"{compare(labels, probs, scores[0], groups=groups):+.4f}" for probs in scores[1:]
    )
    cells = [source, f"{len(rows):,}", losses[0], losses[1], third, losses[2], added]
    return f"| {' | '.join(cells)} |"


def judge_in_domain(pairs: pd.DataFrame, features: PairFeatures) -> dict[str, str]:
    """Return the scores of both settings, out of fold, and their difference."""
    chosen_idx = np.flatnonzero(pairs["file"] == IN_DOMAIN)
    rows, known = pairs.iloc[chosen_idx].reset_index(drop=True), features.rows(chosen_idx)
    folds = fold_by_group(rows["group"], rows["label"], N_SPLITS)
    probs = {flag: np.empty((len(rows), 3)) for flag in (False, True)}
    for fold in range(N_SPLITS):
        train_idx, eval_idx = split(folds, fold)
        for flag, table in probs.items():
            table[eval_idx] = predict(rows, known, train_idx, eval_idx, new_sources=flag)
    labels, groups = rows["label"].to_numpy(int), rows["group"].to_numpy()
    scores = {k: evaluate(labels, table, groups=groups).log_loss for k, table in probs.items()}
    cost = compare(labels, probs[True], probs[False], groups=groups)
    return {"chosen": f"{scores[False]:.4f}", "new": f"{scores[True]:.4f}", "cost": f"{cost:+.4f}"}


def judge_ties(pairs: pd.DataFrame, features: PairFeatures) -> Iterator[str]:
    """Yield a line for each source that offers ties."""
    is_tie = (pairs["label"] == 2).to_numpy()
    offers = (pairs["source"] != WITHOUT_TIES).to_numpy()
    for source in pairs["source"][offers].unique():
        train_idx, eval_idx = hold_out(pairs, source)
        train_idx = train_idx[offers[train_idx]]
        probs = predict(pairs, features, train_idx, eval_idx, new_sources=False)[:, 2]
        log_odds = np.log(probs) - np.log1p(-probs)
        rate, true_rate = is_tie[train_idx].mean(), is_tie[eval_idx].mean()
        estimate = estimate_rate(log_odds, rate)
        losses = [
            binary_loss(to_log_odds(rate) + np.zeros(len(eval_idx)), is_tie[eval_idx]),
            *(
                binary_loss(log_odds + to_log_odds(new) - to_log_odds(rate), is_tie[eval_idx])
                for new in (rate, estimate, true_rate)
            ),
        ]
        rates = " | ".join(f"{value:.2f}" for value in (true_rate, rate, estimate))
        yield f"| {source} | {rates} | {' | '.join(f'{loss:.3f}' for loss in losses)} |"


def estimate_rate(log_odds: np.ndarray, rate: float) -> float:
    """Return the rate of ties that expectation-maximisation finds in unlabelled pairs."""
    estimate = rate
    for _ in range(N_ROUNDS):
        shifted = log_odds + to_log_odds(estimate) - to_log_odds(rate)
        estimate = float(np.clip((1 / (1 + np.exp(-shifted))).mean(), 1e-3, 1 - 1e-3))
    return estimate


def to_log_odds(rate: float) -> float:
    """Return the log odds of a probability."""
    return float(np.log(rate) - np.log1p(-rate))


def binary_loss(log_odds: np.ndarray, outcomes: np.ndarray) -> float:
    """Return the mean log loss of log odds."""
    return float((np.logaddexp(0, log_odds) - outcomes * log_odds).mean())


if __name__ == "__main__":
    main()
