"""Predict the parquet files of a folder or an object store into an output folder, in units."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from tiewise import __version__
from tiewise.cluster.output import Output, Record, sum_tallies
from tiewise.cluster.scoring import Failures, OnDone, find_cluster, run_here, run_on
from tiewise.cluster.storage import address_of, is_local, is_remote, open_storage
from tiewise.cluster.units import Unit, find_inputs, plan_units, read_units_format
from tiewise.config import BLEND
from tiewise.data.formats import is_hub_path
from tiewise.data.formats.columns import find_own_columns
from tiewise.errors import ConfigError, PairsError
from tiewise.files import refuse_existing
from tiewise.judges import judge
from tiewise.judges.blending import load_mixture
from tiewise.judges.prediction import (
    FilePrediction,
    PredictOptions,
    choose_submission,
    describe_facts,
    digest_models,
    order_columns,
    predict_file,
    warn_of_training_rows,
)
from tiewise.judges.streaming import SUFFIXES, check_suffix, write_table
from tiewise.runs.calibration import read_calibration
from tiewise.runs.environment import read_launch
from tiewise.runs.folder import RunFolder, as_run, default_artifacts, open_run

Execute = Callable[[Sequence[Unit], str, OnDone], Failures]
_MAX_NAMED = 3


@dataclass(frozen=True)
class UnitsPrediction:
    """Result of a prediction in units: how many there are, were scored now, and were found.

    `facts` are the statistics of :class:`tiewise.judges.prediction.Tally`. They are empty when
    other processes of a launch still have units to score.
    """

    n_units: int
    n_scored: int
    n_found: int
    n_folds: int
    facts: dict[str, Any]

    @property
    def is_finished(self) -> bool:
        """Whether all units are scored and the manifest is written."""
        return bool(self.facts)

    def to_dict(self) -> dict[str, Any]:
        """Return everything as a dictionary that JSON can hold."""
        return asdict(self)

    def __str__(self) -> str:
        units = "1 unit" if self.n_units == 1 else f"{self.n_units:,} units"
        count = f"{units}, {self.n_found:,} of them scored before"
        return f"{count}; {describe_facts(self.facts, self.n_folds)}"


def is_output_folder(out: str | Path) -> bool:
    """Return whether predictions go into a folder: a remote address, or a local folder.

    >>> is_output_folder("labels/"), is_output_folder("s3://b/out"), is_output_folder("x.csv")
    (True, True, False)
    """
    text = str(out)
    if "://" in text and text.endswith(SUFFIXES):
        raise ConfigError(
            f"--out is {text}, a file in an object store; expected a folder there, or a local file."
        )
    return text.endswith("/") or "://" in text or Path(text).is_dir()


def predict_units(
    run: RunFolder,
    data: str,
    out: str,
    *,
    cache_dir: Path,
    options: PredictOptions | None = None,
    execute: Execute | None = None,
    check_format: Callable[[str], object] = str,
) -> UnitsPrediction:
    """Predict parquet files with a run, and write a part for each unit and a manifest.

    Parameters
    ----------
    run
        The run; its finished folds are averaged.
    data
        A parquet file or a folder of them, local or with a scheme such as ``s3://``.
    out
        The output folder, as in :mod:`tiewise.cluster.output`. Units that have a part there are
        not scored again.
    cache_dir
        Folder of caches on this machine.
    options
        As for :func:`tiewise.judges.prediction.predict_file`; `unit_rows` is a multiple of
        `chunk_rows`.
    execute
        An executor (:mod:`tiewise.cluster.scoring`); this process when None.
    check_format
        Called with the name of the format before anything is written, to raise an error.

    Raises
    ------
    RunError
        When the folder has predictions of another run, other data or options.
    PairsError
        When files or rows cannot be read. All other units are scored and kept.
    """
    options = options or PredictOptions()
    if options.unit_rows % options.chunk_rows:
        raise ConfigError(
            f"--unit-rows is {options.unit_rows}; expected a multiple of --chunk-rows, which is "
            f"{options.chunk_rows}, so that all ways of predicting score the same batches."
        )
    _refuse_inner(out, data)
    fs, paths = find_inputs(data)
    units = plan_units(paths, fs, options.unit_rows)
    output, folds = Output(out), run.choose_folds()
    table_format = read_units_format(units, options.data_format, options.columns)
    check_format(table_format.name)
    settings = {name: value for name, value in asdict(options).items() if name != "columns"}
    output.begin(
        {
            "version": __version__,
            "run": run.name,
            "models": digest_models(run, folds),
            "calibration": read_calibration(run).to_dict(),
            "data": address_of(*open_storage(data)),
            "options": settings,
            "format": table_format.to_dict(),
        },
        run,
    )
    execute = execute or functools.partial(run_here, cache_dir=cache_dir)
    done, n_scored = _score_missing(units, output, execute)
    if len(done) < len(units):
        return UnitsPrediction(len(units), n_scored, len(done) - n_scored, len(folds), {})
    records = [done[unit] for unit in units]
    output.commit(records)
    tally = sum_tallies(records)
    warn_of_training_rows(data, run.name, tally)
    n_found = len(units) - n_scored
    return UnitsPrediction(len(units), n_scored, n_found, len(folds), tally.describe())


def predict_to(
    run: RunFolder,
    data: str,
    out: str | Path,
    *,
    cache_dir: Path,
    options: PredictOptions | None = None,
    execute: Execute | None = None,
    is_submission: bool = False,
    overwrite: bool = False,
) -> UnitsPrediction | FilePrediction:
    """Predict into a folder (:func:`predict_units`) or into a csv, parquet or jsonl file.

    A file is written by :func:`tiewise.judges.prediction.predict_file`. With an executor, or data
    in an object store, it is joined from units, whose parts are in ``OUT.parts`` until then.
    """
    units: Any = {"cache_dir": cache_dir, "options": options, "execute": execute}
    if is_output_folder(out):
        if is_submission or overwrite:
            raise ConfigError(
                f"--out is {out}, a folder; expected a file for --submission and --overwrite. The "
                "finished units of a folder are kept."
            )
        return predict_units(run, data, str(out), **units)
    path, in_file = Path(out), {"is_submission": is_submission, "overwrite": overwrite}
    if execute is None and (not is_remote(data) or is_hub_path(data)):
        return predict_file(run, data, path, cache_dir=cache_dir, options=options, **in_file)
    check_suffix(path)
    refuse_existing(path, overwrite=overwrite)
    folder = path.with_name(f"{path.name}.parts")
    choose = functools.cache(
        functools.partial(choose_submission, data) if is_submission else lambda _: order_columns
    )
    done = predict_units(run, data, str(folder), check_format=choose, **units)
    if done.is_finished:
        output = Output(folder)
        choose_columns = choose(output.identity["format"]["name"])
        write_table(map(choose_columns, output.read()), path)
        output.remove()
    return done


def predict(  # noqa: PLR0913 - one keyword for each flag
    pairs: Any,
    *,
    run: str | Path | RunFolder | judge.Judge | None = None,
    out: str | Path | None = None,
    swap: bool | None = None,
    overwrite: bool = False,
    ray: str | None = None,
    workers: int | None = None,
    worker_gpus: float | None = None,
    device: str | None = None,
    artifacts: str | Path | None = None,
) -> Any:
    """Predict who wins each pair: return a table, or write files as ``tiewise predict`` does.

    The model of a returned table is loaded at the first call and kept for the next ones.

    Parameters
    ----------
    pairs, swap
        See :meth:`Judge.predict`. With `out`, `pairs` is a file, or for a folder as `out` a
        parquet file or a folder of them, also in an object store, such as ``s3://bucket/pairs``.
    run
        A judge, or anything that :meth:`Judge.from_pretrained` loads; None means the model in this
        package. With `out`, a run.
    out
        The csv, parquet or jsonl file to write, or a folder: one that exists, ends in a slash or
        has a scheme such as ``s3://``. :func:`tiewise.read_predictions` reads a folder, and the
        same call continues it.
    overwrite
        Replace a file that `out` names.
    ray
        With `out`: predict on a Ray cluster, ``auto`` for the one of this machine, ``local`` for
        this machine alone, or ``HOST:PORT``.
    workers
        Number of workers; None means as many as the cluster has free CPUs or GPUs.
    worker_gpus
        GPUs of each worker; None means 1 with the device `cuda`, otherwise 0.
    device, artifacts
        See :meth:`Judge.from_pretrained`.

    Returns
    -------
    DataFrame
        See :meth:`Judge.predict`. With `out` an object with counts, which prints as text.

    Raises
    ------
    PairsError
        When the pairs cannot be read.
    RunError
        When there is no such run, or `out` holds predictions of another one.

    Examples
    --------
    >>> texts = {"prompt": [["2+2?"]], "response_a": [["4"]], "response_b": [["I can't say."]]}
    >>> predict(pd.DataFrame({"id": [7], **texts}))[["id", "is_degenerate"]]
       id  is_degenerate
    0   7          False
    """
    if out is None:
        if {ray, workers, worker_gpus} != {None}:
            raise ConfigError("ray, workers and worker_gpus need out, the file or folder to write.")
        return judge.predict(pairs, run=run, swap=swap, device=device, artifacts=artifacts)
    if not (isinstance(run, str | Path | RunFolder) and isinstance(pairs, str | Path)):
        raise ConfigError("out needs a run, and the path of a file or a folder of pairs.")
    cache_dir = (default_artifacts() if artifacts is None else Path(artifacts)) / "cache"
    opened = as_run(run, artifacts)
    columns = find_own_columns([str(pairs)], opened.config.data.columns)
    options = PredictOptions(swap=swap, device=device, columns=columns)
    execute = choose_executor(opened, ray, workers, worker_gpus, device=device)
    how: Any = {"cache_dir": cache_dir, "options": options, "execute": execute}
    return predict_to(opened, str(pairs), out, overwrite=overwrite, **how)


def choose_executor(
    run: RunFolder,
    ray: str | None,
    workers: int | None,
    worker_gpus: float | None,
    *,
    device: str | None,
) -> Execute | None:
    """Return the executor of a cluster, or None for this process: :func:`scoring.find_cluster`."""
    cluster = find_cluster(ray, workers, worker_gpus, device=device or _device_of(run))
    return None if cluster is None else functools.partial(run_on, cluster)


def _device_of(run: RunFolder) -> str:
    """Return the device of a run's configuration; that of a blend is cuda if a member's is."""
    is_blend = run.config.model.backbone == BLEND
    names = load_mixture(run.mixture_path).members if is_blend else ()
    members = {_device_of(open_run(name, run.path.parent.parent)) for name in names}
    return "cuda" if "cuda" in members else run.config.train.device


def read_predictions(out: str | Path) -> Iterator[pd.DataFrame]:
    """Read the predictions in an output folder, a unit at a time.

    Parameters
    ----------
    out
        The folder that ``tiewise predict --out FOLDER`` or :func:`tiewise.predict` wrote, local or
        with a scheme such as ``s3://``.

    Yields
    ------
    DataFrame
        The predictions of one unit, as of :meth:`tiewise.Judge.predict`, with
        ``is_training_row``. Units are in the order of the input.

    Raises
    ------
    RunError
        When the folder is not finished, or a part is missing or damaged.
    """
    yield from Output(out).read()


def _refuse_inner(out: str, data: str) -> None:
    """Refuse an output inside the input, which the same command would read the next time."""
    (fs, inner), (data_fs, outer) = open_storage(out), open_storage(data)
    if is_local(fs):
        inner, outer = os.path.realpath(inner), os.path.realpath(outer)
    if type(fs) is type(data_fs) and f"{inner}/".startswith(f"{outer}/"):
        raise ConfigError(
            f"--out is {out}, inside --data, which is {data}; expected a folder outside of it."
        )


def _score_missing(
    units: Sequence[Unit], output: Output, execute: Execute
) -> tuple[dict[Unit, Record], int]:
    """Score units without a part; return the records of all, and how many were scored here.

    Each process of a launch scores its share.
    """
    launch, done = read_launch(), output.find_records(units)
    share = [u for u in units[launch.rank :: launch.n_processes] if u not in done]
    if len(done) < len(units):
        output.drop_manifest(units)
    scored: dict[Unit, Record] = {}

    def on_done(record: Record) -> None:
        scored[record.unit] = record

    failures = execute(share, output.address, on_done) if share else {}
    _refuse_failures(failures, len(units))
    if len(done) + len(scored) < len(units):
        done = output.find_records(units)  # also of the other processes
    return {**done, **scored}, len(scored)


def _refuse_failures(failures: Failures, n_units: int) -> None:
    if failures:
        listed = [
            why if why.startswith(unit.path) else f"{unit}: {why}" for unit, why in failures.items()
        ]
        more = len(listed) - _MAX_NAMED
        listed = [*listed[:_MAX_NAMED], *([f"and {more} more"] if more > 0 else [])]
        raise PairsError(
            f"{len(failures)} of {n_units} units are not scored:\n  " + "\n  ".join(listed) + "\n"
            "All others are kept. Repair what failed and run the same command again."
        )
