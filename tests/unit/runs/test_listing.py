"""Runs are listed, described and removed; nothing else is."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from run_folders import fit_small, simulated_run, simulated_tables, write_run
from tiewise.config import PRESETS, closest_preset, load_preset, override
from tiewise.errors import ConfigError, RunError
from tiewise.files import file_lock, write_json
from tiewise.runs.fold_lock import check_fingerprint
from tiewise.runs.folder import start_run
from tiewise.runs.listing import (
    act_on_runs,
    describe_run,
    format_command,
    list_runs,
    remove_runs,
)
from tiewise.runs.references import evaluate_finished_folds

TINY = load_preset("tiny")


def content(folder):
    """Return every path below a folder with the content of its files; links are not followed."""
    return {
        path.relative_to(folder): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


def test_scores_are_those_of_evaluate(tmp_path):
    """The list states the log loss and accuracy that `tiewise evaluate` gives, and the files."""
    run = fit_small(tmp_path, "first")
    scores = evaluate_finished_folds(run)
    [found] = list_runs(tmp_path).runs
    assert found == describe_run("first", tmp_path)
    assert found.scores == {"log_loss": scores.log_loss, "accuracy": scores.accuracy}
    assert (found.name, found.preset, found.data) == ("first", "baseline", ("pairs.csv",))
    assert (found.folds, found.n_splits, found.n_pairs) == ((0, 1), 2, 150)
    assert found.size == sum(path.stat().st_size for path in run.path.rglob("*") if path.is_file())
    assert f"{scores.log_loss:.3f}" in str(list_runs(tmp_path))


def test_scores_of_other_folds_are_not_shown(tmp_path):
    """Scores that do not include every finished fold are not shown."""
    run, _ = simulated_run(tmp_path, 60)
    assert describe_run("simulated", tmp_path).scores
    for fold in range(4):
        run.fold(fold).scores_path.unlink()
    assert describe_run("simulated", tmp_path).scores == {}
    assert "1 of 5" in str(list_runs(tmp_path))


def test_damaged_run_is_listed(tmp_path):
    """A damaged run is listed with the reason, next to the others, and can be removed."""
    start_run(tmp_path, TINY, name="good")
    start_run(tmp_path, TINY, name="bad").config_path.write_text("{")
    problems = {run.name: run.problem for run in list_runs(tmp_path).runs}
    assert problems["good"] == ""
    assert "config.json" in problems["bad"]
    assert "damaged" in str(list_runs(tmp_path))
    remove_runs(["bad"], tmp_path)
    assert [run.name for run in list_runs(tmp_path).runs] == ["good"]


def test_empty_list_names_the_first_command(tmp_path):
    """Without runs, the list says how to fit one."""
    assert "tiewise fit --preset quickstart" in str(list_runs(tmp_path))


@given(
    st.sampled_from([name for name in PRESETS if name != "baseline"]),
    st.fixed_dictionaries(
        {}, optional={"seed": st.just(7), "n_epochs": st.just(9), "limit": st.just(40)}
    ),
)
def test_preset_is_found(preset, fields):
    """The preset of a configuration is found again, with the fields that were changed."""
    assert closest_preset(load_preset(preset)) == (preset, [])
    found, changed = closest_preset(override(load_preset(preset), **fields))
    assert (found, sorted(changed)) == (preset, sorted(fields))


def test_removed_run_leaves_others(tmp_path):
    """Removing runs leaves no file of theirs and every file of the others."""
    _, *tables = simulated_tables(60)
    for name in ("one", "two", "three"):
        write_run(tmp_path, *tables, name=name, is_scored=False)
    before = content(tmp_path / "runs" / "two")
    removed = remove_runs(["one", str(tmp_path / "runs" / "three")], tmp_path)
    assert removed.removed == ("one", "three")
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["two"]
    assert content(tmp_path / "runs" / "two") == before


def test_links_are_not_followed(tmp_path):
    """Files outside stay, whether a link names a file, a fold or the run itself."""
    outside = tmp_path / "outside"
    write_json(outside / "fold0" / "scores.json", {})
    write_json(outside / "kept.json", {})
    before = content(outside)
    run = start_run(tmp_path, TINY, name="first")
    (run.path / "fold0").symlink_to(outside / "fold0")
    (run.path / "kept.json").symlink_to(outside / "kept.json")
    (run.path / "loop").symlink_to(run.path)
    remove_runs(["first"], tmp_path)
    assert not run.path.exists()
    assert content(outside) == before

    elsewhere = start_run(tmp_path / "elsewhere", TINY, name="second")
    before = content(elsewhere.path)
    (tmp_path / "runs" / "second").symlink_to(elsewhere.path)
    with pytest.raises(RunError, match="is a link"):
        remove_runs(["second"], tmp_path)
    assert content(elsewhere.path) == before


@pytest.mark.parametrize(
    "name", ["notes", "../first", "..", ".", "", "/", "runs", "elsewhere", "nothing", "first/fold0"]
)
def test_other_folders_are_refused(tmp_path, name):
    """A name of anything but a run of this folder is refused, and nothing is removed."""
    start_run(tmp_path, TINY, name="first")
    write_json(tmp_path / "runs" / "first" / "fold0" / "config.json", {})
    write_json(tmp_path / "runs" / "notes" / "notes.json", {})
    write_json(tmp_path / "first" / "config.json", {})
    write_json(tmp_path / "elsewhere" / "config.json", {})
    before = content(tmp_path)
    with pytest.raises(RunError):
        remove_runs(["first", name], tmp_path)
    with pytest.raises(RunError):
        remove_runs([str(tmp_path / "elsewhere")], tmp_path)
    assert content(tmp_path) == before


@pytest.mark.parametrize("end", ["..", "first/..", "first/../..", "."])
def test_parents_of_runs_are_refused(tmp_path, end):
    """A path that ends at the folder of runs or above it is refused, also with a config.json."""
    start_run(tmp_path, TINY, name="first")
    write_json(tmp_path / "config.json", {})
    write_json(tmp_path / "runs" / "config.json", {})
    before = content(tmp_path)
    with pytest.raises(RunError, match="is not in"):
        remove_runs([str(tmp_path / "runs" / end)], tmp_path)
    assert content(tmp_path) == before


@pytest.mark.parametrize("names", [["first", "other"], ["other", "first"]])
def test_no_run_goes_while_one_is_fitted(tmp_path, names):
    """Of several runs none is removed while one of them is being fitted; afterwards all are."""
    for name in names:
        start_run(tmp_path, TINY, name=name)
    with file_lock(tmp_path / "runs" / "first" / "fold0" / ".lock"):
        before = content(tmp_path).keys()
        with pytest.raises(RunError, match="is being fitted now"):
            remove_runs(names, tmp_path)
        assert before <= content(tmp_path).keys()
    assert remove_runs(names, tmp_path).removed == tuple(names)
    assert list_runs(tmp_path).runs == ()


def test_run_being_fitted_stays(tmp_path):
    """While a process has the lock of a fold, the run is not removed."""
    run = start_run(tmp_path, TINY, name="first")
    check_fingerprint(run.fold(1), {"fold": 1}, resume=False)
    with file_lock(run.fold(1).lock_path):
        with pytest.raises(RunError, match="is being fitted now, locked by process"):
            remove_runs(["first"], tmp_path)
        assert run.fold(1).fingerprint_path.is_file()
    remove_runs(["first"], tmp_path)
    assert not run.path.exists()


def test_interrupted_removal_is_repeated(tmp_path, monkeypatch):
    """When a removal is interrupted, the run is still listed, and the next removal ends it."""
    run, _ = simulated_run(tmp_path, 60)
    removed = []

    def stop_at_third(path):
        if len(removed) == 2:
            raise KeyboardInterrupt
        removed.append(path)
        path.unlink()

    with monkeypatch.context() as patch:
        patch.setattr("tiewise.runs.fold_lock.remove", stop_at_third)
        with pytest.raises(KeyboardInterrupt):
            remove_runs(["simulated"], tmp_path)
    assert [found.name for found in list_runs(tmp_path).runs] == ["simulated"]
    remove_runs(["simulated"], tmp_path)
    assert not run.path.exists()


def test_members_of_blends_stay(tmp_path):
    """A member is removed only together with the blend that needs it."""
    for name in ("one", "two", "mixed"):
        start_run(tmp_path, TINY, name=name)
    write_json(
        tmp_path / "runs" / "mixed" / "mixture.json", {"members": ["one", "two"], "weights": [1, 1]}
    )
    with pytest.raises(RunError, match="one is a member of the blend mixed"):
        remove_runs(["one"], tmp_path)
    remove_runs(["one", "mixed"], tmp_path)
    assert [run.name for run in list_runs(tmp_path).runs] == ["two"]


@pytest.mark.parametrize(("action", "names"), [("list", ["a"]), ("show", []), ("rm", [])])
def test_number_of_names_is_checked(tmp_path, action, names):
    """The list takes no name, show one, rm at least one."""
    with pytest.raises(ConfigError, match="tiewise runs rm RUN"):
        act_on_runs(action, names, tmp_path)


@pytest.mark.parametrize("name", ["tiewise", "__main__.py"])
def test_command_is_shown_as_typed(name):
    """A fit by ``python -m tiewise`` is shown as the command; no command is an empty text."""
    assert format_command({"command": [name, "fit", "--seed", "1"]}) == "tiewise fit --seed 1"
    assert format_command({}) == ""
