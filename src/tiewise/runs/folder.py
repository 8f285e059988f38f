"""The run folder: the paths of its files, and how a run is started and opened.

``artifacts/README.md`` shows the layout. A fold is finished when it has ``scores.json``.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tiewise.config import RunConfig, config_from_dict, defining_fields, first_difference
from tiewise.errors import RunError, did_you_mean
from tiewise.files import file_lock, is_locked, read_json, write_json
from tiewise.runs.environment import describe_environment, is_first_process, read_launch

FINGERPRINT = "fingerprint.json"
_OF_ONE_FOLD = {"fold", "init_from"}
"""Keys of a fingerprint that may differ between the folds of a run."""


def default_artifacts() -> Path:
    """Return the folder named by ``TIEWISE_ARTIFACTS``, else ``artifacts``; empty is not set."""
    return Path(os.environ.get("TIEWISE_ARTIFACTS") or "artifacts")


@dataclass(frozen=True)
class ScoredFolder:
    """A folder with predictions and their scores."""

    path: Path

    @property
    def lock_path(self) -> Path:
        """Lock of the process that writes into the folder."""
        return self.path / ".lock"

    @property
    def oof_path(self) -> Path:
        """Out-of-fold predictions: of one fold, or of all finished folds."""
        return self.path / "oof.parquet"

    @property
    def scores_path(self) -> Path:
        """Scores of the predictions; written last."""
        return self.path / "scores.json"


@dataclass(frozen=True)
class FoldFolder(ScoredFolder):
    """The folder of one fold."""

    @property
    def fingerprint_path(self) -> Path:
        """Every input by its SHA-256 or value; written first."""
        return self.path / FINGERPRINT

    @property
    def checkpoints_dir(self) -> Path:
        """Checkpoints; removed when the fold is finished."""
        return self.path / "checkpoints"

    @property
    def adapter_dir(self) -> Path:
        """Adapter and head, tokenizer, template and model card; or the feature model."""
        return self.path / "adapter"

    @property
    def history_path(self) -> Path:
        """One JSON line per logged step."""
        return self.path / "history.jsonl"

    @property
    def is_finished(self) -> bool:
        """Whether the fold is fitted and scored."""
        return self.scores_path.is_file()


@dataclass(frozen=True)
class RunFolder(ScoredFolder):
    """The folder of a run, and the configuration that the run was started with."""

    config: RunConfig

    @property
    def name(self) -> str:
        """Name of the run and of its folder."""
        return self.path.name

    @property
    def is_started(self) -> bool:
        """Whether a fold was started; until then the name can get another configuration."""
        return any(self.path.glob(f"fold*/{FINGERPRINT}"))

    @property
    def is_in_use(self) -> bool:
        """Whether a process is fitting a fold now."""
        return any(map(is_locked, self.path.glob("fold*/.lock")))

    @property
    def is_written_here(self) -> bool:
        """Whether this process writes the folder: the first of a launch does."""
        return is_first_process()

    @property
    def config_path(self) -> Path:
        """The configuration; a folder without it is no run."""
        return self.path / "config.json"

    @property
    def env_path(self) -> Path:
        """Versions and hardware at the start."""
        return self.path / "env.json"

    @property
    def folds_path(self) -> Path:
        """Fold, label, group and text lengths of each row."""
        return self.path / "folds.parquet"

    @property
    def rows_path(self) -> Path:
        """Folds that are not trained on a row, for each row (:mod:`tiewise.runs.teachers`)."""
        return self.path / "rows.parquet"

    @property
    def data_path(self) -> Path:
        """SHA-256, sources and counts of the data."""
        return self.path / "data.json"

    @property
    def mixture_path(self) -> Path:
        """Members of a blend and their weights."""
        return self.path / "mixture.json"

    def fold(self, fold: int) -> FoldFolder:
        """Return the folder of one fold, which may not exist yet."""
        return FoldFolder(self.path / f"fold{fold}")

    def finished_folds(self) -> list[int]:
        """Return the numbers of the finished folds, ascending."""
        folds = range(self.config.data.n_splits)
        return [fold for fold in folds if self.fold(fold).is_finished]

    def choose_folds(self, folds: Sequence[int] | None = None) -> list[int]:
        """Return the named folds, or all finished ones, ascending.

        RunError is raised when one is not finished, or they were fitted with different inputs.
        """
        finished = self.finished_folds()
        chosen = finished if folds is None else sorted(set(folds))
        unfinished = sorted(set(chosen) - set(finished))
        if unfinished or not chosen:
            which = f"fold {unfinished[0]} is not finished" if unfinished else "no fold is finished"
            others = f" (finished: {', '.join(map(str, finished))})" if finished else ""
            raise RunError(f"{self.path}: {which}{others}. Continue with tiewise fit --resume.")
        self.check_folds(chosen)
        return chosen

    def check_folds(self, folds: Sequence[int]) -> None:
        """Raise RunError unless all folds have the inputs and the configuration of this run.

        Folds of two fits are in one folder after an incomplete copy, for example.
        """
        # In JSON and back: tuples become lists, as in the files.
        known = json.loads(json.dumps({"config": defining_fields(self.config)}))
        for fold in folds:
            path = self.fold(fold).fingerprint_path
            inputs = read_object(path) if path.is_file() else {}
            inputs = {name: inputs[name] for name in inputs if name not in _OF_ONE_FOLD}
            difference = first_difference(*_shared(known, inputs))
            if difference is not None:
                name, before, now = difference
                raise RunError(
                    f"{self.path} holds folds of different fits: {name} is {now} for fold {fold}, "
                    f"and {before} for the run and the folds before it. Fit the fold again with "
                    "--overwrite, or restore the folder."
                )
            known = inputs | known

    def choose_fold(self, fold: int | None = None) -> int:
        """Return the named fold, or the only finished one; RunError when there are several."""
        chosen = self.choose_folds(None if fold is None else [fold])
        if len(chosen) > 1:
            listed = ", ".join(map(str, chosen))
            raise RunError(f"{self.path}: folds {listed} are finished; name one with --fold.")
        return chosen[0]


def start_run(artifacts_dir: Path, config: RunConfig, *, name: str | None = None) -> RunFolder:
    """Create a run folder, or return the run of that name if it has the same configuration."""
    run = name_run(artifacts_dir, config, name=name)
    if is_first_process():
        with file_lock(run.lock_path, wait=True):
            claim_run(run)
    return run


def name_run(artifacts_dir: Path, config: RunConfig, *, name: str | None = None) -> RunFolder:
    """Return the folder of a run that may not exist yet; nothing is written.

    Without a name, a run is called by UTC time and eight hex digits of the configuration's SHA-256.
    """
    if name is None and read_launch().n_processes > 1:
        raise RunError("Several processes share one run folder. Name it with --run.")
    name = name or f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{config.digest()[:8]}"
    if Path(name).name != name or name in {".", ".."}:
        raise RunError(f"--run is {name!r}; expected a plain name. Leave out slashes.")
    return RunFolder(artifacts_dir / "runs" / name, config)


def claim_run(run: RunFolder) -> None:
    """Write the configuration, or check that of a run that is started or is being started.

    A run that is not started loses its tables, so it can get other rows too. The caller has the
    lock of the run and is the first process of a launch.
    """
    if run.config_path.is_file() and (run.is_started or run.is_in_use):
        _check_same_config(open_run(run.path, Path()), run.config)
    else:
        for path in (run.data_path, run.folds_path, run.rows_path):  # of a start that failed
            path.unlink(missing_ok=True)
        write_json(run.env_path, describe_environment())
        write_json(run.config_path, run.config.to_dict())


def open_run(name_or_path: str | Path, artifacts_dir: Path) -> RunFolder:
    """Return the run of that name in `artifacts_dir`, or the run in the folder of that path."""
    path, named = Path(name_or_path), artifacts_dir / "runs" / str(name_or_path)
    if path.name in {"", ".."}:  # `.` and `..` have no name
        path = path.resolve()
    # A plain name is a run first, even if the current folder has a folder of that name.
    is_plain = path.name == str(name_or_path)
    for folder in (named, path) if is_plain else (path, named):
        config_path = folder / "config.json"
        if config_path.is_file():
            config = config_from_dict(read_object(config_path), source=str(config_path))
            return RunFolder(folder, config)
    runs_dir = artifacts_dir / "runs"
    known = sorted(path.parent.name for path in runs_dir.glob("*/config.json"))
    listed = " `tiewise runs` lists them." if known else " It has no runs yet."
    hint = did_you_mean(str(name_or_path), known)
    raise RunError(f"There is no run {name_or_path} in {runs_dir}.{hint}{listed}")


def as_run(run: str | Path | RunFolder, artifacts: str | Path | None = None) -> RunFolder:
    """Return a run as it is, or open it by its name or path, in `artifacts` or the default folder.

    RunError is raised when there is no such run.
    """
    if isinstance(run, RunFolder):
        return run
    return open_run(run, default_artifacts() if artifacts is None else Path(artifacts))


def read_object(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file of a run; RunError when there is none."""
    try:
        value = read_json(path)
    except (OSError, ValueError) as error:
        raise RunError(f"{path} cannot be read: {error}.") from error
    if not isinstance(value, dict):
        raise RunError(f"{path} is damaged: expected a JSON object.")
    return value


def _shared(one: Any, other: Any) -> tuple[Any, Any]:
    """Return two nested values without the keys that only one has, as in an earlier version."""
    if not (isinstance(one, dict) and isinstance(other, dict)):
        return one, other
    pairs = {key: _shared(one[key], other[key]) for key in one if key in other}
    return {key: a for key, (a, _) in pairs.items()}, {key: b for key, (_, b) in pairs.items()}


def _check_same_config(existing: RunFolder, config: RunConfig) -> None:
    difference = first_difference(defining_fields(existing.config), defining_fields(config))
    if difference is not None:
        name, before, now = difference
        raise RunError(
            f"Run {existing.name} exists with another configuration: {name} was {before} and is "
            f"now {now}. Choose another --run name, or remove {existing.path}."
        )
