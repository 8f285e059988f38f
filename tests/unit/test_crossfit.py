"""Cross-fitting locks what it writes."""

import pytest

from run_folders import simulated_run
from tiewise.config import config_from_dict
from tiewise.crossfit import cross_fit
from tiewise.data.formats import write_pairs
from tiewise.data.pairs import COLUMNS
from tiewise.data.simulation.simulate import simulate
from tiewise.errors import RunError
from tiewise.files import file_lock
from tiewise.runs import references
from tiewise.runs.folder import RunFolder


def test_locked_fold_is_not_fitted(tmp_path):
    """While the lock of a fold is taken, a fit of the fold is refused and writes nothing there."""
    write_pairs(simulate(20)[list(COLUMNS)], tmp_path / "pairs.csv")
    data = {"data": [str(tmp_path / "pairs.csv")], "n_splits": 2}
    config = config_from_dict({"model": {"backbone": "baseline"}, "data": data})
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
