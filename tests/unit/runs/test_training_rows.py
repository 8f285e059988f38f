"""What a run learns from: nothing its fold is scored on, and nothing in silence."""

from __future__ import annotations

import logging

import numpy as np
import pandas as pd
import pytest

from tiewise.config.loading import config_from_dict
from tiewise.data.formats import write_pairs
from tiewise.data.labels import Winner
from tiewise.data.schema import COLUMNS
from tiewise.data.simulation.simulate import simulate
from tiewise.data.targets import make_targets
from tiewise.errors import ConfigError, PairsError
from tiewise.runs.dataset import assign_folds, load_dataset
from tiewise.runs.training_rows import gather_training_rows

PAIRS = simulate(60, seed=0)[list(COLUMNS)]
OTHERS = simulate(600, seed=1)[list(COLUMNS)].iloc[60:]
DECISIVE = OTHERS[OTHERS["label"] != Winner.TIE].head(220).assign(source=pd.NA)


@pytest.fixture
def gather(tmp_path):
    """Gather the training rows of data and extra files."""
    write_pairs(PAIRS, tmp_path / "main.parquet")

    def of(extra=(), **fields):
        paths = []
        for number, table in enumerate(extra):
            paths.append(str(tmp_path / f"extra{number}.parquet"))
            write_pairs(table.astype({"source": "string"}), paths[-1])
        data = {"data": [str(tmp_path / "main.parquet")], "n_splits": 3, "extra_data": paths}
        config = config_from_dict({"data": data | fields}).data
        dataset = load_dataset(config)
        return gather_training_rows(config, dataset, assign_folds(dataset, config))

    return of


def test_without_extra_files_a_fold_learns_from_all_other_rows(gather):
    """And the data's description is what it always was."""
    rows = gather()
    for fold in range(3):
        train = rows.of(fold)
        assert train["id"].tolist() == rows.pairs["id"][rows.folds != fold].tolist()
        assert not train["is_no_tie_row"].any()
    assert set(rows.described) == {"digest", "sources", "counts"}
    assert not any(name.startswith("n_extra") for name in rows.described["counts"])


def test_extra_rows_are_learned_from_but_where_their_conversation_is_held_out(gather, caplog):
    """Every fold leaves out its own, and says how many; folds are those without extra rows."""
    extra = pd.concat([PAIRS.head(20), OTHERS.head(30)])
    rows = gather([extra.assign(weight=0.5)])
    assert np.array_equal(rows.folds, gather().folds)
    counts = rows.described["counts"]
    assert counts["n_extra"] == 50
    for fold in range(3):
        held_out = set(rows.pairs["group"][rows.folds == fold])
        n_barred = int(extra["group"].isin(held_out).sum())
        assert counts[f"n_extra_left_out_of_fold{fold}"] == n_barred
        with caplog.at_level(logging.INFO, "tiewise"):
            train = rows.of(fold)
        assert f"{50 - n_barred} extra training rows; {n_barred} skipped" in caplog.text
        assert not held_out & set(train["group"])
        assert (train["weight"] == 0.5).sum() == 50 - n_barred
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
    fields = {"data": [paths["data"], paths["more"]], "extra_data": [paths["extra"]], "n_splits": 2}
    config = config_from_dict({"data": fields}).data
    dataset = load_dataset(config)
    folds = np.arange(len(dataset.pairs)) // (len(dataset.pairs) - 1)
    train = gather_training_rows(config, dataset, pd.DataFrame({"fold": folds})).of(1)
    assert train["weight"].tolist() == [*tables["data"]["weight"], *[1.0] * 8, *[2.5] * 10]
    assert make_targets(train).weights.tolist() == train["weight"].tolist()


def test_other_extra_files_are_another_fit(gather):
    """Their content is part of the digest, and the data's own digest stays known."""
    one, two = gather([OTHERS.head(9)]), gather([OTHERS.head(8)])
    assert len({one.digest, two.digest, gather().digest}) == 3
    assert one.described["pairs_digest"] == two.described["pairs_digest"] == gather().digest


def test_a_source_without_ties_teaches_a_against_b_alone(gather, caplog):
    """Found among all rows at once, said and counted; not where it is asked to teach all three."""
    with caplog.at_level(logging.INFO, "tiewise"):
        rows = gather([DECISIVE])
    assert "220 rows teach A against B alone: no vote of extra0.parquet is a tie" in caplog.text
    assert rows.described["counts"]["n_no_tie_rows"] == 220
    assert rows.of(0)["is_no_tie_row"].sum() == (~rows.is_barred[:, 0]).sum()
    assert not gather([DECISIVE], no_tie_sources=[]).extra["is_no_tie_row"].any()
    assert (
        gather([DECISIVE.head(9)], no_tie_sources=["extra0.parquet"]).extra["is_no_tie_row"].all()
    )


def test_what_cannot_be_is_refused(gather):
    """A source that does not exist, and a file that does not exist."""
    with pytest.raises(ConfigError, match="--no-tie-sources nowhere: no row is of that source"):
        gather([DECISIVE], no_tie_sources=["nowhere"])
    with pytest.raises(PairsError, match="there is no such file"):
        gather(extra_data=["nowhere.csv"])
