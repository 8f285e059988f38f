"""Cross-fitting locks what it writes, and leaves no run behind that has not begun."""

import pytest

from run_folders import simulated_run
from tiewise import crossfit
from tiewise.config import config_from_dict
from tiewise.crossfit import cross_fit
from tiewise.data.formats import write_pairs
from tiewise.data.pairs import COLUMNS
from tiewise.data.simulation.simulate import simulate
from tiewise.errors import ModelError, RunError
from tiewise.files import file_lock, write_json
from tiewise.runs import references
from tiewise.runs.folder import FINGERPRINT, RunFolder, start_run


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

        monkeypatch.setattr(crossfit, "_choose_fit", lambda config: fit_fold)

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
