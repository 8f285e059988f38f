"""Predictions of a run for a file: any format in, any size, probabilities out.

The file is read, judged and written in chunks (:mod:`tiewise.streaming`), so memory holds one
chunk and the model. The folds of the run are averaged. The run may be of either kind; torch is
loaded only where the backbone needs it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from tiewise.baseline_fold import BaselineJudge
from tiewise.calibrated import apply_calibration, read_calibration
from tiewise.config import BASELINE
from tiewise.files import digest_file, refuse_existing
from tiewise.formats import read_chunks
from tiewise.formats.cells import ONE_HOT_COLUMNS
from tiewise.runs import Run
from tiewise.streaming import StreamReport, predict_stream
from tiewise.tally import Tally

PROBS = ["prob_a", "prob_b", "prob_tie"]
Predict = Callable[[pd.DataFrame], pd.DataFrame]


@dataclass(frozen=True)
class PredictOptions:
    """How pairs are scored.

    swap
        Score both orders and average; as the run was configured when None.
    swap_when
        Score the second order only where the second largest probability is at least this share of
        the largest, in [0, 1].
    is_bitwise
        One row a forward pass: a row's probabilities cannot depend on any other row.
    chunk_rows
        Rows read, scored and written at a time.
    """

    swap: bool | None = None
    swap_when: float | None = None
    is_bitwise: bool = False
    chunk_rows: int = 1_000


@dataclass(frozen=True)
class FilePrediction:
    """What a predicted file holds; of a process that did not join it, nothing but the shards.

    shards
        What this process did of it.
    n_folds
        Folds averaged.
    facts
        What the joined predictions are like (:meth:`tiewise.tally.Tally.describe`).
    """

    shards: StreamReport
    n_folds: int
    facts: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return everything as nested dictionaries that JSON can hold."""
        return asdict(self)

    def __str__(self) -> str:
        facts = [f"{name} {value:.4g}" for name, value in self.facts.items()]
        return ", ".join([f"folds averaged {self.n_folds}", *facts])


def open_predictor(run: Run, *, cache_dir: Path, options: PredictOptions | None = None) -> Predict:
    """Return a function from a pairs table to its predictions, averaged over the finished folds.

    Where a calibration of the run was adopted, the average is calibrated.

    Raises
    ------
    RunError
        When no fold is finished, or the calibration belongs to other predictions.
    ModelError, DeviceError
        When the model is damaged or the machine cannot compute it.
    """
    calibration = read_calibration(run)
    predict = _open_model(run, cache_dir, options or PredictOptions())
    return lambda pairs: apply_calibration(predict(pairs), calibration)


def _open_model(run: Run, cache_dir: Path, options: PredictOptions) -> Predict:
    if run.config.model.backbone == BASELINE:
        return BaselineJudge(run, cache_dir=cache_dir).predict
    from tiewise.judging import open_judge

    judge = open_judge(run, cache_dir=cache_dir)
    swap = run.config.predict.swap if options.swap is None else options.swap
    keywords: dict[str, Any] = {
        "is_swapped": swap,
        "swap_when": options.swap_when,
        "is_bitwise": options.is_bitwise,
        "batch_tokens": run.config.predict.score_batch_tokens,
    }
    return lambda pairs: judge.predict(pairs, **keywords)


def predict_file(
    run: Run,
    data_path: Path,
    output_path: Path,
    *,
    cache_dir: Path,
    options: PredictOptions | None = None,
    data_format: str | None = None,
    is_submission: bool = False,
    is_overwritten: bool = False,
) -> FilePrediction:
    """Predict every row of a file and write the probabilities beside the ids, in the same order.

    Parameters
    ----------
    run
        A run with finished folds.
    data_path
        Pairs of any known format; winners are not looked at.
    output_path
        A csv, parquet or jsonl file; ``id, prob_a, prob_b, prob_tie`` come first.
    cache_dir
        Where converted backbones are cached.
    options
        How pairs are scored.
    data_format
        Name of the format; sniffed when None.
    is_submission
        Write Kaggle's header and nothing but ids and probabilities.
    is_overwritten
        Replace `output_path` if it stands.

    Raises
    ------
    TiewiseError
        As :func:`open_predictor`, and for files that cannot be read or written.
    """
    options = options or PredictOptions()
    if int(os.environ.get("RANK", "0")) == 0:  # the others may find what the first has finished
        refuse_existing(output_path, is_overwritten=is_overwritten)
    chunks = read_chunks(data_path, size=options.chunk_rows, format=data_format, labelled=False)
    folds = run.finished_folds()
    identity = {
        "run": run.path.name,
        "models": {str(fold): digest_file(run.fold(fold).oof_path) for fold in folds},
        "data": digest_file(data_path),
        "calibration": read_calibration(run).to_dict(),
        "options": asdict(options),
        "is_submission": is_submission,
    }
    predict = open_predictor(run, cache_dir=cache_dir, options=options)
    prepare = _as_submission if is_submission else _as_predictions
    tally = Tally()
    report = predict_stream(
        chunks,
        output_path,
        predict,
        identity=identity,
        prepare=lambda table: prepare(tally.add(table)),
    )
    return FilePrediction(report, len(folds), tally.describe() if report.is_joined else {})


def _as_predictions(table: pd.DataFrame) -> pd.DataFrame:
    return table[["id", *PROBS, *(name for name in table if name not in ["id", *PROBS])]]


def _as_submission(table: pd.DataFrame) -> pd.DataFrame:
    return table[["id", *PROBS]].set_axis(["id", *ONE_HOT_COLUMNS], axis=1)
