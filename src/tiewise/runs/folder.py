"""The run folder: what stands where, and which configuration and data it belongs to.

``artifacts/README.md`` shows the layout. A fold is finished when its ``scores.json`` stands, which
is written last.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tiewise.config import RunConfig, config_from_dict, defining_fields, first_difference
from tiewise.errors import RunError
from tiewise.files import read_json, write_json
from tiewise.runs.environment import describe_environment, is_first_process


def default_artifacts() -> Path:
    """Return the folder named by ``TIEWISE_ARTIFACTS``, else ``artifacts``."""
    return Path(os.environ.get("TIEWISE_ARTIFACTS", "artifacts"))


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
class RunFolder:
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
        """Which folds have not seen which rows (:mod:`tiewise.runs.teachers`)."""
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


def start_run(artifacts_dir: Path, config: RunConfig, *, name: str | None = None) -> RunFolder:
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
    run = RunFolder(artifacts_dir / "runs" / name, config)
    config_path = run.path / "config.json"
    if config_path.is_file() and run.is_begun:
        _check_same_config(open_run(run.path, artifacts_dir), config)
    elif is_first_process():
        write_json(run.path / "env.json", describe_environment())
        write_json(config_path, config.to_dict())
    return run


def open_run(name_or_path: str | Path, artifacts_dir: Path) -> RunFolder:
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
            return RunFolder(folder, config_from_dict(values, source=f"{folder / 'config.json'}"))
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


def _check_same_config(existing: RunFolder, config: RunConfig) -> None:
    difference = first_difference(defining_fields(existing.config), defining_fields(config))
    if difference is not None:
        name, before, now = difference
        raise RunError(
            f"Run {existing.name} exists with another configuration: {name} was {before} and is "
            f"now {now}. Take another --run name, or remove {existing.path}."
        )
