"""Predictions of a run for a file: any format in, any size, probabilities out.

The file is read, judged and written in chunks (:mod:`tiewise.predicting.streaming`), so memory
holds one chunk and the model. The folds of the run are averaged. The run may be of either kind;
torch is loaded only where the backbone needs it. Where only close calls are scored in both orders,
the run's own held-out rows say what that costs in log loss.
"""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from tiewise.assessment.calibrated import read_calibration
from tiewise.evaluation.second_orders import SecondOrders, has_both_orders, weigh_second_orders
from tiewise.files import digest_file, refuse_existing
from tiewise.formats import fetch_files, read_chunks
from tiewise.formats.cells import ONE_HOT_COLUMNS
from tiewise.pairs.labels import PROB_COLUMNS
from tiewise.predicting.predictors import Predict, PredictOptions, open_cascade, open_predictor
from tiewise.predicting.streaming import StreamReport, predict_stream
from tiewise.predicting.tally import Tally
from tiewise.runs.folder import Run, open_run
from tiewise.runs.tables import read_fold_oof


@dataclass(frozen=True)
class FilePrediction:
    """What a predicted file holds; of a process that did not join it, nothing but the shards.

    shards
        What this process did of it.
    n_folds
        Folds averaged.
    facts
        What the joined predictions are like (:meth:`tiewise.predicting.tally.Tally.describe`).
    held_out
        With ``--swap-when``: what it saved and lost on the run's own held-out rows, where both of
        their orders were scored.
    """

    shards: StreamReport
    n_folds: int
    facts: dict[str, Any] = field(default_factory=dict)
    held_out: SecondOrders | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return everything as nested dictionaries that JSON can hold."""
        held_out = self.held_out.to_dict() if self.held_out else None
        return {
            "shards": asdict(self.shards),
            "n_folds": self.n_folds,
            "facts": self.facts,
            "held_out": held_out,
        }

    def __str__(self) -> str:
        facts = [f"{name} {_show(value)}" for name, value in self.facts.items()]
        described = ", ".join([f"folds averaged {self.n_folds}", *facts])
        return f"{described}\non held-out rows {self.held_out}" if self.held_out else described


def predict_file(
    run: Run,
    data_path: Path | str,
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
        "models": _digest_models(run, options),
        "data": [digest_file(file) for file in fetch_files(data_path)],
        "calibration": read_calibration(run).to_dict(),
        "options": asdict(options),
        "is_submission": is_submission,
        "data_format": data_format,
    }
    predict = _open_whole(run, cache_dir, options)
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
    return FilePrediction(report, len(folds), tally.describe(), _weigh(run, options.swap_when))


def _weigh(run: Run, swap_when: float | None) -> SecondOrders | None:
    """Weigh one value of ``--swap-when`` on the run's held-out rows, where they tell."""
    if swap_when is None:
        return None
    oof = pd.concat([read_fold_oof(run.fold(fold)) for fold in run.finished_folds()])
    known = oof[oof["label"].notna()]
    if not has_both_orders(known):
        return None
    [found] = weigh_second_orders(
        known, known["label"], shares=[swap_when], groups=known["group"].to_numpy()
    )
    return found


def _open_whole(run: Run, cache_dir: Path, options: PredictOptions) -> Predict:
    """Open a run, and the one that makes its close calls."""
    keywords: dict[str, Any] = {
        "cache_dir": cache_dir,
        "device": options.device,
    }
    predict = open_predictor(run, **keywords)
    if options.dear is None or options.dear_when is None:
        return predict
    dear = open_run(options.dear, run.path.parent.parent)
    return open_cascade(predict, open_predictor(dear, **keywords), options.dear_when)


def _digest_models(run: Run, options: PredictOptions) -> dict[str, str]:
    """Return what tells the models apart that predict: digests of what they predicted held out."""
    runs = [run, *([open_run(options.dear, run.path.parent.parent)] if options.dear else [])]
    return {
        f"{each.name} {fold}": digest_file(each.fold(fold).oof_path)
        for each in runs
        for fold in each.finished_folds()
    }


def _as_predictions(table: pd.DataFrame) -> pd.DataFrame:
    return table[
        ["id", *PROB_COLUMNS, *(name for name in table if name not in ["id", *PROB_COLUMNS])]
    ]


def _as_submission(table: pd.DataFrame) -> pd.DataFrame:
    return table[["id", *PROB_COLUMNS]].set_axis(["id", *ONE_HOT_COLUMNS], axis=1)


def _show(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"
