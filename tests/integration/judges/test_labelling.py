"""Soft labels come from folds that have not seen the row, and a fit makes sure of it."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pandas as pd
import pytest

from tiewise.cli import main
from tiewise.config import config_from_dict
from tiewise.crossfit import cross_fit
from tiewise.data.formats import read_pairs, write_pairs
from tiewise.data.formats.parquet import write_parquet
from tiewise.data.labels import PROB_COLUMNS
from tiewise.data.pairs import COLUMNS, swap_pairs
from tiewise.data.simulation.simulate import simulate
from tiewise.errors import PairsError, RunError
from tiewise.features import binary_models as parts
from tiewise.judges.prediction import label_pairs
from tiewise.runs.references import score_finished_folds
from tiewise.runs.tables import read_data, read_folds, read_oof
from tiewise.runs.teachers import find_seen_by_start, open_teacher

PAIRS = simulate(90, seed=3)[list(COLUMNS)]
POOL = simulate(150, seed=4)[list(COLUMNS)].iloc[90:].reset_index(drop=True)


def fit(folder, name, data, folds=(0, 1, 2), **fields):
    """Cross-fit the CPU-class model on files in a folder."""
    config = config_from_dict(
        {
            "model": {"backbone": "baseline"},
            "data": {"n_splits": 3, "data": [str(folder / data)]} | fields.pop("data_fields", {}),
            "train": fields,
        }
    )
    run, _ = cross_fit(config, list(folds), folder, name=name)
    score_finished_folds(run)
    return run


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Write data and a pool of other pairs, and fit a teacher."""
    folder = tmp_path_factory.mktemp("labelling")
    write_pairs(PAIRS, folder / "train.parquet")
    write_pairs(POOL, folder / "pool.parquet")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parts, "_MAX_TREES", 10)
        teacher = fit(folder, "teacher", "train.parquet")
        label_pairs(teacher, PAIRS, folder / "own.parquet", cache_dir=folder)
        label_pairs(teacher, POOL, folder / "soft.parquet", cache_dir=folder)
        yield folder, teacher


def label(folder, pairs, **options):
    """Label pairs and read what was written."""
    place, teacher = folder
    out = place / "out.parquet"
    done = label_pairs(teacher, pairs, out, cache_dir=place, overwrite=True, **options)
    return done, read_pairs(out)


def command(place, name, *options):
    """Run ``tiewise predict --out-of-fold`` on a file of the folder; return the exit status."""
    files = ["--data", str(place / name), "--out", str(place / "command.parquet")]
    words = ["predict", "--out-of-fold", "--run", "teacher", "--artifacts", str(place), *files]
    return main([*words, "--quiet", "--json", *options])


def test_the_teachers_own_rows_get_out_of_fold_probabilities(folder):
    """Bit for bit those of its out-of-fold file, signed by the fold that held the row out."""
    done, labelled = label(folder, PAIRS)
    oof = read_oof(folder[1]).set_index("id").loc[PAIRS["id"]]
    assert np.array_equal(labelled[PROB_COLUMNS].to_numpy(), oof[PROB_COLUMNS].to_numpy())
    assert labelled["teacher"].str[-1].astype(int).tolist() == oof["fold"].tolist()
    assert done.to_dict() == {"n": 90, "n_out_of_fold": 90, "n_seen": 0}
    assert labelled["label"].tolist() == PAIRS["label"].tolist()


def test_rows_it_has_not_seen_get_the_mean_of_all_folds(folder):
    """Labelled or not."""
    unlabelled = POOL.assign(label=pd.array([pd.NA] * len(POOL), dtype="Int8"), winner=pd.NA)
    done, labelled = label(folder, unlabelled.astype({"winner": "string"}))
    assert labelled["teacher"].str.endswith(" 0,1,2").all()
    assert done.n_out_of_fold == 0
    one, _ = label(folder, POOL, folds=[1])
    assert (one.n, one.n_out_of_fold) == (len(POOL), 0)


def test_one_fold_labels_what_it_held_out(folder):
    """And every such row is counted as out of fold."""
    done, _ = label(folder, PAIRS, folds=[1])
    held_out = int((read_oof(folder[1])["fold"] == 1).sum())
    assert done.to_dict() == {"n": held_out, "n_out_of_fold": held_out, "n_seen": 90 - held_out}


def test_a_row_is_known_in_either_order(folder):
    """The swap of a row the teacher has seen is the same row."""
    _, given = label(folder, PAIRS)
    _, swapped = label(folder, swap_pairs(PAIRS))
    assert swapped["teacher"].tolist() == given["teacher"].tolist()
    assert np.array_equal(swapped[["prob_b", "prob_a", "prob_tie"]].to_numpy(), given[PROB_COLUMNS])


def test_rows_that_every_fold_has_seen_are_left_out_and_counted(folder):
    """With one fold to speak, all rows but those it held out."""
    table = read_folds(folder[1])
    done, labelled = label(folder, PAIRS, folds=[0])
    assert labelled["id"].tolist() == table["id"][table["fold"] == 0].tolist()
    assert done.n_seen == (table["fold"] != 0).sum()
    with pytest.raises(PairsError, match="was trained on all"):
        label(folder, PAIRS[(table["fold"] != 0).to_numpy()], folds=[0])


def test_a_fit_refuses_labels_of_a_fold_that_saw_the_row(folder):
    """By digest of the texts, naming rows and how many."""
    place, teacher = folder
    labelled = read_pairs(place / "own.parquet")
    signed = open_teacher(teacher, [0])
    labelled["teacher"] = pd.array([signed.sign([0])] * len(labelled), dtype="string")
    write_parquet(labelled, place / "seen.parquet", teacher=signed.to_json())
    n_seen = int((read_folds(teacher)["fold"] != 0).sum())
    for fields in ({}, {"data_fields": {"extra_data": [str(place / "seen.parquet")]}}):
        data = "train.parquet" if fields else "seen.parquet"
        with pytest.raises(
            PairsError,
            match=rf"^{n_seen} of \d+ rows have soft labels by .* on them \(id=",
        ):
            fit(place, "refused", data, **fields)


def test_a_fit_takes_out_of_fold_labels_and_says_what_they_may_hand_on(folder):
    """The rows are clean, but the teacher's folds were trained on the rows held out here."""
    place, _ = folder
    run = fit(place, "student", "own.parquet", folds=[0])
    counts = json.loads(run.scores_path.read_text())["counts"]
    assert counts["n_labelled_by_teacher"] == 90
    assert counts["n_held_out_seen_by_teacher"] == (read_folds(run)["fold"] == 0).sum()


def test_a_pool_labelled_by_the_same_fold_alone_hands_nothing_on(folder):
    """Teacher and student hold out the same rows."""
    place, teacher = folder
    label_pairs(teacher, POOL, place / "one.parquet", cache_dir=place, folds=[2], overwrite=True)
    fields = {"extra_data": [str(place / "one.parquet")]}
    run = fit(place, "clean", "train.parquet", folds=[2], data_fields=fields)
    counts = json.loads(run.scores_path.read_text())["counts"]
    assert counts["n_held_out_seen_by_teacher"] == 0
    assert counts["n_extra"] == len(POOL)


def test_a_fit_says_what_it_begins_with_has_learned_from(folder):
    """The same fold of the same folds has seen nothing held out; another fold has, and is told."""
    place, teacher = folder
    held_out = [PAIRS[(read_folds(teacher)["fold"] == fold).to_numpy()] for fold in range(3)]
    start = teacher.fold(0).path
    for path in (start, start / "adapter"):
        assert not find_seen_by_start(path, held_out[0]).any()
        assert find_seen_by_start(path, held_out[1]).all()
    assert not find_seen_by_start(start, POOL).any()
    assert find_seen_by_start(place / "nowhere", POOL) is None
    copied = shutil.copytree(start / "adapter", place / "loose")
    assert find_seen_by_start(copied, POOL) is None


def test_extra_rows_that_repeat_the_data_are_counted(folder, caplog):
    """Whichever response comes first; they would be learned from twice."""
    place, _ = folder
    write_pairs(swap_pairs(PAIRS.head(7)), place / "again.parquet")
    fields = {"extra_data": [str(place / "again.parquet")]}
    with caplog.at_level("WARNING"):
        run = fit(place, "again", "train.parquet", [0], data_fields=fields)
    assert read_data(run)["counts"]["n_extra_repeated"] == 7
    assert "7 extra rows repeat" in caplog.text


def test_labels_without_their_provenance_are_refused(folder):
    """A copy that lost what is known of the teacher, or a csv."""
    place, _ = folder
    labelled = read_pairs(place / "own.parquet")
    for name in ("lost.parquet", "lost.csv"):
        write_pairs(labelled, place / name)
        with pytest.raises(PairsError, match="no file says which rows it was trained on"):
            fit(place, "lost", name)
    write_parquet(labelled, place / "odd.parquet", teacher="[]")
    with pytest.raises(PairsError, match="its teacher cannot be read"):
        fit(place, "odd", "odd.parquet")


def test_changed_texts_are_other_rows(folder):
    """What was labelled is looked up by its texts as they are now."""
    teacher = open_teacher(folder[1], [0])
    assert not teacher.find_unseen(PAIRS)[:, 0].all()
    other = PAIRS.assign(response_a=[["changed"]] * len(PAIRS))
    assert teacher.find_unseen(other).all()


def test_what_a_run_has_seen_must_be_known(folder, tmp_path):
    """A run of an older version, and one that began from other weights."""
    place, teacher = folder
    with pytest.raises(PairsError, match=r"ends in \.parquet"):
        label_pairs(teacher, POOL, place / "out.csv", cache_dir=place)
    with pytest.raises(RunError, match="fold 7 is not finished"):
        label_pairs(teacher, POOL, place / "no.parquet", cache_dir=place, folds=[7])
    path = teacher.path / "rows.parquet"
    kept = path.read_bytes()
    path.unlink()
    with pytest.raises(
        RunError, match="is missing, so the rows that the run was trained on are not known"
    ):
        open_teacher(teacher, [0])
    path.write_bytes(kept[:-9] + b"damage!!!")
    with pytest.raises(RunError, match="is damaged"):
        open_teacher(teacher, [0])
    path.write_bytes(kept)
    fingerprint = teacher.fold(0).fingerprint_path
    text = fingerprint.read_text()
    fingerprint.write_text(json.dumps(json.loads(text) | {"init_from": "digest"}))
    with pytest.raises(RunError, match="fold 0 of teacher was fitted with --init-from"):
        open_teacher(teacher, [0])
    fingerprint.write_text(text)


def test_the_command_says_what_it_did(folder, capsys):
    """As JSON too; and it replaces nothing unasked."""
    place, _ = folder
    assert command(place, "train.parquet") == 0
    counts = json.loads(capsys.readouterr().out)
    assert (counts["n"], counts["n_out_of_fold"], counts["n_seen"]) == (90, 90, 0)
    assert command(place, "train.parquet") == 2
    assert "--overwrite" in capsys.readouterr().err


@pytest.mark.parametrize("n_votes", [60, 20, 0])
def test_command_keeps_winners_of_the_file(folder, n_votes):
    """Winners and their labels are written; some rows, or the whole file, may have none."""
    place, _ = folder
    winners = POOL["winner"].where(POOL.index < n_votes)
    pairs = POOL.drop(columns="label").assign(winner=winners).dropna(axis=1, how="all")
    pairs.to_json(place / "votes.jsonl", orient="records", lines=True)
    assert command(place, "votes.jsonl", "--overwrite") == 0
    written = read_pairs(place / "command.parquet")
    assert written["winner"].fillna("none").tolist() == winners.fillna("none").tolist()
    assert written["label"].notna().tolist() == winners.notna().tolist()
