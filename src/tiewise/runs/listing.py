"""List the runs of an artifacts folder, describe one, and remove some.

A damaged run is listed with the reason, so that it can be removed.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from tiewise.config import RunConfig, closest_preset
from tiewise.errors import ConfigError, RunError, TiewiseError, did_you_mean
from tiewise.evaluation.intervals import Interval, Result
from tiewise.runs.fold_lock import remove_folders
from tiewise.runs.folder import RunFolder, open_run, read_object
from tiewise.runs.tables import read_data

Action = Literal["list", "show", "rm"]
_NONE = "-"
_FIRST = "Fit one: tiewise fit --preset quickstart --fold 0 --run first"
_SCORES = ("log_loss", "accuracy")


@dataclass(frozen=True)
class RunSummary(Result):
    """Facts about one run."""

    name: str
    path: str
    size: int
    """Bytes of its files."""

    preset: str = _NONE
    """Preset that its configuration differs least from."""

    changed: tuple[str, ...] = ()
    """Fields that have another value than in the preset."""

    data: tuple[str, ...] = ()
    """Names of the files that it was fitted to."""

    n_pairs: int | None = None
    folds: tuple[int, ...] = ()
    """Finished folds."""

    n_splits: int | None = None
    scores: dict[str, Interval] = field(default_factory=dict)
    """Log loss and accuracy of the finished folds together; empty until they are scored."""

    started: str = ""
    """Time of the first start, in UTC."""

    command: str = ""
    problem: str = ""
    """Reason why the run cannot be read."""

    def cells(self) -> list[str]:
        """Return the cells of its row in a table of runs."""
        if self.problem:
            return [self.name, "damaged", _NONE, _NONE, _NONE, _format_size(self.size)]
        more = f" + {len(self.data) - 1} files" if len(self.data) > 1 else ""
        return [
            self.name,
            self.preset + "*" * bool(self.changed),
            f"{self.data[0]}{more}" if self.data else _NONE,
            f"{len(self.folds)} of {self.n_splits}",
            f"{self.scores['log_loss']:.3f}" if self.scores else _NONE,
            _format_size(self.size),
        ]

    def __str__(self) -> str:
        finished = ", ".join(map(str, self.folds)) or "none"
        changed = f"; changed: {', '.join(self.changed)}" if self.changed else ""
        facts = {
            "run": self.name,
            "folder": self.path,
            "problem": self.problem,
            "preset": f"{self.preset}{changed}",
            "data": ", ".join(self.data),
            "pairs": "" if self.n_pairs is None else f"{self.n_pairs:,}",
            "folds finished": "" if self.problem else f"{finished} (of {self.n_splits})",
            **{name.replace("_", " "): str(score) for name, score in self.scores.items()},
            "size": _format_size(self.size),
            "started": self.started,
            "command": self.command,
        }
        return "\n".join(f"{name:16}{fact}" for name, fact in facts.items() if fact)


@dataclass(frozen=True)
class RunList(Result):
    """The runs of an artifacts folder, the last started first."""

    path: str
    runs: tuple[RunSummary, ...]

    def __str__(self) -> str:
        if not self.runs:
            return f"{self.path} has no runs. {_FIRST}"
        head = ["run", "preset", "data", "folds", "log loss", "size"]
        rows = [head, *(run.cells() for run in self.runs)]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in rows
        ]
        if any(run.changed for run in self.runs):
            lines.append("* with some fields changed; tiewise runs show RUN lists them")
        return "\n".join(lines)


@dataclass(frozen=True)
class RemovedRuns(Result):
    """Names and sizes of removed runs."""

    removed: tuple[str, ...]
    size: int

    def __str__(self) -> str:
        return f"Removed {', '.join(self.removed)} ({_format_size(self.size)})."


def list_runs(artifacts_dir: Path) -> RunList:
    """Describe every run in the folder `runs` of an artifacts folder."""
    runs_dir = artifacts_dir / "runs"
    found = [_summarise(path.parent) for path in runs_dir.glob("*/config.json")]
    found.sort(key=lambda run: (run.started, run.name), reverse=True)
    return RunList(str(runs_dir), tuple(found))


def act_on_runs(action: Action, names: Sequence[str], artifacts_dir: Path) -> Result:
    """Do what ``tiewise runs ACTION NAMES`` asks for; return what is printed."""
    if action == "list" and not names:
        return list_runs(artifacts_dir)
    if action == "show" and len(names) == 1:
        return describe_run(names[0], artifacts_dir)
    if action == "rm" and names:
        return remove_runs(names, artifacts_dir)
    raise ConfigError(
        f"runs {action} has {len(names)} names; expected tiewise runs, tiewise runs show RUN, or "
        "tiewise runs rm RUN [RUN ...]."
    )


def describe_run(name_or_path: str, artifacts_dir: Path) -> RunSummary:
    """Describe one run."""
    return _summarise(open_run(name_or_path, artifacts_dir).path)


def remove_runs(names: Sequence[str], artifacts_dir: Path) -> RemovedRuns:
    """Remove runs of an artifacts folder, by their names or paths.

    RunError is raised, and nothing is removed, when one is no run of this folder, is being fitted,
    or is a member of a blend that remains.
    """
    folders = {path.name: path for path in (_find_folder(name, artifacts_dir) for name in names)}
    for blend in (artifacts_dir / "runs").glob("*/mixture.json"):
        used = folders.keys() & _members(blend)
        if used and blend.parent.name not in folders:
            raise RunError(
                f"{min(used)} is a member of the blend {blend.parent.name}. Remove the blend too, "
                f"or keep the run."
            )
    size = sum(map(_measure, folders.values()))
    # Damaged configurations may be removed, too.
    remove_folders([RunFolder(path, RunConfig()) for path in folders.values()])
    return RemovedRuns(tuple(folders), size)


def _find_folder(name: str, artifacts_dir: Path) -> Path:
    """Return the folder of a run that may be removed: one in the folder of runs, and no link."""
    runs_dir, given = artifacts_dir / "runs", Path(name)
    path = runs_dir / given.name
    is_inside = given.name == name or given.parent.resolve() == runs_dir.resolve()
    if given.name in {"", ".."} or not is_inside:
        raise RunError(f"{name} is not in {runs_dir}. Name a run there, or give --artifacts.")
    if path.is_symlink():
        raise RunError(f"{path} is a link. Remove it with your shell; the folder it names stays.")
    if not (path / "config.json").is_file():
        known = [found.parent.name for found in runs_dir.glob("*/config.json")]
        raise RunError(
            f"There is no run {name} in {runs_dir}.{did_you_mean(name, known)} `tiewise runs` "
            "lists them."
        )
    return path


def format_command(environment: Mapping[str, Any]) -> str:
    """Return the command in the description of an environment as one line, empty if unknown."""
    words = environment.get("command")
    command = " ".join(map(str, words)) if isinstance(words, list) else ""
    return command.replace("__main__.py ", "tiewise ", 1)  # of `python -m tiewise`


def _summarise(path: Path) -> RunSummary:
    facts: dict[str, Any] = {"name": path.name, "path": str(path), "size": _measure(path)}
    try:
        run = open_run(path, path.parent)
        preset, changed = closest_preset(run.config)
        finished, scores = run.finished_folds(), {}
        if finished:
            scores = _read_scores(run, finished)
        facts |= {"preset": preset, "changed": tuple(changed), "folds": tuple(finished)}
        facts |= {"n_splits": run.config.data.n_splits, "scores": scores}
        if run.data_path.is_file():
            data = read_data(run)
            files = [source.rpartition(" ")[0] for source in data["sources"]]
            n_pairs = data["counts"]["n_read"] - data["counts"].get("n_left_out_by_limit", 0)
            facts |= {"data": tuple(files), "n_pairs": n_pairs}
        about = read_object(run.env_path) if run.env_path.is_file() else {}
        facts["started"] = str(about.get("started", ""))
        facts["command"] = format_command(about)
    except (TiewiseError, OSError, KeyError, TypeError, AttributeError) as error:
        return RunSummary(**facts, problem=str(error))
    return RunSummary(**facts)


def _read_scores(run: RunFolder, finished: Sequence[int]) -> dict[str, Interval]:
    """Read the scores of the finished folds together; empty if they have not been scored so."""
    folds = [read_object(run.fold(fold).scores_path) for fold in finished]
    joined = read_object(run.scores_path) if run.scores_path.is_file() else {}
    n = sum(own["n"] for own in folds)
    found = next((own for own in (joined, *folds) if own.get("n") == n), {})
    return {name: Interval(**_as_floats(found[name])) for name in _SCORES if name in found}


def _as_floats(interval: dict[str, float | None]) -> dict[str, float]:
    return {end: float("nan") if value is None else value for end, value in interval.items()}


def _members(mixture_path: Path) -> set[str]:
    try:
        return set(map(str, read_object(mixture_path).get("members", ())))
    except (RunError, TypeError):
        return set()


def _measure(path: Path) -> int:
    """Return the bytes of the files below a folder; links are not followed."""
    return sum(
        Path(folder, name).lstat().st_size for folder, _, names in os.walk(path) for name in names
    )


def _format_size(size: int) -> str:
    """Return a number of bytes as people read it.

    >>> _format_size(0), _format_size(2_340_000), _format_size(18_500_000_000)
    ('0.0 MB', '2.3 MB', '18.5 GB')
    """
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"
