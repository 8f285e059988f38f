"""Predictions of a run for a file: any format in, any size, probabilities out.

The file is read, judged and written in chunks (:mod:`tiewise.judges.streaming`), so memory
holds one chunk and the model. The folds of the run are averaged. The run may be of either kind;
torch is loaded only where the backbone needs it.
"""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from tiewise.data.formats import fetch_files, read_chunks
from tiewise.data.formats.cells import ONE_HOT_COLUMNS
from tiewise.data.labels import PROB_COLUMNS
from tiewise.files import digest_file, refuse_existing
from tiewise.judges.prediction_stats import Tally
from tiewise.judges.predictors import PredictOptions, open_predictor
from tiewise.judges.streaming import StreamReport, predict_stream
from tiewise.runs.calibration import read_calibration
from tiewise.runs.folder import RunFolder


@dataclass(frozen=True)
class FilePrediction:
    """What a predicted file holds; of a process that did not join it, nothing but the shards.

    shards
        What this process did of it.
    n_folds
        Folds averaged.
    facts
        Statistics of the joined predictions.
    """

    shards: StreamReport
    n_folds: int
    facts: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return everything as nested dictionaries that JSON can hold."""
        return {"shards": asdict(self.shards), "n_folds": self.n_folds, "facts": self.facts}

    def __str__(self) -> str:
        facts = [f"{name} {_show(value)}" for name, value in self.facts.items()]
        return ", ".join([f"folds averaged {self.n_folds}", *facts])


def predict_file(
    run: RunFolder,
    data_path: Path | str,
    output_path: Path,
    *,
    cache_dir: Path,
    options: PredictOptions | None = None,
    data_format: str | None = None,
    is_submission: bool = False,
    overwrite: bool = False,
) -> FilePrediction:
    """Predict every row of a file and write the probabilities beside the ids, in the same order.

    Parameters
    ----------
    run
        A run with finished folds.
    data_path
        Pairs of any known format, or an ``hf://`` path; winners are not looked at.
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
    overwrite
        Replace `output_path` if it stands.

    Raises
    ------
    TiewiseError
        As :func:`open_predictor`, and for files that cannot be read or written.
    """
    options = options or PredictOptions()
    if int(os.environ.get("RANK", "0")) == 0:  # the others may find what the first has finished
        refuse_existing(output_path, overwrite=overwrite)
    chunks = read_chunks(data_path, size=options.chunk_rows, format=data_format, labelled=False)
    folds = run.finished_folds()
    identity = {
        "run": run.path.name,
        "models": _digest_models(run),
        "data": [digest_file(file) for file in fetch_files(data_path)],
        "calibration": read_calibration(run).to_dict(),
        "options": asdict(options),
        "is_submission": is_submission,
        "data_format": data_format,
    }
    predict = open_predictor(run, cache_dir=cache_dir, device=options.device)
    prepare = _as_submission if is_submission else _as_predictions
    tally = Tally()
    report = predict_stream(
        chunks,
        output_path,
        lambda pairs: predict(pairs, options),
        identity=identity,
        prepare=lambda table: prepare(tally.add(table)),
    )
    if not report.is_joined:
        return FilePrediction(report, len(folds))
    return FilePrediction(report, len(folds), tally.describe())


def _digest_models(run: RunFolder) -> dict[str, str]:
    """Return a digest of the held-out predictions of each fold, which identifies its model."""
    return {str(fold): digest_file(run.fold(fold).oof_path) for fold in run.finished_folds()}


def _as_predictions(table: pd.DataFrame) -> pd.DataFrame:
    return table[
        ["id", *PROB_COLUMNS, *(name for name in table if name not in ["id", *PROB_COLUMNS])]
    ]


def _as_submission(table: pd.DataFrame) -> pd.DataFrame:
    return table[["id", *PROB_COLUMNS]].set_axis(["id", *ONE_HOT_COLUMNS], axis=1)


def _show(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"
