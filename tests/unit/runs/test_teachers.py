"""Tests of soft labels by a teacher that was trained on the row."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiewise.config import config_from_dict, load_preset
from tiewise.data.folds import derive_groups
from tiewise.data.formats import write_pairs
from tiewise.data.formats.parquet import write_parquet
from tiewise.data.labels import PROB_COLUMNS
from tiewise.data.pairs import COLUMNS, pair_digests
from tiewise.data.simulation.simulate import simulate
from tiewise.errors import PairsError
from tiewise.runs.folder import start_run
from tiewise.runs.teachers import Teacher, find_leaks, find_seen, find_unseen_groups, save_seen
from tiewise.runs.training_rows import load_training_rows

PAIRS = simulate(40, seed=0)[list(COLUMNS)]
N_SPLITS = 3
FOLDS = st.sets(st.integers(0, N_SPLITS - 1))


def make_teacher(unseen, name="t"):
    """Return a teacher with the folds that were not trained on each of the first pairs."""
    digests = pair_digests(PAIRS.head(len(unseen)))
    folds = map(sorted, unseen)
    return Teacher(name, "0" * 16, N_SPLITS, dict(zip(digests, folds, strict=True)))


def sign(pairs, teacher, folds):
    """Return pairs with soft labels that some folds of a teacher signed."""
    probs = dict.fromkeys(PROB_COLUMNS, 1 / 3)
    signed = pd.array([teacher.sign(sorted(folds))] * len(pairs), dtype="string")
    return pairs.assign(**probs, teacher=signed)


def swap(pairs):
    """Return pairs with the responses in the other order."""
    return pairs.assign(response_a=pairs["response_b"], response_b=pairs["response_a"])


@given(st.lists(FOLDS, min_size=1, max_size=5), FOLDS.filter(bool), st.booleans())
def test_any_fold_that_saw_the_row_counts(unseen, folds, is_swapped):
    """A row is seen if one of the folds that signed it was trained on it, in either order."""
    teacher = make_teacher(unseen)
    pairs = PAIRS.head(len(unseen) + 2)  # the teacher has not seen the last two
    expected = [not folds <= known for known in unseen] + [False, False]
    pairs = swap(pairs) if is_swapped else pairs
    signed, teachers = sign(pairs, teacher, folds), {"t " + "0" * 16: teacher}
    assert find_seen(signed, teachers).tolist() == expected
    train = sign(PAIRS.tail(3), teacher, folds)
    assert find_leaks(pairs, train, teachers).tolist() == expected


@pytest.fixture
def write(tmp_path):
    """Return a function that writes labelled pairs with their teacher, and returns the path."""

    def to(name, pairs, teacher):
        write_parquet(pairs, tmp_path / name, teacher=teacher.to_json())
        return str(tmp_path / name)

    write_pairs(PAIRS.head(20), tmp_path / "plain.parquet")
    return to


@pytest.mark.parametrize("way", ["data", "second file", "environment", "extra", "second extra"])
@pytest.mark.parametrize("is_swapped", [False, True])
def test_seen_row_is_refused(write, tmp_path, monkeypatch, way, is_swapped):
    """One row whose teacher saw it is refused by id, by whichever way its file is named."""
    monkeypatch.delenv("TIEWISE_DATA", raising=False)
    teacher = make_teacher([{0, 1}] * 39 + [{1, 2}])
    rows = PAIRS.iloc[20:]
    signed = sign(swap(rows) if is_swapped else rows, teacher, {0})
    clean = write("clean.parquet", signed.iloc[:-1], teacher)
    leaky, plain = write("leaky.parquet", signed, teacher), str(tmp_path / "plain.parquet")

    def load(path):
        ways = {
            "data": {"data": [path]},
            "second file": {"data": [plain, path]},
            "environment": {},
            "extra": {"data": [plain], "extra_data": [path]},
            "second extra": {"data": [plain], "extra_data": [plain, path]},
        }
        if way == "environment":
            monkeypatch.setenv("TIEWISE_DATA", path)
        fields = {"n_splits": N_SPLITS} | ways[way]
        return load_training_rows(config_from_dict({"data": fields}).data)

    assert load(clean).described["counts"]["n_labelled_by_teacher"] == 19
    with pytest.raises(PairsError, match=r"^1 of \d+ rows have soft labels by a teacher"):
        load(leaky)


def test_each_teacher_has_its_own_rows(write, tmp_path):
    """Of two teachers in one fit, a row is compared with the rows of the one that signed it."""
    blind, seeing = make_teacher([{0, 1, 2}] * 40, "blind"), make_teacher([set()] * 40, "seeing")
    paths = [
        write("a.parquet", sign(PAIRS.head(20), blind, {0}), blind),
        write("b.parquet", sign(PAIRS.tail(20), seeing, {1}), seeing),
    ]
    config = config_from_dict({"data": {"data": paths, "n_splits": N_SPLITS}}).data
    with pytest.raises(PairsError, match=r"^20 of 40 rows have soft labels"):
        load_training_rows(config)


@pytest.mark.parametrize("fold", range(N_SPLITS))
def test_held_out_leaks_are_counted(write, tmp_path, fold):
    """Held-out rows that the teacher of extra rows was trained on are counted for each fold."""
    teacher = make_teacher([{0}] * 20)
    path = write("soft.parquet", sign(PAIRS.tail(20), teacher, {1}), teacher)
    fields = {"data": [str(tmp_path / "plain.parquet")], "extra_data": [path]}
    rows = load_training_rows(config_from_dict({"data": fields | {"n_splits": N_SPLITS}}).data)
    counts = rows.count_leaks(fold, rows.of(fold))
    assert counts["n_held_out_seen_by_teacher"] == np.sum(rows.folds == fold)


ROW = st.tuples(st.sampled_from("abcde"), st.sampled_from(["s", "t", None]), st.integers(0, 99))


def make_pairs(rows):
    """Return pairs from (prompt, session, response)."""
    prompts, sessions, responses = zip(*rows, strict=True)
    texts = pd.DataFrame(
        {
            "prompt": [[text] for text in prompts],
            "response_a": [[str(text)] for text in responses],
            "response_b": [["b"]] * len(rows),
            "session": pd.array(sessions, dtype="string"),
        }
    )
    return texts.assign(group=derive_groups(texts))


@given(st.lists(ROW, min_size=1, max_size=12), st.lists(ROW, min_size=1, max_size=8), st.data())
def test_out_of_fold_excludes_prompt_groups(rows, new_rows, data):
    """A fold may label a row only if no training row of it is in the row's prompt group.

    Groups are those of all rows together, which prompts and sessions connect; the rows of a run
    are in folds in any way, so that also folds by position are covered.
    """
    pairs, new = make_pairs(rows), make_pairs(new_rows)
    flags = st.lists(st.booleans(), min_size=N_SPLITS, max_size=N_SPLITS)
    is_unseen = np.array(data.draw(st.lists(flags, min_size=len(rows), max_size=len(rows))))
    with tempfile.TemporaryDirectory() as folder:
        run = start_run(Path(folder), load_preset("baseline"), name="one")
        save_seen(run, pairs, is_unseen)
        found = find_unseen_groups(run, new)
    groups = derive_groups(pd.concat([pairs, new], ignore_index=True))
    for row, group in enumerate(groups[len(pairs) :]):
        is_member = groups[: len(pairs)] == group
        assert found[row].tolist() == is_unseen[is_member].all(axis=0).tolist()
