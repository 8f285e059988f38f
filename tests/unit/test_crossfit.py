"""Cross-fitting locks what it writes, and leaves no run behind that has not begun."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from run_folders import simulated_run
from tiewise import crossfit
from tiewise.config import config_from_dict, load_preset, override
from tiewise.crossfit import cross_fit
from tiewise.data.formats import write_pairs
from tiewise.data.labels import PROB_COLUMNS
from tiewise.data.pairs import COLUMNS
from tiewise.data.simulation.simulate import simulate
from tiewise.errors import FoldError, ModelError, RunError, TiewiseError
from tiewise.files import file_lock, write_json
from tiewise.runs import references
from tiewise.runs.folder import FINGERPRINT, RunFolder, read_object, start_run
from tiewise.runs.tables import read_fold_oof, read_folds


@pytest.fixture
def config(tmp_path):
    """Return the configuration of the feature model for a few pairs."""
    write_pairs(simulate(20)[list(COLUMNS)], tmp_path / "pairs.csv")
    data = {"data": [str(tmp_path / "pairs.csv")], "n_splits": 2}
    return config_from_dict({"model": {"backbone": "baseline"}, "data": data})


@pytest.fixture
def fail_after(monkeypatch):
    """Return a function that makes every fit fail after it has written some files of its fold."""

    def patch(*names, error=None):
        def fit_fold(config, train, held_out, task):
            for name in names:
                write_json(task.folder.path / name, {})
            raise error or ModelError("no such backbone")

        monkeypatch.setattr(crossfit, "_choose_fit", lambda config, cache_dir: fit_fold)

    return patch


@pytest.mark.parametrize("error", [ModelError("no weights"), OSError(28, "No space left")])
@pytest.mark.parametrize("files", [(), (FINGERPRINT,), (FINGERPRINT, "history.jsonl")])
def test_failed_start_leaves_no_run(tmp_path, config, fail_after, files, error):
    """A new run of which nothing can be continued is removed."""
    fail_after(*files, error=error)
    with pytest.raises(type(error)):
        cross_fit(config, [0, 1], tmp_path, name="one")
    assert list((tmp_path / "runs").iterdir()) == []


def test_failed_fit_keeps_checkpoints(tmp_path, config, fail_after):
    """A run with a checkpoint stays, with everything that continues it."""
    fail_after(FINGERPRINT, "checkpoints/checkpoint-2/manifest.json", error=KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        cross_fit(config, [0], tmp_path, name="one")
    assert RunFolder(tmp_path / "runs" / "one", config).is_started


@pytest.mark.parametrize("is_fitted", [False, True])
def test_failed_fit_keeps_earlier_run(tmp_path, config, fail_after, is_fitted):
    """A run that existed before stays, with its finished folds or without any."""
    run = start_run(tmp_path, config, name="one")
    if is_fitted:
        cross_fit(config, [0], tmp_path, name="one")
    fail_after()
    with pytest.raises(ModelError):
        cross_fit(config, [1], tmp_path, name="one")
    assert run.config_path.is_file()
    assert run.finished_folds() == [0] * is_fitted


def test_failed_fit_keeps_run_of_others(tmp_path, config, fail_after):
    """A new run stays while another process has the lock of one of its folds."""
    fail_after()
    run = RunFolder(tmp_path / "runs" / "one", config)
    with file_lock(run.fold(1).lock_path):
        with pytest.raises(ModelError):
            cross_fit(config, [0], tmp_path, name="one")
        assert run.config_path.is_file()


def test_locked_fold_is_not_fitted(tmp_path, config):
    """While the lock of a fold is taken, a fit of the fold is refused and writes nothing there."""
    fold = RunFolder(tmp_path / "runs" / "one", config).fold(0)
    with (
        file_lock(fold.lock_path),
        pytest.raises(RunError, match="is being fitted now, locked by process"),
    ):
        cross_fit(config, [0], tmp_path, name="one")
    assert [path.name for path in fold.path.iterdir()] == [fold.lock_path.name]


def test_scores_of_a_run_are_locked(tmp_path, monkeypatch):
    """The lock of the run is taken while its folds are read and their scores computed."""
    run, _ = simulated_run(tmp_path, 60)
    score_run, n_calls = references.score_run, 0

    def score_locked(*arguments, **options):
        nonlocal n_calls
        n_calls += 1
        with pytest.raises(BlockingIOError), file_lock(run.lock_path):
            pass
        return score_run(*arguments, **options)

    monkeypatch.setattr(references, "score_run", score_locked)
    references.score_finished_folds(run)
    assert n_calls == 1


@pytest.fixture
def tasks(monkeypatch):
    """Replace the fit of a fold by uniform predictions; return the tasks that it was given."""
    given = []

    def fit_fold(config, train, held_out, task):
        given.append((task, train["id"].tolist(), held_out["id"].tolist()))
        if task.resume and task.folder.is_finished:
            return None
        write_json(task.folder.fingerprint_path, {"fold": task.fold})
        return pd.DataFrame(np.full((len(held_out), 3), 1 / 3), columns=PROB_COLUMNS)

    monkeypatch.setattr(crossfit, "_choose_fit", lambda config, cache_dir: fit_fold)
    monkeypatch.setattr(crossfit, "write_fold_card", lambda *arguments: None)
    return given


def test_folds_are_fitted_to_the_others(tmp_path, config, tasks):
    """Each fold is predicted from all other rows; its file has ids, labels, groups, and scores."""
    start = tmp_path / "start"
    run, fitted = cross_fit(
        override(config, backbone="tiny:0"), [1, 0], tmp_path, name="one", init_from=start
    )
    assert fitted == [1, 0]
    folds = read_folds(run)
    for fold, (task, train, held_out) in zip((1, 0), tasks, strict=True):
        assert (task.fold, task.folder, task.init_from) == (fold, run.fold(fold), start)
        assert (task.resume, task.cache_dir) == (False, tmp_path / "cache")
        assert held_out == folds.loc[folds["fold"] == fold, "id"].tolist()
        assert train == folds.loc[folds["fold"] != fold, "id"].tolist()
        oof = read_fold_oof(run.fold(fold))
        assert oof.columns.tolist() == ["id", "fold", "label", "group", *PROB_COLUMNS]
        known = folds.loc[folds["fold"] == fold, ["id", "fold", "label", "group"]]
        assert oof[known.columns.tolist()].equals(known.reset_index(drop=True))
        counts = read_object(run.fold(fold).scores_path)["counts"]
        assert counts["n_learned_from"] == len(train)


def test_finished_folds_are_skipped_or_replaced(tmp_path, config, tasks):
    """To resume skips a finished fold; to overwrite deletes the files of the named fold first."""
    run, _ = cross_fit(config, [0, 1], tmp_path, name="one")
    (run.fold(0).path / "old").touch()
    (run.fold(1).path / "old").touch()
    assert cross_fit(config, [0, 1], tmp_path, name="one", resume=True)[1] == []
    assert all(task.resume for task, *_ in tasks[2:])
    assert (run.fold(0).path / "old").exists()
    assert cross_fit(config, [0], tmp_path, name="one", overwrite=True)[1] == [0]
    assert not (run.fold(0).path / "old").exists()
    assert (run.fold(1).path / "old").exists()


@pytest.mark.parametrize("overwrite", [True, False])
def test_repeated_try_keeps_request(tmp_path, config, tasks, monkeypatch, overwrite):
    """A try that fails before its fold is begun is repeated as asked; a begun fold is resumed."""
    run, _ = cross_fit(config, [0], tmp_path, name="one")
    options = {"resume": False, "overwrite": overwrite, "init_from": None}
    call = {"config": config, "artifacts_dir": tmp_path, "name": "one", **options}
    worker = crossfit._FoldWorker(call)
    request = crossfit._FoldRequest(0, crossfit._begin_time(run, 0))
    with monkeypatch.context() as patch:
        patch.setattr(crossfit, "load_training_rows", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            worker.compute(request)
    worker.compute(replace(request, is_again=True))
    worker.compute(replace(request, is_again=True))  # now the fold is of this job
    assert [task.resume for task, *_ in tasks] == [False, False, True]


def test_workers_get_no_token(monkeypatch):
    """Settings go to the machines of a cluster, the secret of a server does not."""
    monkeypatch.setenv("TIEWISE_TOKEN", "secret")
    monkeypatch.setenv("TIEWISE_DATA", "pairs.csv")
    assert crossfit._settings()["TIEWISE_DATA"] == "pairs.csv"
    assert "secret" not in crossfit._settings().values()


@pytest.mark.parametrize(
    ("folds", "options", "match"),
    [
        ([2], {}, r"--fold is 2; expected 0 to 1"),
        ([0, -1], {}, r"--fold is -1; expected 0 to 1"),
        ([0], {"resume": True, "overwrite": True}, "--resume and --overwrite contradict"),
        ([0], {"init_from": Path("x")}, "--init-from does not apply to the feature model"),
    ],
)
def test_impossible_requests_are_refused(tmp_path, config, tasks, folds, options, match):
    """Nothing is written for a fold that does not exist, or options that contradict each other."""
    with pytest.raises(TiewiseError, match=match):
        cross_fit(config, folds, tmp_path, name="one", **options)
    assert not tasks
    assert not (tmp_path / "runs").exists()


def test_fold_without_winners_is_refused(tmp_path, tasks):
    """A fold is scored on rows with a winner, so that it needs one; other folds may lack them."""
    pairs = simulate(20)[list(COLUMNS)]
    is_first = np.arange(20) % 2 == 0
    probs = dict.fromkeys(PROB_COLUMNS, 1 / 3)
    pairs = pairs.assign(**probs, label=pairs["label"].mask(is_first))
    pairs["winner"] = pairs["winner"].mask(is_first)
    write_pairs(pairs, tmp_path / "pairs.parquet")
    data = {"data": [str(tmp_path / "pairs.parquet")], "n_splits": 2, "fold_rule": "position"}
    config = config_from_dict({"model": {"backbone": "baseline"}, "data": data})
    with pytest.raises(FoldError, match="Fold 0 holds out no row with a winner"):
        cross_fit(config, [1, 0], tmp_path, name="one")
    assert cross_fit(config, [1], tmp_path, name="one")[1] == [1]


def test_ignored_options_are_named(tmp_path, config, tasks, caplog):
    """Options that the feature model does not read are named where they differ from its preset."""
    config = override(config, device=load_preset("baseline").train.device)
    cross_fit(override(config, seed=3, soft_weight=0.5), [0], tmp_path, name="one")
    assert "ignores" not in caplog.text
    changed = override(
        config, n_epochs=7, max_length=99, swap=not load_preset("baseline").predict.swap
    )
    cross_fit(changed, [0], tmp_path, name="two")
    assert "The feature model ignores --max-length, --n-epochs, --swap." in caplog.text


@pytest.mark.parametrize(("labels", "never"), [([0, 2], "B"), ([1, 1], "A"), ([0, 1], "")])
def test_side_that_never_wins_is_named(caplog, labels, never):
    """It may be a wrong column of winners; a fit goes on."""
    crossfit._check_labels(pd.DataFrame({"fold": [0, 0], "label": labels}), [0])
    assert [f"Response {side} never wins" in caplog.text for side in "AB"] == [
        side == never for side in "AB"
    ]
