"""Tests of soft labels: a row is labelled, and a fit uses it, only by folds that never saw it."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pandas as pd
import pytest

from tiewise.cli import main
from tiewise.config import config_from_dict
from tiewise.crossfit import cross_fit
from tiewise.data.folds import derive_groups
from tiewise.data.formats import read_pairs, write_pairs
from tiewise.data.formats.parquet import write_parquet
from tiewise.data.labels import PROB_COLUMNS
from tiewise.data.pairs import COLUMNS, swap_pairs
from tiewise.data.simulation.simulate import simulate
from tiewise.errors import PairsError, RunError
from tiewise.features import binary_models as parts
from tiewise.judges.blending import blend_runs
from tiewise.judges.prediction import label_pairs
from tiewise.runs.references import score_finished_folds
from tiewise.runs.tables import read_data, read_folds, read_oof
from tiewise.runs.teachers import (
    find_seen,
    find_seen_by_start,
    find_training_rows,
    open_teacher,
    read_teachers,
)

PAIRS = simulate(90, seed=3)[list(COLUMNS)]
OTHERS = simulate(150, seed=4)[list(COLUMNS)].iloc[90:].reset_index(drop=True)
IS_NEW = ~np.isin(derive_groups(OTHERS), derive_groups(PAIRS)) & ~OTHERS["group"].isin(
    PAIRS["group"]
)
POOL = OTHERS[IS_NEW].reset_index(drop=True)


def fit(folder, name, data, folds=(0, 1, 2), **fields):
    """Cross-fit the feature model on a file of the folder, with fields of its configuration."""
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
    """Write data and a pool of other pairs, fit a teacher, and label both with it."""
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
    """Label pairs with the teacher; return the counts and the labelled pairs."""
    data_dir, teacher = folder
    out = data_dir / "out.parquet"
    done = label_pairs(teacher, pairs, out, cache_dir=data_dir, overwrite=True, **options)
    return done, read_pairs(out)


def command(data_dir, name, *options):
    """Run ``tiewise predict --out-of-fold`` on a file of the folder; return the exit status."""
    files = ["--data", str(data_dir / name), "--out", str(data_dir / "command.parquet")]
    run = ["--run", "teacher", "--artifacts", str(data_dir)]
    return main(["predict", "--out-of-fold", *run, *files, "--quiet", "--json", *options])


def test_own_rows_are_out_of_fold(folder):
    """Rows of the teacher get the probabilities of its out-of-fold file and the fold's name."""
    done, labelled = label(folder, PAIRS)
    oof = read_oof(folder[1]).set_index("id").loc[PAIRS["id"]]
    assert np.array_equal(labelled[PROB_COLUMNS].to_numpy(), oof[PROB_COLUMNS].to_numpy())
    assert labelled["teacher"].str[-1].astype(int).tolist() == oof["fold"].tolist()
    assert done.to_dict() == {"n": 90, "n_out_of_fold": 90, "n_seen": 0}
    assert labelled["label"].tolist() == PAIRS["label"].tolist()


@pytest.mark.parametrize(("name", "n_training_rows"), [("train.parquet", 90), ("pool.parquet", 0)])
def test_predicted_training_rows_are_counted(folder, capsys, name, n_training_rows):
    """Predictions of rows that a fold was trained on are announced with their number."""
    data_dir, _ = folder
    files = ["--data", str(data_dir / name), "--out", str(data_dir / "probs.csv"), "--overwrite"]
    run = ["--run", "teacher", "--artifacts", str(data_dir), "--json"]
    assert main(["predict", *run, *files]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["facts"]["n_training_rows"] == n_training_rows
    warned = f"{n_training_rows} rows are training rows of teacher" in captured.err
    assert warned == (n_training_rows > 0)


@pytest.mark.parametrize("suffix", ["csv", "parquet", "jsonl"])
@pytest.mark.parametrize("words", ["evaluate", "leaderboard", "evaluate --rewardbench"])
def test_evaluated_training_rows_are_counted(folder, capsys, tmp_path, words, suffix):
    """Evaluating predictions of rows that the run was trained on warns with their number."""
    data_dir, _ = folder
    fixed = {"source": "alpacaeval-easy", "label": 0, "winner": "model_a"}
    for rows in (PAIRS, pd.concat([PAIRS.head(40), POOL]), POOL):
        table = rows.assign(id=range(len(rows)), **fixed)
        write_pairs(table, tmp_path / "rows.parquet")
        out = tmp_path / f"probs.{suffix}"
        files = ["--data", str(tmp_path / "rows.parquet"), "--out", str(out), "--overwrite"]
        assert main(["predict", "--run", "teacher", "--artifacts", str(data_dir), *files]) == 0
        capsys.readouterr()
        given = ["--data", str(tmp_path / "rows.parquet"), "--predictions", str(out)]
        assert main([*words.split(), *given]) == 0
        n_seen = len(table) - (len(POOL) if len(table) != len(PAIRS) else 0)
        warned = f"was trained on {n_seen} of {len(table)} rows" in capsys.readouterr().err
        assert warned == (n_seen > 0)


def test_new_rows_use_all_folds(folder):
    """Rows that no fold was trained on are labelled by all chosen folds, with or without winner."""
    unlabelled = POOL.assign(label=pd.array([pd.NA] * len(POOL), dtype="Int8"), winner=pd.NA)
    done, labelled = label(folder, unlabelled.astype({"winner": "string"}))
    assert labelled["teacher"].str.endswith(" 0,1,2").all()
    assert done.n_out_of_fold == 0
    one, _ = label(folder, POOL, folds=[1])
    assert (one.n, one.n_out_of_fold) == (len(POOL), 0)


def test_new_rows_of_known_prompts_are_out_of_fold(folder):
    """A new row whose prompt the run was trained on is labelled by the fold that held it out."""
    pairs = PAIRS.assign(
        id=[f"new{k}" for k in range(len(PAIRS))],
        response_a=[[f"{turns[0]} Really."] for turns in PAIRS["response_a"]],
    )
    done, labelled = label(folder, pairs)
    assert (
        labelled["teacher"].str[-1].astype(int).tolist() == read_folds(folder[1])["fold"].tolist()
    )
    assert done.to_dict() == {"n": 90, "n_out_of_fold": 90, "n_seen": 0}
    assert not find_training_rows(folder[1], [0, 1, 2])(pairs).any()


def test_one_fold_labels_held_out_rows(folder):
    """Of the teacher's rows, one fold labels those it held out; each counts as out of fold."""
    done, _ = label(folder, PAIRS, folds=[1])
    held_out = int((read_oof(folder[1])["fold"] == 1).sum())
    assert done.to_dict() == {"n": held_out, "n_out_of_fold": held_out, "n_seen": 90 - held_out}


def test_swapped_rows_are_recognised(folder):
    """A row with swapped responses gets the label of the same fold, swapped."""
    _, given = label(folder, PAIRS)
    _, swapped = label(folder, swap_pairs(PAIRS))
    assert swapped["teacher"].tolist() == given["teacher"].tolist()
    assert np.array_equal(swapped[["prob_b", "prob_a", "prob_tie"]].to_numpy(), given[PROB_COLUMNS])


def test_seen_rows_are_not_labelled(folder):
    """Rows that all chosen folds were trained on are left out and counted."""
    table = read_folds(folder[1])
    done, labelled = label(folder, PAIRS, folds=[0])
    assert labelled["id"].tolist() == table["id"][table["fold"] == 0].tolist()
    assert done.n_seen == (table["fold"] != 0).sum()
    with pytest.raises(PairsError, match="was trained on all"):
        label(folder, PAIRS[(table["fold"] != 0).to_numpy()], folds=[0])


def test_fit_refuses_seen_labels(folder):
    """A fit refuses soft labels of a fold trained on the row; it names ids and their number."""
    data_dir, teacher = folder
    labelled = read_pairs(data_dir / "own.parquet")
    signed = open_teacher(teacher, [0])
    labelled["teacher"] = pd.array([signed.sign([0])] * len(labelled), dtype="string")
    write_parquet(labelled, data_dir / "seen.parquet", teacher=signed.to_json())
    n_seen = int((read_folds(teacher)["fold"] != 0).sum())
    for fields in ({}, {"data_fields": {"extra_data": [str(data_dir / "seen.parquet")]}}):
        data = "train.parquet" if fields else "seen.parquet"
        with pytest.raises(
            PairsError,
            match=rf"^{n_seen} of \d+ rows have soft labels by .* on them \(id=",
        ):
            fit(data_dir, "refused", data, **fields)


def test_fit_counts_indirect_leakage(folder):
    """Out-of-fold labels are used; held-out rows that their teacher was trained on are counted."""
    data_dir, _ = folder
    run = fit(data_dir, "student", "own.parquet", folds=[0])
    counts = json.loads(run.scores_path.read_text())["counts"]
    assert counts["n_labelled_by_teacher"] == 90
    assert counts["n_held_out_seen_by_teacher"] == (read_folds(run)["fold"] == 0).sum()


def test_pool_of_same_fold_is_clean(folder):
    """A pool labelled by the fold that holds out the same rows as the student leaks nothing."""
    data_dir, teacher = folder
    path = data_dir / "one.parquet"
    label_pairs(teacher, POOL, path, cache_dir=data_dir, folds=[2], overwrite=True)
    fields = {"extra_data": [str(path)]}
    run = fit(data_dir, "clean", "train.parquet", folds=[2], data_fields=fields)
    counts = json.loads(run.scores_path.read_text())["counts"]
    assert counts["n_held_out_seen_by_teacher"] == 0
    assert counts["n_extra"] == len(POOL)


def test_seen_rows_of_start_are_found(folder):
    """Initial weights of the same fold saw no held-out row, those of another fold saw them all."""
    data_dir, teacher = folder
    held_out = [PAIRS[(read_folds(teacher)["fold"] == fold).to_numpy()] for fold in range(3)]
    start = teacher.fold(0).path
    for path in (start, start / "adapter"):
        assert not find_seen_by_start(path, held_out[0]).any()
        assert find_seen_by_start(path, held_out[1]).all()
    assert not find_seen_by_start(start, POOL).any()
    assert find_seen_by_start(data_dir / "nowhere", POOL) is None
    copied = shutil.copytree(start / "adapter", data_dir / "loose")
    assert find_seen_by_start(copied, POOL) is None


def test_repeated_extra_rows_are_counted(folder, caplog):
    """Extra rows that repeat the data in either order are counted, with a warning."""
    data_dir, _ = folder
    write_pairs(swap_pairs(PAIRS.head(7)), data_dir / "again.parquet")
    fields = {"extra_data": [str(data_dir / "again.parquet")]}
    with caplog.at_level("WARNING"):
        run = fit(data_dir, "again", "train.parquet", [0], data_fields=fields)
    assert read_data(run)["counts"]["n_extra_repeated"] == 7
    assert "7 extra rows repeat" in caplog.text


def test_labels_need_known_teacher(folder):
    """Soft labels in a csv, or in a parquet file without or with damaged metadata, are refused."""
    data_dir, _ = folder
    labelled = read_pairs(data_dir / "own.parquet")
    for name in ("lost.parquet", "lost.csv"):
        write_pairs(labelled, data_dir / name)
        with pytest.raises(PairsError, match="no file says which rows it was trained on"):
            fit(data_dir, "lost", name)
    write_parquet(labelled, data_dir / "odd.parquet", teacher="[]")
    with pytest.raises(PairsError, match="its teacher cannot be read"):
        fit(data_dir, "odd", "odd.parquet")


def test_changed_texts_are_new_rows(folder):
    """A row is recognised by its texts, so a row with a changed text is unseen."""
    teacher = open_teacher(folder[1], [0])
    assert not teacher.find_unseen(PAIRS)[:, 0].all()
    other = PAIRS.assign(response_a=[["changed"]] * len(PAIRS))
    assert teacher.find_unseen(other).all()


def test_training_rows_must_be_known(folder):
    """A run without a readable table of its rows, or fitted from other weights, is refused."""
    data_dir, teacher = folder
    with pytest.raises(PairsError, match=r"ends in \.parquet"):
        label_pairs(teacher, POOL, data_dir / "out.csv", cache_dir=data_dir)
    with pytest.raises(RunError, match="fold 7 is not finished"):
        label_pairs(teacher, POOL, data_dir / "no.parquet", cache_dir=data_dir, folds=[7])
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


def test_command_prints_counts(folder, capsys):
    """The command prints its counts as JSON; it replaces a file only with --overwrite."""
    data_dir, _ = folder
    assert command(data_dir, "train.parquet") == 0
    counts = json.loads(capsys.readouterr().out)
    assert (counts["n"], counts["n_out_of_fold"], counts["n_seen"]) == (90, 90, 0)
    assert command(data_dir, "train.parquet") == 2
    assert "--overwrite" in capsys.readouterr().err


def test_replaced_soft_labels_are_counted(folder, caplog):
    """Soft labels of people in the data are replaced by the run's, and their number is logged."""
    soft = POOL.assign(prob_a=0.5, prob_b=0.3, prob_tie=0.2)
    soft.loc[:4, PROB_COLUMNS] = np.nan
    _, labelled = label(folder, soft)
    assert (labelled["prob_a"] != 0.5).all()
    assert f"{len(POOL) - 5} rows have soft labels; those of teacher replace them." in caplog.text
    caplog.clear()
    label(folder, labelled)
    assert "have soft labels" not in caplog.text


@pytest.mark.parametrize("n_votes", [60, 20, 0])
def test_command_keeps_winners_of_the_file(folder, n_votes):
    """Winners and their labels are written; some rows, or the whole file, may have none."""
    data_dir, _ = folder
    winners = POOL["winner"].where(POOL.index < n_votes)
    pairs = POOL.drop(columns="label").assign(winner=winners).dropna(axis=1, how="all")
    pairs.to_json(data_dir / "votes.jsonl", orient="records", lines=True)
    assert command(data_dir, "votes.jsonl", "--overwrite") == 0
    written = read_pairs(data_dir / "command.parquet")
    assert written["winner"].fillna("none").tolist() == winners.fillna("none").tolist()
    assert written["label"].notna().tolist() == winners.notna().tolist()


@pytest.fixture(scope="module")
def blended(folder):
    """Blend the teacher with another run on the same folds; return the folder and all three."""
    data_dir, teacher = folder
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parts, "_MAX_TREES", 10)
        other = fit(data_dir, "other", "train.parquet", seed=1)
        blend = blend_runs([teacher, other], data_dir, name="teachers", overwrite=True)
        yield data_dir, teacher, other, blend


@pytest.mark.parametrize("pairs", [PAIRS, POOL], ids=["own rows", "pool"])
def test_blend_labels_with_all_its_members(blended, pairs):
    """Labels of a blend are the mixture of its members' labels, fold by fold."""
    data_dir, teacher, other, blend = blended
    tables = []
    for number, run in enumerate([teacher, other, blend.run]):
        out = data_dir / f"by{number}.parquet"
        label_pairs(run, pairs, out, cache_dir=data_dir, overwrite=True)
        tables.append(read_pairs(out))
    probs = [table[PROB_COLUMNS].to_numpy() for table in tables]
    expected = blend.mixture.apply([np.log(part) for part in probs[:2]])
    np.testing.assert_allclose(np.log(probs[2]), expected, atol=1e-9)
    folds = [table["teacher"].str.rpartition(" ")[2].tolist() for table in tables]
    assert folds[0] == folds[2]
    assert tables[2]["teacher"].str.startswith("teachers ").all()


def test_student_of_a_blend_is_checked(blended, caplog):
    """A fit skips no label of a blend whose folds had held out the row, and names leaks."""
    data_dir, *_, blend = blended
    label_pairs(blend.run, PAIRS, data_dir / "mixed.parquet", cache_dir=data_dir, overwrite=True)
    teachers = read_teachers([data_dir / "mixed.parquet"])
    labelled = read_pairs(data_dir / "mixed.parquet")
    assert not find_seen(labelled, teachers).any()
    wrong = labelled.assign(teacher=np.roll(labelled["teacher"].to_numpy(), 1))
    moved = labelled["teacher"].to_numpy() != wrong["teacher"].to_numpy()
    np.testing.assert_array_equal(find_seen(wrong, teachers), moved)


def test_row_is_labelled_by_folds_that_no_member_saw(folder, monkeypatch):
    """With different folds of the members, a row needs a fold that is unseen in all of them."""
    monkeypatch.setattr(parts, "_MAX_TREES", 10)
    data_dir, teacher = folder
    other = fit(data_dir, "shifted", "train.parquet", data_fields={"data_seed": 5})
    blend = blend_runs([teacher, other], data_dir, name="crossed", overwrite=True)
    out = data_dir / "crossed.parquet"
    done = label_pairs(blend.run, PAIRS, out, cache_dir=data_dir, overwrite=True)
    assert 0 < done.n_seen < len(PAIRS)
    labelled = read_pairs(out)
    for signature, rows in labelled.groupby("teacher").indices.items():
        folds = [int(fold) for fold in signature.rpartition(" ")[2].split(",")]
        for run in (teacher, other):
            assert not find_training_rows(run, folds)(labelled.iloc[rows]).any()


def test_unequal_members_cannot_teach(folder, monkeypatch):
    """Members with other numbers of folds, or with an unfinished fold, are named."""
    monkeypatch.setattr(parts, "_MAX_TREES", 10)
    data_dir, teacher = folder
    four = fit(data_dir, "four", "train.parquet", folds=(0, 1, 2, 3), data_fields={"n_splits": 4})
    blend = blend_runs([teacher, four], data_dir, name="unequal", overwrite=True)
    with pytest.raises(RunError, match="teacher has 3, four has 4"):
        open_teacher(blend.run, [0])
    first = fit(data_dir, "first", "train.parquet", folds=(0, 1), seed=2)
    blend = blend_runs([teacher, first], data_dir, name="partial", overwrite=True)
    with pytest.raises(RunError, match="first: fold 2 is not finished"):
        open_teacher(blend.run, [2])
    assert open_teacher(blend.run, [0, 1]).n_splits == 3
