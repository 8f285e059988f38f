"""Rows that the folds of a run are fitted to."""

from __future__ import annotations

import logging

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiewise.config import config_from_dict
from tiewise.data.first_text import first_texts
from tiewise.data.folds import derive_groups
from tiewise.data.formats import write_pairs
from tiewise.data.labels import Winner
from tiewise.data.pairs import COLUMNS
from tiewise.data.simulation.simulate import simulate
from tiewise.data.targets import make_targets
from tiewise.errors import ConfigError, PairsError
from tiewise.runs.training_rows import find_leaking_rows, load_training_rows

PAIRS = simulate(60, seed=0)[list(COLUMNS)]
OTHERS = simulate(600, seed=1)[list(COLUMNS)].iloc[60:]
DECISIVE = OTHERS[OTHERS["label"] != Winner.TIE].head(220).assign(source=pd.NA)


@pytest.fixture
def collect(tmp_path):
    """Return a function that collects the training rows of data and extra files."""
    write_pairs(PAIRS, tmp_path / "main.parquet")

    def of(extra=(), **fields):
        paths = []
        for number, table in enumerate(extra):
            paths.append(str(tmp_path / f"extra{number}.parquet"))
            write_pairs(table.astype({"source": "string"}), paths[-1])
        data = {"data": [str(tmp_path / "main.parquet")], "n_splits": 3, "extra_data": paths}
        return load_training_rows(config_from_dict({"data": data | fields}).data)

    return of


def test_without_extra_all_others_train(collect):
    """A fold is fitted to all other rows, and the description has no extra keys."""
    rows = collect()
    for fold in range(3):
        train = rows.of(fold)
        assert train["id"].tolist() == rows.pairs["id"][rows.folds != fold].tolist()
        assert not train["is_no_tie_row"].any()
    assert set(rows.described) == {"digest", "sources", "paths", "counts", "languages"}
    assert not any(name.startswith("n_extra") for name in rows.described["counts"])


def test_extra_rows_exclude_held_out_groups(collect, caplog):
    """Each fold excludes extra rows of its own prompt groups, and counts them."""
    extra = pd.concat([PAIRS.head(20), OTHERS.head(30)])
    rows = collect([extra.assign(weight=0.5)])
    assert np.array_equal(rows.folds, collect().folds)
    counts = rows.described["counts"]
    assert counts["n_extra"] == 50
    for fold in range(3):
        held_out = set(rows.pairs["group"][rows.folds == fold])
        n_excluded = int(extra["group"].isin(held_out).sum())
        assert counts[f"n_extra_left_out_of_fold{fold}"] == n_excluded
        with caplog.at_level(logging.INFO, "tiewise"):
            train = rows.of(fold)
        assert f"{50 - n_excluded} extra training rows; {n_excluded} skipped" in caplog.text
        assert not held_out & set(train["group"])
        assert (train["weight"] == 0.5).sum() == 50 - n_excluded
        assert (train["weight"] == 1.0).sum() == (rows.folds != fold).sum()


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_weight_columns_are_read(tmp_path, suffix):
    """Rows of data and extra files keep their own weight; files without the column weigh 1."""
    tables = {
        "data": PAIRS.assign(weight=np.arange(len(PAIRS)) / 4),
        "more": OTHERS.head(9),
        "extra": OTHERS.iloc[9:19].assign(weight=2.5),
    }
    paths = {name: str(tmp_path / f"{name}.{suffix}") for name in tables}
    for name, table in tables.items():
        write_pairs(table, paths[name])
    files = {"data": [paths["data"], paths["more"]], "extra_data": [paths["extra"]]}
    config = config_from_dict({"data": files | {"fold_rule": "position", "n_splits": 2}}).data
    train = load_training_rows(config).of(1)
    weights = [*tables["data"]["weight"], *[1.0] * 9][::2]
    n_extra = len(train) - len(weights)
    assert n_extra > 0
    assert train["weight"].tolist() == [*weights, *[2.5] * n_extra]
    assert make_targets(train).weights.tolist() == train["weight"].tolist()


def test_extra_rows_have_the_columns_of_the_data(tmp_path):
    """Names of columns and values of winners hold for extra files too, but not for a teacher's."""
    words = {"prompt": "question", "response_a": "answer_1", "response_b": "answer_2"}
    for name, table in {"data": PAIRS, "own": OTHERS.head(9)}.items():
        texts = {own: table[ours].map(lambda turns: turns[0]) for ours, own in words.items()}
        pd.DataFrame({"id": table["id"], **texts, "label": table["label"]}).to_csv(
            tmp_path / f"{name}.csv", index=False
        )
    write_pairs(OTHERS.iloc[9:20], tmp_path / "labelled.parquet")
    values = ["a=0", "b=1", "tie=2"]
    columns = [f"{ours}={own}" for ours, own in words.items()] + values
    files = {"data": [str(tmp_path / "data.csv")]}
    files["extra_data"] = [str(tmp_path / name) for name in ("own.csv", "labelled.parquet")]
    config = config_from_dict({"data": files | {"columns": columns}}).data
    rows = load_training_rows(config)
    assert rows.extra["label"].tolist() == OTHERS["label"].head(20).tolist()
    (tmp_path / "own.csv").write_text("question,answer_1\n1,2\n")
    with pytest.raises(PairsError, match=r"own.csv.*answer_2"):
        load_training_rows(config)


def test_digest_covers_extra_files(collect):
    """Their content is part of the digest; the data's own digest is stored too."""
    one, two = collect([OTHERS.head(9)]), collect([OTHERS.head(8)])
    assert len({one.digest, two.digest, collect().digest}) == 3
    assert one.described["pairs_digest"] == two.described["pairs_digest"] == collect().digest


def test_no_tie_source_is_detected(collect, caplog):
    """It is found among all rows, logged and counted; not with an empty list of sources."""
    with caplog.at_level(logging.INFO, "tiewise"):
        rows = collect([DECISIVE])
    assert "the loss of 220 rows is over A and B only: no ties in extra0.parquet" in caplog.text
    assert rows.described["counts"]["n_no_tie_rows"] == 220
    assert rows.of(0)["is_no_tie_row"].sum() == (~rows.is_excluded[:, 0]).sum()
    assert not collect([DECISIVE], no_tie_sources=[]).extra["is_no_tie_row"].any()
    assert (
        collect([DECISIVE.head(9)], no_tie_sources=["extra0.parquet"]).extra["is_no_tie_row"].all()
    )


def test_missing_names_are_refused(collect):
    """A source or a file that does not exist is an error."""
    with pytest.raises(ConfigError, match="--no-tie-sources is nowhere; expected one of"):
        collect([DECISIVE], no_tie_sources=["nowhere"])
    with pytest.raises(PairsError, match="there is no such file"):
        collect(extra_data=["nowhere.csv"])


def tables() -> st.SearchStrategy[pd.DataFrame]:
    """Tables with few different prompts and sessions."""
    row = st.tuples(st.sampled_from(["p", "P ", "q", "r"]), st.sampled_from(["s", "t", None]))
    return st.lists(row, min_size=1, max_size=8).map(_tabulate)


def _tabulate(rows: list[tuple[str, str | None]]) -> pd.DataFrame:
    table = pd.DataFrame({"prompt": [[text] for text, _ in rows]})
    table["session"] = pd.Series([session for _, session in rows], dtype=object)
    return table.assign(group=derive_groups(table))


@given(pairs=tables(), extra=tables(), data=st.data())
def test_shared_groups_are_excluded(pairs, extra, data) -> None:
    """A fold excludes extra rows with a prompt or session of its held-out rows."""
    folds = np.array(data.draw(st.lists(st.integers(0, 2), min_size=8, max_size=8)))[: len(pairs)]
    excluded = find_leaking_rows(pairs, folds, extra, 3)
    for row in range(len(extra)):
        for other in range(len(pairs)):
            is_same_prompt = first_texts(extra)[row] == first_texts(pairs)[other]
            session = extra["session"][row]
            if is_same_prompt or (session is not None and session == pairs["session"][other]):
                assert excluded[row, folds[other]]


def test_other_groups_are_included() -> None:
    """A row of another group is excluded nowhere."""
    pairs = pd.DataFrame({"prompt": [["p"], ["q"]], "group": ["1", "2"]})
    extra = pd.DataFrame({"prompt": [["r"]], "group": ["3"]})
    assert not find_leaking_rows(pairs, [0, 1], extra, 2).any()
    assert find_leaking_rows(pairs, [0, 1], extra.head(0), 2).shape == (0, 2)


@pytest.mark.parametrize("data", [["named.parquet"], []])
def test_log_names_the_data(tmp_path, monkeypatch, caplog, data):
    """The first line says which file is read, or that the sample is, and counts its rows."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TIEWISE_DATA", raising=False)
    write_pairs(PAIRS.head(20), tmp_path / "named.parquet")
    config = config_from_dict({"data": {"data": data, "n_splits": 2}}).data
    with caplog.at_level(logging.INFO, "tiewise"):
        rows = load_training_rows(config)
    name = "named.parquet; 20 pairs" if data else "embedded sample of 1500 rows; 1500 pairs"
    n_groups = rows.table["group"].nunique()
    assert caplog.messages[0] == f"Data: {name} in {n_groups} prompt groups"


@pytest.mark.parametrize(
    ("n", "n_ties", "wanted", "has_ties"),
    [
        (200, 0, ("detect",), False),
        (199, 0, ("detect",), True),  # ties may just be rare
        (300, 1, ("detect",), True),
        (300, 0, (), True),
        (20, 0, ("votes.parquet",), False),
    ],
)
def test_two_classes_are_detected(tmp_path, caplog, n, n_ties, wanted, has_ties):
    """At least 200 votes without a tie are of two classes, and the log says so."""
    pairs = simulate(600, seed=1)[list(COLUMNS)]
    is_tie = pairs["label"] == Winner.TIE
    chosen = pd.concat([pairs[~is_tie].head(n - n_ties), pairs[is_tie].head(n_ties)])
    chosen = chosen.assign(source=pd.array(["votes.parquet"] * n, dtype="string"))
    write_pairs(chosen, tmp_path / "votes.parquet")
    data = {"data": [str(tmp_path / "votes.parquet")], "no_tie_sources": wanted}
    with caplog.at_level(logging.INFO, "tiewise"):
        rows = load_training_rows(config_from_dict({"data": data}).data)
    assert rows.has_ties == has_ties
    assert (f"None of {n} votes is a tie" in caplog.text) != has_ties
