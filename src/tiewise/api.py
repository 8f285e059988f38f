"""The functions behind the command line, for Python: fit, open a run, evaluate, audit, convert.

Every function that takes a run also takes its name or the path of its folder. ``artifacts`` is the
folder of runs and caches; None means the environment variable ``TIEWISE_ARTIFACTS``, else
``artifacts`` in the current folder.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tiewise.config import CHUNK_ROWS, UNIT_ROWS, RunConfig, load_preset, override
from tiewise.errors import ConfigError, PairsError, missing_extra
from tiewise.files import refuse_existing
from tiewise.runs.folder import RunFolder, as_run, default_artifacts

if TYPE_CHECKING:
    import pandas as pd

    from tiewise.evaluation.audit import Audit
    from tiewise.evaluation.calibration import CalibrationResult
    from tiewise.evaluation.paired import PairedDifferences
    from tiewise.evaluation.references import RunScores
    from tiewise.evaluation.slices import Slices
    from tiewise.judges.labelled_predictions import LabelledPredictions
    from tiewise.serving.pack import Pack

Columns = Mapping[str, Any] | Sequence[str]
Files = str | Path | Sequence[str | Path]


class Run(RunFolder):
    """A run folder: configuration, out-of-fold predictions, scores and report.

    :func:`tiewise.fit` and :func:`tiewise.open_run` return one.

    Attributes
    ----------
    path
        The folder.
    config
        The resolved configuration.
    name
        Name of the run and of its folder.
    """

    def __repr__(self) -> str:
        n_finished = len(self.finished_folds())
        return (
            f"<Run {self.name}: {n_finished} of {self.config.data.n_splits} folds finished, "
            f"in {self.path}>"
        )

    @property
    def scores(self) -> RunScores:
        """Scores of all finished folds, with intervals and reference models.

        ``run.scores.log_loss`` is an :class:`Interval`; ``run.scores.baselines`` has the scores of
        the references.
        """
        return self.evaluate()

    @property
    def oof(self) -> pd.DataFrame:
        """Out-of-fold predictions in the order of the data; see :func:`tiewise.read_oof`."""
        from tiewise.runs.tables import read_oof

        return read_oof(self)

    def evaluate(self) -> RunScores:
        """Score the predictions of all finished folds; nothing is written.

        Returns
        -------
        RunScores
            As the attribute `scores`.

        Raises
        ------
        RunError
            If no fold is finished, or the folds were fitted with different inputs.
        """
        from tiewise.runs.references import evaluate_finished_folds

        return evaluate_finished_folds(self)

    def slices(self, *, data: Files = ()) -> Slices:
        """Score parts of the data, such as one language, each compared with all other rows.

        Parameters
        ----------
        data
            Where the run's data are now, if not where they were.

        Returns
        -------
        Slices
            ``to_frame()`` has a row per slice; slices that need texts are left out, with the
            reason, where the data are not available.

        Raises
        ------
        RunError
            If no fold is finished, or `data` are not those of the run.
        """
        found: Slices = evaluate_run_or_file(self, data, kind="slices")
        return found

    def report(self, *, data: Files = (), out: str | Path | None = None) -> Path:
        """Write report.html and the figures; return the path of the page.

        As the last value of a notebook's cell, the path shows the page.

        Parameters
        ----------
        data
            Where the run's data are now, if not where they were.
        out
            The .html file to write in place of those in the run folder, such as for a run that
            cannot be written.

        Returns
        -------
        Path
            The page.

        Raises
        ------
        RunError
            If no fold is finished, `data` are not those of the run, or matplotlib or jinja2 is
            missing.
        """
        from tiewise.report.page import write_report
        from tiewise.runs.dataset import reread_pairs

        pairs = reread_pairs(self, _as_files(data))
        return write_report(self, pairs=pairs, out=None if out is None else Path(out))


def open_run(run: str | Path | RunFolder, artifacts: str | Path | None = None) -> Run:
    """Open a run by its name, or by the path of its folder.

    Parameters
    ----------
    run
        Name of a run in `artifacts`, path of a run folder, or a run, which is returned as it is.
    artifacts
        Folder of runs and caches; None means the environment variable ``TIEWISE_ARTIFACTS``, else
        ``artifacts`` in the current folder.

    Returns
    -------
    Run

    Raises
    ------
    RunError
        If there is no such run; the message suggests one of a similar name.
    """
    opened = as_run(run, artifacts)
    return Run(opened.path, opened.config)


def fit(
    data: Files = (),
    *,
    preset: str = "quickstart",
    fold: int | None = None,
    folds: Literal["all"] | None = None,
    run: str | None = None,
    resume: bool = False,
    overwrite: bool = False,
    init_from: str | Path | None = None,
    ray: str | None = None,
    workers: int | None = None,
    worker_gpus: float | None = None,
    artifacts: str | Path | None = None,
    **overrides: Any,
) -> Run:
    """Fit one fold, or all, and return the run; the same as ``tiewise fit``.

    Parameters
    ----------
    data
        One file or several; when empty TIEWISE_DATA, then data/train.csv, then the preset's
        fallback.
    preset
        Name of a preset, or a TOML file.
    fold, folds
        The fold to hold out (0 when neither is given), or ``folds="all"``.
    run
        Name of the run; made from time and configuration when None.
    resume, overwrite
        Continue an unfinished fold, or replace it.
    init_from
        Folder of a fold of another run to start from.
    ray
        Fit each fold on a Ray cluster whose machines share the folders of runs and data: ``auto``
        for the cluster of this machine, ``local`` for this machine alone, or ``HOST:PORT``.
    workers
        Number of workers; None means as many as the cluster has free CPUs or GPUs.
    worker_gpus
        GPUs of each worker; None means 1 with the device `cuda`, otherwise 0.
    artifacts
        Folder of runs and caches; None means the environment variable ``TIEWISE_ARTIFACTS``, else
        ``artifacts``.
    **overrides
        Fields of the configuration, such as ``n_epochs=2`` or ``backbone="tiny:0"``.

    Returns
    -------
    Run
        With the predictions and scores of all finished folds.

    Raises
    ------
    ConfigError
        If a field or preset is unknown, out of range, or contradicts another.
    PairsError
        If the data cannot be read.
    FoldError
        If there are fewer prompt groups than folds.
    DeviceError
        If this machine lacks a device or a package that the preset needs.
    RunError
        If a run of this name has another configuration or other data, or the fold is finished and
        neither `resume` nor `overwrite` is set.
    Interrupted
        If a signal ended the fit after a checkpoint.

    Examples
    --------
    Two folds of the feature model, on a few pairs of the embedded sample:

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     options = {"limit": 60, "n_splits": 2, "folds": "all", "artifacts": folder}
    ...     done = fit(preset="baseline", run="first", **options)
    ...     print(done.scores.n, open_run("first", folder).finished_folds())
    60 [0, 1]
    """
    config = override(load_preset(preset), **overrides)
    if files := _as_files(data):
        config = override(config, data=files)
    done, _ = fit_config(
        config,
        fold=fold,
        folds=folds,
        run=run,
        resume=resume,
        overwrite=overwrite,
        init_from=None if init_from is None else Path(init_from),
        ray=ray,
        workers=workers,
        worker_gpus=worker_gpus,
        artifacts=artifacts,
    )
    if done.is_written_here:
        summarise(done)
    return done


def summarise(run: RunFolder) -> RunScores:
    """Join the predictions of the finished folds, score them, and write both to the run folder."""
    from tiewise.runs.references import score_finished_folds

    return score_finished_folds(run)


def fit_config(
    config: RunConfig,
    *,
    fold: int | None = None,
    folds: Literal["all"] | None = None,
    run: str | None = None,
    resume: bool = False,
    overwrite: bool = False,
    init_from: Path | None = None,
    ray: str | None = None,
    workers: int | None = None,
    worker_gpus: float | None = None,
    artifacts: str | Path | None = None,
) -> tuple[Run, list[int]]:
    """Fit a resolved configuration; return the run and the folds that this call fitted."""
    from tiewise.crossfit import cross_fit, cross_fit_on

    if fold is not None and folds is not None:
        raise ConfigError("--fold and --folds contradict each other; give one of them.")
    if folds not in {None, "all"}:
        raise ConfigError(f"--folds is {folds!r}; expected all. For one fold, give --fold.")
    if isinstance(fold, bool) or not isinstance(fold or 0, int):
        raise ConfigError(f"--fold is {fold!r}; expected a whole number.")
    wanted = list(range(config.data.n_splits)) if folds else [fold or 0]
    cluster = None
    if (ray, workers, worker_gpus) != (None, None, None):
        from tiewise.cluster.scoring import find_cluster

        cluster = find_cluster(ray, workers, worker_gpus, device=config.train.device)
    fit_folds = cross_fit if cluster is None else functools.partial(cross_fit_on, cluster)
    done, fitted = fit_folds(
        config,
        wanted,
        _artifacts_dir(artifacts),
        name=run,
        resume=resume,
        overwrite=overwrite,
        init_from=init_from,
    )
    return Run(done.path, done.config), fitted


def audit(
    data: Files | pd.DataFrame,
    *,
    data_format: str | None = None,
    columns: Columns = (),
    labelled: bool = True,
    n_splits: int = 5,
    backbone: str | None = None,
    max_length: int = 1024,
    artifacts: str | Path | None = None,
) -> Audit:
    """Check data: findings in words, worst first, then counts, leakage of fold rules and lengths.

    The same as ``tiewise audit``. Rows that cannot be read are left out and counted.

    Parameters
    ----------
    data
        One file or several, joined; or a table that :func:`tiewise.read_pairs` reads.
    data_format
        Name of the format; detected from the columns when None.
    columns
        Names of columns and values of winners, as for :func:`tiewise.read_pairs`.
    labelled
        Whether the data have winners.
    n_splits
        Number of folds to try each rule with, at least 2.
    backbone
        Also count tokens with this backbone's tokenizer, and those that `max_length` cuts.
    max_length
        Tokens a row may hold, at least 1.
    artifacts
        Folder of caches; None means the environment variable ``TIEWISE_ARTIFACTS``, else
        ``artifacts``.

    Returns
    -------
    Audit
        ``findings``, a list of objects with ``severity`` (high, medium or low) and ``text``; and
        the figures by section, as ``rows``, ``classes``, ``repeats``, ``leakage``. It prints as
        text; ``to_dict()`` is for JSON.

    Raises
    ------
    PairsError
        If there is no such file, no format fits, or no row can be read.
    ConfigError
        If `n_splits` or `max_length` is out of range.

    Examples
    --------
    >>> import pandas as pd
    >>> texts = {"prompt": [["2+2?"]], "response_a": [["4"]], "response_b": [["5"]]}
    >>> found = audit(pd.DataFrame({"id": [7], **texts, "winner": ["model_a"]}))
    >>> found.findings[0]
    Finding(severity='high', text='Response B never wins: check the column of the winners.')
    """
    from tiewise.data.formats import read_many, read_pairs
    from tiewise.evaluation.audit import audit_pairs
    from tiewise.tokens.template import fill_in_order, share_budget

    if n_splits < 2:
        raise ConfigError(f"--n-splits is {n_splits}; expected at least 2.")
    if max_length < 1:
        raise ConfigError(f"--max-length is {max_length}; expected at least 1.")
    options: Any = {"format": data_format, "columns": columns}
    options |= {"labelled": labelled, "on_error": "skip"}
    if isinstance(data, str | Path | Sequence):
        name, pairs = ", ".join(_as_files(data)), read_many(_as_files(data), **options)
    else:
        name, pairs = "the table", read_pairs(data, **options)
    if pairs.empty:
        raise PairsError(f"{name}: there are no rows; expected at least one pair.")
    if backbone is None:
        return audit_pairs(pairs, n_splits=n_splits)
    lengths = _count_tokens(pairs, backbone, _artifacts_dir(artifacts) / "cache")
    kept = {
        "right": fill_in_order(lengths, max_length),
        "balanced": share_budget(lengths, max_length),
    }
    return audit_pairs(pairs, n_splits=n_splits, token_lengths=lengths, kept_tokens=kept)


@dataclass(frozen=True)
class Converted:
    """Counts of a conversion: rows read, rejected, ties dropped, columns dropped."""

    n_read: int
    n_rejected: int
    n_ties_dropped: int
    columns_dropped: list[str]

    def to_dict(self) -> dict[str, Any]:
        """Return the counts as a dictionary that JSON can hold."""
        return dict(vars(self))

    def __str__(self) -> str:
        n_rows = self.n_read + self.n_rejected
        parts = [f"{self.n_read - self.n_ties_dropped} of {n_rows} rows"]
        parts += [f"{self.n_rejected} rejected"] if self.n_rejected else []
        parts += [f"{self.n_ties_dropped} ties dropped"] if self.n_ties_dropped else []
        parts += [f"without the columns {', '.join(self.columns_dropped)}"] * bool(
            self.columns_dropped
        )
        return ", ".join(parts)


def convert(
    data: Files,
    out: str | Path,
    *,
    data_format: str | None = None,
    columns: Columns = (),
    labelled: bool = True,
    on_error: Literal["raise", "skip"] = "raise",
    overwrite: bool = False,
) -> Converted:
    """Write data of any known format as pairs (.parquet, .csv) or as TRL preferences (.jsonl)."""
    from tiewise.data.first_text import SYSTEM_COLUMN
    from tiewise.data.formats.converting import convert_files
    from tiewise.data.pairs import FURTHER_COLUMNS

    path = Path(out)
    refuse_existing(path, overwrite=overwrite)
    done = convert_files(
        _as_files(data),
        path,
        format=data_format,
        columns=columns,
        labelled=labelled,
        on_error=on_error,
    )
    pairs, dropped = done.pairs, list(done.pairs.attrs["unread"])
    if path.suffix == ".jsonl":
        others = [name for name in FURTHER_COLUMNS if name != SYSTEM_COLUMN]
        dropped += [name for name in others if name in pairs]
        dropped += ["group"] if done.has_own_groups else []
    return Converted(len(pairs), len(pairs.attrs["rejected"]), done.n_ties_dropped, dropped)


Kind = Literal["scores", "slices", "calibration", "rewardbench", "leaderboard"]


def evaluate_run_or_file(
    run: str | Path | RunFolder | None = None,
    data: Files = (),
    predictions: Path | None = None,
    *,
    kind: Kind = "scores",
    data_format: str | None = None,
    columns: Columns = (),
    normalize: bool = False,
    allow_missing: bool = False,
    on_error: Literal["raise", "skip"] = "raise",
    artifacts: str | Path | None = None,
) -> Any:
    """Score a run, or a table of any judge's predictions against labelled pairs.

    Parameters
    ----------
    run
        A run; None when `predictions` is given.
    data
        Labelled pairs: those of `predictions`, or where the run's data are now.
    predictions
        Table with id, prob_a, prob_b, prob_tie; or Kaggle's names of these; or id and winner, a
        verdict, of which only the accuracies mean something.
    data_format, columns, on_error
        How `data` of `predictions` are read, as for :func:`tiewise.read_pairs`.
    normalize
        Divide the probabilities of each row of `predictions` by their sum.
    allow_missing
        Leave out pairs without a prediction, and count them.
    kind
        `scores`: every score with its interval and reference models; `slices`: parts of the data,
        each compared with all other rows; `calibration`: fit one, and keep it with the run only if
        it improves held-out log loss; `rewardbench`: accuracy by section and subset;
        `leaderboard`: the models named in the data by votes and by predictions.

    Raises
    ------
    ConfigError
        Unless exactly one of `run` and `predictions` is given, the latter with `data`.
    """
    from tiewise.judges import labelled_predictions

    files = _as_files(data)
    if (run is None) != bool(files and predictions) or (run is not None and predictions):
        raise ConfigError("Give a run, or both --data and --predictions.")
    reading: dict[str, Any] = {"data_format": data_format, "columns": columns}
    reading |= {"on_error": on_error} if on_error != "raise" else {}
    judging: dict[str, Any] = {"normalize": normalize, "allow_missing": allow_missing}
    if run is not None and any((reading | judging).values()):
        names = ", ".join(f"--{k.replace('_', '-')}" for k, v in (reading | judging).items() if v)
        raise ConfigError(f"{names} belongs to --predictions; leave it out for a run.")
    opened = None if run is None else open_run(run, artifacts)
    if opened is not None and files and kind in {"scores", "calibration"}:
        raise ConfigError(f"--data is not used for the {kind} of a run; leave it out.")
    if opened is not None and kind == "scores":
        return opened.evaluate()
    if kind == "rewardbench":
        if predictions is None:
            raise ConfigError("--rewardbench needs --data and --predictions.")
        return labelled_predictions.score_rewardbench_file(files, predictions, **reading, **judging)
    if opened is not None:
        if kind == "calibration":
            return calibrate(opened)
        judged = labelled_predictions.load_run_predictions(opened, files)
    else:
        assert predictions is not None  # noqa: S101 - checked above
        judged = labelled_predictions.load_file_predictions(
            files, predictions, **reading, **judging
        )
    return _evaluate_predictions(judged, kind)


def calibrate(
    run: str | Path | RunFolder, *, artifacts: str | Path | None = None
) -> CalibrationResult:
    """Fit calibrations of a run; keep the best one with the run if it clearly improves log loss.

    The same as ``tiewise evaluate --calibrate``. A calibration that is kept applies to all later
    predictions of the run.

    Parameters
    ----------
    run
        A run, its name, or the path of its folder.
    artifacts
        Folder of the runs; None means the environment variable ``TIEWISE_ARTIFACTS``, else
        ``artifacts``.

    Returns
    -------
    CalibrationResult
        ``is_worth_it``, whether one is kept; ``adopted``, the calibration; ``differences``, by
        method the log loss after minus before, on prompt groups that it was not fitted on:
        negative is better.

    Raises
    ------
    RunError
        If there is no such run, or no fold is finished.
    """
    from tiewise.files import digest_file
    from tiewise.judges.labelled_predictions import load_run_predictions
    from tiewise.runs.calibration import save_calibration
    from tiewise.runs.tables import is_joined

    opened = open_run(run, artifacts)
    if not is_joined(opened):
        summarise(opened)
    oof_sha256 = digest_file(
        opened.oof_path
    )  # first: if a fit replaces the file, it is not its own
    result: CalibrationResult = _evaluate_predictions(load_run_predictions(opened), "calibration")
    save_calibration(opened, result, oof_sha256=oof_sha256)
    return result


def _evaluate_predictions(judged: LabelledPredictions, kind: Kind) -> Any:
    if kind == "slices":
        from tiewise.evaluation.slices import evaluate_slices

        return evaluate_slices(judged.folds if judged.pairs is None else judged.pairs, judged.oof)
    if kind == "leaderboard":
        from tiewise.evaluation.leaderboard import rank_models

        return rank_models(judged.texts(), judged.oof)
    if kind == "calibration":
        from tiewise.evaluation import calibration
        from tiewise.runs.tables import log_probs

        rows = judged.oof[judged.oof["label"].notna()]
        return calibration.calibrate(
            rows["label"], log_probs(rows), groups=rows["group"], symmetric=judged.is_symmetric
        )
    from tiewise.judges.labelled_predictions import score_predictions

    return score_predictions(judged)


def compare_runs(
    runs: Sequence[str | Path | RunFolder],
    *,
    by_slice: bool = False,
    data: Files = (),
    artifacts: str | Path | None = None,
) -> PairedDifferences:
    """Compare each run with the last one named, paired, on the rows that the two share.

    The same as ``tiewise compare``.

    Parameters
    ----------
    runs
        Two or more runs, each a run, its name, or the path of its folder; the reference is last.
    by_slice
        Also compare on each part of the data, such as one language.
    data
        Where the runs' data are now, if not where they were; only with `by_slice`.
    artifacts
        Folder of the runs; None means the environment variable ``TIEWISE_ARTIFACTS``, else
        ``artifacts``.

    Returns
    -------
    PairedDifferences
        ``overall`` has a difference per run with ``log_loss`` and ``accuracy``, each an
        :class:`Interval` of the run minus the reference: a negative difference of log loss is
        better.

    Raises
    ------
    RunError
        If there is no such run, no fold is finished, or the texts are needed and not available.
    ScoresError
        If two runs share no row or have different labels.
    """
    from tiewise.judges.labelled_predictions import compare_with_reference, load_run_predictions

    if len(runs) < 2:
        raise ConfigError(f"{len(runs)} run is named; expected two or more, the reference last.")
    if data and not by_slice:
        raise ConfigError("--data is only used with --by-slice; leave it out, or add --by-slice.")
    files = _as_files(data)
    *judged, reference = [load_run_predictions(open_run(run, artifacts), files) for run in runs]
    return compare_with_reference(judged, reference, by_slice=by_slice)


def predict_file(
    run: str | Path | RunFolder,
    data: Files,
    out: str | Path,
    *,
    swap: bool | None = None,
    out_of_fold: bool = False,
    submission: bool = False,
    data_format: str | None = None,
    columns: Columns = (),
    chunk_rows: int = CHUNK_ROWS,
    unit_rows: int = UNIT_ROWS,
    overwrite: bool = False,
    ray: str | None = None,
    workers: int | None = None,
    worker_gpus: float | None = None,
    device: str | None = None,
    artifacts: str | Path | None = None,
) -> Any:
    """Predict every pair of a file, or of a folder of files in units.

    The result is None if another process writes the final file.
    """
    from tiewise.cluster.prediction import choose_executor, is_output_folder, predict_to
    from tiewise.data.formats import read_many
    from tiewise.data.formats.columns import find_own_columns
    from tiewise.judges.prediction import PredictOptions, label_pairs

    opened, cache_dir = open_run(run, artifacts), _artifacts_dir(artifacts) / "cache"
    files = _as_files(data)
    columns = columns or find_own_columns(files, opened.config.data.columns)
    if out_of_fold:
        if is_output_folder(out):
            raise ConfigError(f"--out is {out}, a folder; expected a file for --out-of-fold.")
        if ray is not None:
            raise ConfigError("--ray does not apply to --out-of-fold; leave it out.")
        pairs = read_many(files, format=data_format, columns=columns, labelled=None)
        return label_pairs(
            opened, pairs, Path(out), cache_dir=cache_dir, device=device, overwrite=overwrite
        )
    if len(files) != 1:
        raise ConfigError(
            f"--data names {len(files)} files; expected one. Join several with tiewise convert."
        )
    done = predict_to(
        opened,
        files[0],
        out,
        cache_dir=cache_dir,
        options=PredictOptions(swap, chunk_rows, device, data_format, columns, unit_rows),
        execute=choose_executor(opened, ray, workers, worker_gpus, device=device),
        is_submission=submission,
        overwrite=overwrite,
    )
    return done if done.is_finished else None


def rank(
    prompt: str,
    responses: Sequence[str],
    *,
    run: str | Path | None = None,
    device: str | None = None,
    artifacts: str | Path | None = None,
) -> Any:
    """Rank responses to one prompt with a run, or with the model shipped in the package."""
    from tiewise.judges.judge import rank as rank_texts

    path = None if run is None else open_run(run, artifacts).path
    return rank_texts(prompt, responses, run=path, device=device)


def blend(
    runs: Sequence[str | Path | RunFolder],
    *,
    run: str | None = None,
    overwrite: bool = False,
    artifacts: str | Path | None = None,
) -> Any:
    """Blend several runs with weights fitted out of fold, and write the blend as a run."""
    from tiewise.judges.blending import blend_runs

    members = [open_run(member, artifacts) for member in runs]
    return blend_runs(members, _artifacts_dir(artifacts), name=run, overwrite=overwrite)


def export(
    run: str | Path | RunFolder,
    out: Path,
    *,
    fold: int | None = None,
    overwrite: bool = False,
    device: str | None = None,
    artifacts: str | Path | None = None,
) -> Any:
    """Write one fold of a run as a classifier that transformers and vLLM load."""
    from tiewise.report.card import write_card

    try:
        from tiewise.serving.export import export_run
    except ModuleNotFoundError as error:
        raise missing_extra("tiewise export", error) from error
    opened = open_run(run, artifacts)
    return export_run(
        opened,
        out,
        cache_dir=_artifacts_dir(artifacts) / "cache",
        fold=fold,
        overwrite=overwrite,
        complete=lambda folder, chosen: write_card(folder, opened, fold=chosen),
        device=device,
    )


def pack(
    run: str | Path | RunFolder,
    out: Path | str,
    *,
    overwrite: bool = False,
    artifacts: str | Path | None = None,
) -> Pack:
    """Write the folder with which a notebook without a network predicts with a run."""
    from tiewise.serving.pack import pack_run

    opened, cache_dir = as_run(run, artifacts), _artifacts_dir(artifacts) / "cache"
    return pack_run(opened, out, cache_dir=cache_dir, overwrite=overwrite)


def push(
    model: str | Path,
    *,
    repo: str | None,
    fold: int | None = None,
    public: bool = False,
    artifacts: str | Path | None = None,
) -> tuple[Path, str]:
    """Upload a fold's adapter or an exported folder; return the folder and its address."""
    from tiewise.serving.push import find_model, push_folder

    folder = find_model(str(model), _artifacts_dir(artifacts), fold=fold)
    return folder, push_folder(folder, repo, is_public=public)


def serve(
    model: str | Path | None = None,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    device: str | None = None,
    artifacts: str | Path | None = None,
    announce: Callable[[str], None],
) -> None:
    """Serve a run, an exported folder or the model in this package until a signal ends it."""
    from tiewise.judges.judge import Judge

    try:
        from tiewise.serving.server.run import serve as serve_judge
    except ModuleNotFoundError as error:
        raise missing_extra("tiewise serve", error, "serve") from error
    judge = Judge.from_pretrained(model or "shipped", artifacts=artifacts, device=device)
    serve_judge(
        judge,
        host=host,
        port=port,
        announce=lambda at: announce(
            f"{judge.name} is served at {at}/judge and {at}/classify; {at}/docs describes them. "
            "Stop with Ctrl-C."
        ),
    )


def _count_tokens(pairs: pd.DataFrame, backbone: str, cache_dir: Path) -> Any:
    from tiewise.models.backbones import resolve_backbone
    from tiewise.tokens.tokenization import token_lengths, tokenize
    from tiewise.tokens.tokenizer import load_tokenizer

    tokenizer = load_tokenizer(resolve_backbone(backbone, cache_dir=cache_dir))
    return token_lengths(tokenize(pairs, tokenizer, cache_dir=cache_dir))


def _as_files(data: Files) -> tuple[str, ...]:
    files = [data] if isinstance(data, str | Path) else list(data)
    if not isinstance(data, str | Path | Sequence):
        raise ConfigError(
            f"data is a {type(data).__name__}; expected the path of a file, or several paths. "
            "Write a table with tiewise.write_pairs first."
        )
    if others := [type(file).__name__ for file in files if not isinstance(file, str | Path)]:
        raise ConfigError(
            f"data holds a {others[0]}; expected paths of files. Join tables to one, as with "
            "pandas.concat, and give that alone."
        )
    return tuple(str(file) for file in files)


def _artifacts_dir(artifacts: str | Path | None) -> Path:
    return default_artifacts() if artifacts is None else Path(artifacts)
