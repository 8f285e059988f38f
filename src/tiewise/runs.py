"""The run folder: what stands where, and which configuration and data it belongs to.

``artifacts/README.md`` shows the layout. A fold is finished when its ``scores.json`` stands, which
is written last.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd

from tiewise.config import RunConfig, config_from_dict
from tiewise.environment import describe_environment, is_first_process
from tiewise.errors import RunError
from tiewise.files import digest_file, read_json, write_json, write_parquet
from tiewise.identity import defining_fields, first_difference


@dataclass(frozen=True)
class FoldFolder:
    """The files of one fold."""

    path: Path

    @property
    def lock_path(self) -> Path:
        """Held by the process that fits the fold."""
        return self.path / ".lock"

    @property
    def identity_path(self) -> Path:
        """Every input by digest; written first."""
        return self.path / "identity.json"

    @property
    def checkpoints_dir(self) -> Path:
        """Resumable states; removed when the fold is finished."""
        return self.path / "checkpoints"

    @property
    def adapter_dir(self) -> Path:
        """Adapter and head, tokenizer, template, model card."""
        return self.path / "adapter"

    @property
    def history_path(self) -> Path:
        """A JSON line per logged step."""
        return self.path / "history.jsonl"

    @property
    def oof_path(self) -> Path:
        """Predictions for the held-out rows."""
        return self.path / "oof.parquet"

    @property
    def scores_path(self) -> Path:
        """Scores of the held-out rows; written last."""
        return self.path / "scores.json"

    @property
    def is_finished(self) -> bool:
        """Whether the fold needs nothing more."""
        return self.scores_path.is_file()


@dataclass(frozen=True)
class Run:
    """A run folder and the configuration it was made with."""

    path: Path
    config: RunConfig

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.path.name

    @property
    def is_begun(self) -> bool:
        """Whether any fold was begun; until then nothing binds the name to a configuration."""
        return any(self.path.glob("fold*/identity.json"))

    @property
    def lock_path(self) -> Path:
        """Held while the folds' predictions are joined."""
        return self.path / ".lock"

    @property
    def folds_path(self) -> Path:
        """Which row is held out where, with what the reference scores need."""
        return self.path / "folds.parquet"

    @property
    def rows_path(self) -> Path:
        """Which folds have not seen which rows, by digest (:mod:`tiewise.teachers`)."""
        return self.path / "rows.parquet"

    @property
    def data_path(self) -> Path:
        """The data's digest, where they came from, and what was left out of them."""
        return self.path / "data.json"

    @property
    def oof_path(self) -> Path:
        """The finished folds' predictions, joined."""
        return self.path / "oof.parquet"

    @property
    def scores_path(self) -> Path:
        """The scores of all finished folds together."""
        return self.path / "scores.json"

    @property
    def average_dir(self) -> Path:
        """The folds' adapters averaged into one."""
        return self.path / "average"

    @property
    def mixture_path(self) -> Path:
        """What each member of a blend counts."""
        return self.path / "mixture.json"

    def fold(self, fold: int) -> FoldFolder:
        """Return the folder of one fold, which need not exist yet."""
        return FoldFolder(self.path / f"fold{fold}")

    def finished_folds(self) -> list[int]:
        """Return the numbers of the finished folds, ascending."""
        folds = range(self.config.data.n_splits)
        return [fold for fold in folds if self.fold(fold).is_finished]


def start_run(artifacts_dir: Path, config: RunConfig, *, name: str | None = None) -> Run:
    """Make a run folder, or join the one of that name when it has the same configuration.

    Parameters
    ----------
    artifacts_dir
        The artifacts folder; the run stands in ``runs`` below it.
    config
        The resolved configuration.
    name
        The run's name; UTC time and eight hex digits of the configuration's digest when None.

    Raises
    ------
    RunError
        When the name is no plain name, or a run of that name has another configuration; when
        several processes were launched and no name says which folder they share.
    """
    if name is None and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise RunError("Several processes share one run folder: name it with --run.")
    name = name or f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{config.digest()[:8]}"
    if Path(name).name != name or name in {".", ".."}:
        raise RunError(f"--run {name!r} is not a plain name: leave out slashes.")
    run = Run(artifacts_dir / "runs" / name, config)
    config_path = run.path / "config.json"
    if config_path.is_file() and run.is_begun:
        _check_same_config(open_run(run.path, artifacts_dir), config)
    elif is_first_process():
        write_json(run.path / "env.json", describe_environment())
        write_json(config_path, config.to_dict())
    return run


def open_run(name_or_path: str | Path, artifacts_dir: Path) -> Run:
    """Open a run by its name below `artifacts_dir`, or by the path of its folder.

    Raises
    ------
    RunError
        When there is no such run; the message lists the runs there are.
    """
    path, named = Path(name_or_path), artifacts_dir / "runs" / str(name_or_path)
    # A plain name means the run, whatever folder of that name stands here.
    is_plain = path.name == str(name_or_path)
    for folder in (named, path) if is_plain else (path, named):
        if (folder / "config.json").is_file():
            values = read_object(folder / "config.json")
            return Run(folder, config_from_dict(values, source=f"{folder / 'config.json'}"))
    known = sorted(path.parent.name for path in (artifacts_dir / "runs").glob("*/config.json"))
    listed = f"Runs there: {', '.join(known)}." if known else "There are no runs there yet."
    raise RunError(f"There is no run {name_or_path} in {artifacts_dir / 'runs'}. {listed}")


def read_object(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file of a run.

    Raises
    ------
    RunError
        When the file cannot be read, or holds something else.
    """
    try:
        value = read_json(path)
    except (OSError, ValueError) as error:
        raise RunError(f"{path} cannot be read: {error}.") from error
    if not isinstance(value, dict):
        raise RunError(f"{path} is damaged: it holds no JSON object.")
    return value


def save_folds(run: Run, table: pd.DataFrame) -> None:
    """Write ``folds.parquet``, or check that it says the same.

    Raises
    ------
    RunError
        When the run's folds were made from other rows.
    """
    if run.folds_path.is_file() and run.is_begun:
        if not read_folds(run)[["id", "fold"]].equals(table[["id", "fold"]]):
            raise RunError(
                f"{run.folds_path} deals other rows to the folds than the data given now. Take "
                "another --run name, or give the data the run was begun with."
            )
        return
    write_parquet(run.folds_path, table)


def save_data(run: Run, described: dict[str, Any]) -> None:
    """Write ``data.json``, or check that it names the same data.

    Raises
    ------
    RunError
        When the run was begun with other data.
    """
    if run.data_path.is_file() and run.is_begun:
        before, now = read_data(run)["digest"], described["digest"]
        if before != now:
            raise RunError(
                f"{run.path} was begun with other data: their digest was {before} and is now "
                f"{now}. Take another --run name, or give the data the run was begun with."
            )
        return
    witnesses = {"folds_sha256": digest_file(run.folds_path)}
    if run.rows_path.is_file():
        witnesses["rows_sha256"] = digest_file(run.rows_path)
    write_json(run.data_path, described | witnesses)


def read_data(run: Run) -> dict[str, Any]:
    """Return what ``data.json`` says: digest, sources and counts of the run's data."""
    data = read_object(run.data_path)
    if not {"digest", "counts"} <= set(data):
        raise RunError(f"{run.data_path} does not say which data the run was fitted on.")
    return data


def read_folds(run: Run) -> pd.DataFrame:
    """Return the table of folds: id, fold, label, group and lengths, a line per row of the data."""
    return _read_table(run.folds_path, run.data_path, "folds_sha256")


def read_rows(run: Run) -> pd.DataFrame:
    """Return the table of pairs that the run learned from, and which folds have not seen them."""
    return _read_table(run.rows_path, run.data_path, "rows_sha256")


def read_fold_oof(fold: FoldFolder) -> pd.DataFrame:
    """Return the predictions for the rows that a finished fold held out."""
    return _read_table(fold.oof_path, fold.scores_path, "oof_sha256")


def read_oof(run: Run) -> pd.DataFrame:
    """Return the out-of-fold predictions of all finished folds.

    They are joined in ``oof.parquet`` where the run was scored since its last fold was finished;
    else, after a fit that was stopped, they are those that the folds hold.

    Raises
    ------
    RunError
        When no fold is finished, or a file is damaged.
    """
    finished = run.finished_folds()
    if not finished or is_joined(run):
        return _read_table(run.oof_path, run.scores_path, "oof_sha256")
    return join_folds(run, finished)


def is_joined(run: Run) -> bool:
    """Return whether ``oof.parquet`` speaks of exactly the folds that are finished now."""
    if not run.oof_path.is_file():
        return False
    joined = _read_table(run.oof_path, run.scores_path, "oof_sha256")
    return set(joined["fold"]) == set(run.finished_folds())


def join_folds(run: Run, folds: Sequence[int]) -> pd.DataFrame:
    """Return the predictions that some finished folds hold, one fold after the other."""
    return pd.concat([read_fold_oof(run.fold(fold)) for fold in folds], ignore_index=True)


def forget_scores(run: Run) -> None:
    """Remove the joined predictions and their scores: a fold they speak of is fitted anew."""
    for path in (run.scores_path, run.oof_path):
        path.unlink(missing_ok=True)


def save_scored(place: FoldFolder | Run, oof: pd.DataFrame, scores: dict[str, Any]) -> None:
    """Write predictions and, last, their scores with the digest of the predictions."""
    place.scores_path.unlink(missing_ok=True)  # they would witness against the new predictions
    write_parquet(place.oof_path, oof)
    write_json(place.scores_path, scores | {"oof_sha256": digest_file(place.oof_path)})


def _check_same_config(existing: Run, config: RunConfig) -> None:
    difference = first_difference(defining_fields(existing.config), defining_fields(config))
    if difference is not None:
        name, before, now = difference
        raise RunError(
            f"Run {existing.name} exists with another configuration: {name} was {before} and is "
            f"now {now}. Take another --run name, or remove {existing.path}."
        )


def _read_table(path: Path, witness_path: Path, name: str) -> pd.DataFrame:
    """Read a table after comparing it with the digest that the file beside it states."""
    if not path.is_file():
        raise RunError(f"{path} is missing: no fold of this run is finished yet. Run tiewise fit.")
    stated = read_object(witness_path).get(name) if witness_path.is_file() else None
    if stated is not None and digest_file(path) != stated:
        raise RunError(f"{path} is damaged: {witness_path.name} states another SHA-256. Fit again.")
    try:
        return pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise RunError(f"{path} cannot be read: {error}. Fit the run again.") from error
