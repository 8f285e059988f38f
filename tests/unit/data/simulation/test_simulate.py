"""Simulated pairs have labels from their posterior, and no position is better."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chi2
from sklearn.linear_model import LogisticRegression

from fp64 import read_csv
from tiewise.data.formats import read_pairs
from tiewise.data.pairs import check_pairs, swap_pairs
from tiewise.data.simulation.simulate import (
    BAYES_COLUMNS,
    TIE_STRENGTH,
    bayes_log_loss,
    join_posterior,
    posterior,
    simulate,
    write_simulation,
)
from tiewise.errors import FilesError, ScoresError

QUALITIES = st.floats(-40, 40)


@pytest.fixture(scope="module")
def pairs() -> pd.DataFrame:
    """Return a large simulation, made once."""
    return simulate(6000, seed=1)


def log_loss(probs: np.ndarray, labels: np.ndarray) -> float:
    """Return the mean negative log probability of the labels."""
    return float(-np.log(probs[np.arange(len(labels)), labels]).mean())


@given(QUALITIES, QUALITIES)
def test_posterior_sums_to_one(quality_a: float, quality_b: float) -> None:
    """The posterior is a distribution."""
    probs = posterior([quality_a], [quality_b])
    assert probs.min() >= 0
    assert np.isclose(probs.sum(), 1, rtol=0, atol=1e-12)


@given(QUALITIES, QUALITIES)
def test_swap_permutes_posterior(first: float, second: float) -> None:
    """Exchanging the qualities exchanges P(A) and P(B), bit for bit."""
    given_order, swapped = posterior([first], [second]), posterior([second], [first])
    assert np.array_equal(given_order[:, [1, 0, 2]], swapped)


@given(QUALITIES, st.floats(0.1, 5))
def test_better_response_wins_more(quality_a: float, gain: float) -> None:
    """P(A) grows and P(B) falls with the quality of A."""
    worse, better = posterior([quality_a, quality_a + gain], [0.0, 0.0])
    assert better[0] >= worse[0]
    assert better[1] <= worse[1]


def test_equal_qualities_tie_probability() -> None:
    """Between equals, P(tie) is the tie strength over the tie strength plus 2."""
    assert np.isclose(posterior([1.0], [1.0])[0, 2], TIE_STRENGTH / (TIE_STRENGTH + 2))


def test_simulation_is_a_pairs_table(pairs: pd.DataFrame) -> None:
    """Columns, types and winners are those of every other source."""
    check_pairs(pairs)
    assert list(pairs.columns[-3:]) == BAYES_COLUMNS


def test_seed_determines_simulation() -> None:
    """Equal seeds give equal tables, other seeds other tables."""
    assert simulate(50, seed=3).equals(simulate(50, seed=3))
    assert not simulate(50, seed=3).equals(simulate(50, seed=4))


def test_rows_do_not_depend_on_n(pairs: pd.DataFrame) -> None:
    """A short simulation is the beginning of a long one."""
    assert simulate(80, seed=1).equals(pairs.head(80))


def test_frequencies_match_posterior(pairs: pd.DataFrame) -> None:
    """Binned by P(A), the observed counts pass a chi-square test at 0.001."""
    probs, labels = pairs[BAYES_COLUMNS].to_numpy(), pairs["label"].to_numpy(int)
    bins = pd.qcut(probs[:, 0], 10, labels=False, duplicates="drop")
    observed = pd.DataFrame(np.eye(3)[labels]).groupby(bins).sum().to_numpy()
    expected = pd.DataFrame(probs).groupby(bins).sum().to_numpy()
    statistic = ((observed - expected) ** 2 / expected).sum()
    assert statistic < chi2.ppf(0.999, df=2 * len(observed))


def test_positions_are_balanced(pairs: pd.DataFrame) -> None:
    """A and B win equally often, within four standard errors."""
    n_wins = np.bincount(pairs["label"].to_numpy(int), minlength=3)
    assert abs(n_wins[0] - n_wins[1]) < 4 * np.sqrt(n_wins[0] + n_wins[1])


def test_length_predicts_little(pairs: pd.DataFrame) -> None:
    """Bayes is far below the class prior; length alone gains less than 0.02."""
    labels = pairs["label"].to_numpy(int)
    lengths = [
        pairs[name].map(lambda turns: len("".join(turn or "" for turn in turns))).to_numpy(float)
        for name in ("response_a", "response_b")
    ]
    gap = np.log1p(lengths[0]) - np.log1p(lengths[1])
    features = np.stack([lengths[0] - lengths[1], 100 * gap, 100 * abs(gap)], axis=1) / 100
    model = LogisticRegression(max_iter=1000).fit(features, labels)
    prior = log_loss(np.tile(np.bincount(labels) / len(labels), (len(labels), 1)), labels)
    by_length = log_loss(model.predict_proba(features), labels)
    assert 0.998 < prior < 1.099
    assert prior - 0.02 < by_length < prior
    assert 0.55 < bayes_log_loss(pairs) < 0.75


def test_prompt_groups_are_many() -> None:
    """1,500 rows have hundreds of groups, and some groups have many rows."""
    sizes = simulate(1500)["group"].value_counts()
    assert len(sizes) > 300
    assert sizes.max() >= 8


def test_some_turns_are_missing(pairs: pd.DataFrame) -> None:
    """A small share of rows has more than one turn, and a small share a null turn."""
    n_turns = pairs["prompt"].map(len)
    assert 0.03 < (n_turns > 1).mean() < 0.15
    assert (n_turns == pairs["response_a"].map(len)).all()
    assert 0.001 < pairs["response_a"].map(lambda turns: None in turns).mean() < 0.02


def test_better_model_wins_more(pairs: pd.DataFrame) -> None:
    """The invented models have a true order of skill."""
    wins = (pairs["label"] == 0).astype(float).groupby(pairs["model_a"]).mean()
    assert wins["aster-large"] > wins["elm-base"] > wins["hazel-tiny"]


def test_written_files_are_complete(tmp_path) -> None:
    """Cells are JSON lists, winners one-hot, and the probabilities are in another file."""
    pairs = simulate(40)
    loss = write_simulation(pairs, tmp_path / "train.csv")
    table = pd.read_csv(tmp_path / "train.csv")
    truth = read_csv(tmp_path / "train.bayes.csv")
    winners = table[["winner_model_a", "winner_model_b", "winner_tie"]].to_numpy()
    assert [json.loads(cell) for cell in table["response_b"]] == list(pairs["response_b"])
    assert winners.argmax(axis=1).tolist() == pairs["label"].tolist()
    assert (winners.sum(axis=1) == 1).all()
    assert np.array_equal(truth[BAYES_COLUMNS].to_numpy(), pairs[BAYES_COLUMNS].to_numpy())
    assert json.loads((tmp_path / "train.bayes.json").read_text())["bayes_log_loss"] == loss


@pytest.mark.parametrize(("n", "seed"), [(0, 0), (-3, 0), (5, -1)])
def test_numbers_out_of_range_are_refused(n: int, seed: int) -> None:
    """The message names both numbers."""
    with pytest.raises(ScoresError, match=f"n={n}, seed={seed}"):
        simulate(n, seed=seed)


def test_posterior_of_other_file_is_ignored(tmp_path):
    """Probabilities of a file that was changed are not used; other suffixes are refused."""
    write_simulation(simulate(20, seed=0), tmp_path / "a.csv")
    write_simulation(simulate(20, seed=1), tmp_path / "b.csv")
    pairs = read_pairs(tmp_path / "a.csv")
    assert "bayes_a" in join_posterior(pairs, [tmp_path / "a.csv"])
    (tmp_path / "b.bayes.csv").replace(tmp_path / "a.bayes.csv")
    (tmp_path / "b.bayes.json").replace(tmp_path / "a.bayes.json")
    assert "bayes_a" not in join_posterior(pairs, [tmp_path / "a.csv"])
    for name in ("a.tsv", "a.jsonl", "a"):
        with pytest.raises(FilesError, match=r"ends in \.csv"):
            write_simulation(simulate(2), tmp_path / name)


def test_swap_keeps_label_probability():
    """The true probability of each label is unchanged."""
    pairs = simulate(50)
    assert bayes_log_loss(swap_pairs(pairs)) == pytest.approx(bayes_log_loss(pairs), abs=1e-12)


def test_posterior_is_joined_by_id(tmp_path):
    """Rows may have any order; unknown rows or a missing file leave the columns out."""
    pairs = simulate(40, seed=3)
    path = tmp_path / "train.csv"
    write_simulation(pairs, path)
    bare = pairs.drop(columns=BAYES_COLUMNS).sample(frac=1, random_state=0)
    joined = join_posterior(bare, [path])
    expected = pairs.set_index("id").loc[joined["id"], BAYES_COLUMNS]
    assert np.allclose(joined[BAYES_COLUMNS], expected, atol=1e-12)
    assert list(join_posterior(bare.assign(id=bare["id"] + 7), [path])) == list(bare)
    assert list(join_posterior(bare, [path, tmp_path / "other.csv"])) == list(bare)
