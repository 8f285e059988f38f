"""Predict a file with a run: chunk by chunk at any size, or out of fold as soft labels."""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tiewise.config import CHUNK_ROWS, UNIT_ROWS
from tiewise.data.formats import fetch_files, read_chunks
from tiewise.data.formats.parquet import write_parquet
from tiewise.data.formats.reading import ReadOptions, without_notes
from tiewise.data.labels import ONE_HOT_COLUMNS, PROB_COLUMNS
from tiewise.data.targets import count_own_soft_labels
from tiewise.errors import ConfigError, PairsError
from tiewise.files import digest_file, refuse_existing
from tiewise.judges.kinds import open_judge
from tiewise.judges.streaming import StreamReport, predict_stream
from tiewise.runs.calibration import read_calibration
from tiewise.runs.environment import is_first_process
from tiewise.runs.folder import RunFolder
from tiewise.runs.teachers import (
    TRAINING_COLUMN,
    find_training_rows,
    find_unseen_groups,
    open_teacher,
)

Choose = Callable[[pd.DataFrame], pd.DataFrame]
_log = logging.getLogger(__name__)
_FACTS = {
    "n_truncated": "truncated",
    "n_degenerate": "with equal or blank responses",
    "n_training_rows": "training rows",
}
"""Counts of a prediction that are printed where they are not 0."""
_WSDM_CHOSEN = (
    "The texts of %s are plain, so the submission has the columns of the WSDM Cup, id and winner, "
    "without probabilities. For id, winner_model_a, winner_model_b, winner_tie, predict without "
    "--submission and then call tw.write_submission(table['id'], table[['prob_a', 'prob_b', "
    "'prob_tie']], FILE)."
)


@dataclass(frozen=True)
class PredictOptions:
    """Options of predicting a file.

    `swap`: score both orders and average them; None is the run's setting. `chunk_rows` pairs are
    read, scored and written at a time. `device`: None is the run's setting. `data_format` and
    `columns`: as `format` and `columns` of :func:`tiewise.read_pairs`. `unit_rows`: most pairs of a
    unit (:mod:`tiewise.cluster.units`).
    """

    swap: bool | None = None
    chunk_rows: int = CHUNK_ROWS
    device: str | None = None
    data_format: str | None = None
    columns: Mapping[str, Any] | Sequence[str] = ()
    unit_rows: int = UNIT_ROWS

    def __post_init__(self) -> None:
        if self.chunk_rows < 1:
            raise ConfigError(f"--chunk-rows is {self.chunk_rows}; expected at least 1.")

    def to_dict(self) -> dict[str, Any]:
        """Return the options that predictions of a file depend on, as JSON values."""
        return {name: value for name, value in asdict(self).items() if name != "unit_rows"}


@dataclass(frozen=True)
class FilePrediction:
    """Result of predicting a file: shards, averaged folds, and statistics of the predictions.

    The statistics are empty if another process joins the shards.
    """

    shards: StreamReport
    n_folds: int
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def is_finished(self) -> bool:
        """Whether the output is written; another process of a launch may do it."""
        return self.shards.is_joined

    def to_dict(self) -> dict[str, Any]:
        """Return everything as nested dictionaries that JSON can hold."""
        return asdict(self)

    def __str__(self) -> str:
        return describe_facts(self.facts, self.n_folds)


def describe_facts(facts: Mapping[str, Any], n_folds: int) -> str:
    """Return the statistics of a prediction in words; those that are 0 are left out."""
    folds = "1 fold" if n_folds == 1 else f"{n_folds} folds averaged"
    parts = [f"{facts['n_rows']:,} pairs, {folds}"] if facts else [folds]
    counted = [name for name in _FACTS if facts.get(name)]
    parts += [f"{facts[name]:,} {_FACTS[name]}" for name in counted]
    shares = [name for name in ("flip_rate", "position_bias") if name in facts]
    parts += [f"{name.replace('_', ' ')} {facts[name]:.4g}" for name in shares]
    return ", ".join(parts)


def predict_file(
    run: RunFolder,
    data_path: Path | str,
    output_path: Path,
    *,
    cache_dir: Path,
    options: PredictOptions | None = None,
    is_submission: bool = False,
    overwrite: bool = False,
) -> FilePrediction:
    """Predict every row of a file with a run and write ids and probabilities in the same order.

    `data_path` has pairs of any known format, or is an ``hf://`` path; winners are not read. The
    output is a csv, parquet or jsonl file that starts with ``id, prob_a, prob_b, prob_tie``. If
    `is_submission`, it has the columns of the data's own competition and nothing else: ``id,
    winner_model_a, winner_model_b, winner_tie`` for LMSYS, ``id, winner`` for the WSDM Cup, where
    the winner is the more probable of A and B.
    """
    options = options or PredictOptions()
    if is_first_process():  # the others may find what the first has finished
        refuse_existing(output_path, overwrite=overwrite)
    files = fetch_files(data_path)
    reading: ReadOptions = {
        "format": options.data_format, "columns": options.columns, "labelled": False,
    }  # fmt: skip
    _refuse_own_input(files, output_path)
    choose_columns: Choose = order_columns
    if is_submission:
        choose_columns = choose_submission(data_path, _find_format(data_path, reading))
    before = [file.stat() for file in files]
    chunks = read_chunks(data_path, size=options.chunk_rows, **reading)
    folds = run.finished_folds()
    fingerprint = {
        "run": run.path.name,
        "models": digest_models(run, folds),
        "data": [digest_file(file) for file in files],
        "calibration": read_calibration(run).to_dict(),
        "options": options.to_dict(),
        "is_submission": is_submission,
        "chunks": "end with row groups",
    }
    # Opened for the first chunk that has no shard, after the output is locked.
    judge = functools.cache(lambda: open_judge(run, cache_dir=cache_dir, device=options.device))
    tally, is_training_row = Tally(), find_training_rows(run, folds)

    def prepare(table: pd.DataFrame) -> pd.DataFrame:
        tally.add(table)
        return choose_columns(table)

    def predict(pairs: pd.DataFrame) -> pd.DataFrame:
        _refuse_changed(files, before)
        predicted = judge().predict(pairs, swap=options.swap)
        return predicted.assign(**{TRAINING_COLUMN: is_training_row(pairs)})

    report = predict_stream(
        chunks,
        output_path,
        predict,
        fingerprint=fingerprint,
        prepare=prepare,
        overwrite=overwrite,
    )
    warn_of_training_rows(data_path, run.name, tally)
    return FilePrediction(report, len(folds), tally.describe() if report.is_joined else {})


def digest_models(run: RunFolder, folds: Sequence[int]) -> dict[str, str]:
    """Return a digest of the model of each fold: that of its held-out predictions."""
    return {str(fold): digest_file(run.fold(fold).oof_path) for fold in folds}


def warn_of_training_rows(data_path: object, run_name: str, tally: Tally) -> None:
    """Log how many rows of some data a run was trained on."""
    if tally.n_training_rows:
        _log.warning(
            "%s: %d rows are training rows of %s, so their probabilities are too confident to be "
            "evaluated. --out-of-fold takes for each row the folds that were not trained on it.",
            data_path, tally.n_training_rows, run_name,
        )  # fmt: skip


def order_columns(table: pd.DataFrame) -> pd.DataFrame:
    """Return predictions with id and probabilities first."""
    return table[list(dict.fromkeys(["id", *PROB_COLUMNS, *table]))]


def _as_lmsys(table: pd.DataFrame) -> pd.DataFrame:
    return table[["id", *PROB_COLUMNS]].set_axis(["id", *ONE_HOT_COLUMNS], axis=1)


def _as_wsdm(table: pd.DataFrame) -> pd.DataFrame:
    winner = np.where(table["prob_a"] >= table["prob_b"], "model_a", "model_b")
    return table[["id"]].assign(winner=winner)


_SUBMISSIONS = {"kaggle": _as_lmsys, "wsdm": _as_wsdm}
"""Columns of a submission, by the format of the competition's own test file."""


def choose_submission(data_path: object, format_name: str) -> Choose:
    """Return the function that makes a submission for the competition whose format some data have.

    PairsError for data of any other format.
    """
    if format_name not in _SUBMISSIONS:
        raise PairsError(
            f"the format of {data_path} is {format_name}, which no competition uses; expected "
            "kaggle (LMSYS: winner_model_a, winner_model_b, winner_tie) or wsdm (WSDM Cup: "
            "winner). Name the competition's own test file, or give --data-format."
        )
    if format_name == "wsdm":
        _log.info(_WSDM_CHOSEN, data_path)
    return _SUBMISSIONS[format_name]


def _find_format(data_path: Path | str, reading: ReadOptions) -> str:
    with without_notes():
        first = next(read_chunks(data_path, size=1, **reading), None)
        if first is None:
            raise PairsError(f"{data_path} has no rows: there is nothing to predict.")
        return str(first().attrs["format"])


def _refuse_own_input(files: Sequence[Path], output_path: Path) -> None:
    if any(output_path.exists() and output_path.samefile(file) for file in files):
        raise PairsError(f"{output_path} is the input; expected another file for the predictions.")


def _refuse_changed(files: Sequence[Path], before: Sequence[os.stat_result]) -> None:
    """Refuse to write predictions of files that were replaced while they were read."""
    for file, old in zip(files, before, strict=True):
        now = file.stat()
        if (now.st_size, now.st_mtime_ns) != (old.st_size, old.st_mtime_ns):
            raise PairsError(f"{file} was changed while it was predicted. Run the command again.")


@dataclass
class Tally:
    """Sums over predictions, added up chunk by chunk.

    `n_degenerate` rows have identical or blank responses. Of the `n_swapped` rows scored in both
    orders, `n_flips` changed their most probable class; `bias` is the sum over these of
    P(first shown wins) - P(second shown wins), averaged over both orders. `n_training_rows` counts
    rows that a fold of the run was trained on.
    """

    n_rows: int = 0
    n_truncated: int = 0
    n_degenerate: int = 0
    n_swapped: int = 0
    n_flips: int = 0
    bias: float = 0.0
    n_training_rows: int = 0

    def add(self, table: pd.DataFrame) -> None:
        """Count the rows of a table of predictions."""
        self.n_rows += len(table)
        if "n_truncated" in table:
            self.n_truncated += int((table["n_truncated"] > 0).sum())
        self.n_degenerate += int(table["is_degenerate"].sum())
        if TRAINING_COLUMN in table:
            self.n_training_rows += int(table[TRAINING_COLUMN].sum())
        if "prob_a_given" not in table:
            return
        given, swapped = (
            table[[f"{name}_{order}" for name in PROB_COLUMNS]].to_numpy(np.float64)
            for order in ("given", "swapped")
        )
        self.n_swapped += len(given)
        self.n_flips += int((given.argmax(axis=1) != swapped.argmax(axis=1)).sum())
        # Both are in the pair's own A and B; in the swapped order B is shown first.
        lead = given[:, 0] - given[:, 1] + swapped[:, 1] - swapped[:, 0]
        self.bias += float(lead.sum() / 2)

    def describe(self) -> dict[str, Any]:
        """Return the counts and, of rows in both orders, ``flip_rate`` and ``position_bias``."""
        facts: dict[str, Any] = {
            "n_rows": self.n_rows,
            "n_truncated": self.n_truncated,
            "n_degenerate": self.n_degenerate,
            "n_training_rows": self.n_training_rows,
        }
        if self.n_swapped:
            facts["n_swapped"] = self.n_swapped
            facts["flip_rate"] = self.n_flips / self.n_swapped
            facts["position_bias"] = self.bias / self.n_swapped
        return facts


@dataclass(frozen=True)
class LabelCounts:
    """Counts of rows that got soft labels.

    `n` rows were written. `n_out_of_fold` of them are in prompt groups of the run's training rows,
    labelled by folds that held the group out. `n_seen` rows were not written, because every fold
    was trained on their group.
    """

    n: int
    n_out_of_fold: int
    n_seen: int

    def to_dict(self) -> dict[str, int]:
        """Return the counts for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        return (
            f"{self.n} rows labelled, {self.n_out_of_fold} of them out of fold; "
            f"{self.n_seen} have prompts that every fold was trained on"
        )


def label_pairs(
    run: RunFolder,
    pairs: pd.DataFrame,
    out: Path,
    *,
    cache_dir: Path,
    folds: Sequence[int] | None = None,
    device: str | None = None,
    overwrite: bool = False,
) -> LabelCounts:
    """Write pairs to a parquet file with soft labels by a run.

    Each row is labelled by the mean of the folds (all finished ones, or `folds`) that were trained
    on no row of its prompt group. The file stores which folds were trained on which rows, so that a
    fit can refuse labels of a fold that saw the row. PairsError is raised when no row is left.
    """
    if Path(out).suffix != ".parquet":
        raise PairsError(f"{out}: expected a file that ends in .parquet, which stores the teacher.")
    refuse_existing(out, overwrite=overwrite)
    chosen = run.choose_folds(folds)
    teacher = open_teacher(run, chosen)
    all_unseen = teacher.find_unseen(pairs) & find_unseen_groups(run, pairs)
    unseen = all_unseen[:, chosen]
    kept = np.flatnonzero(unseen.any(axis=1))
    if not len(kept):
        raise PairsError(
            f"{run.name} was trained on all {len(pairs)} rows or their prompts. Give other rows."
        )
    labelled = pairs.iloc[kept].reset_index(drop=True)
    if n_replaced := count_own_soft_labels(labelled):
        _log.warning("%d rows have soft labels; those of %s replace them.", n_replaced, run.name)
    probs, signatures = np.empty((len(kept), 3)), np.empty(len(kept), dtype=object)
    masks, mask_of_row = np.unique(unseen[kept], axis=0, return_inverse=True)
    for number, mask in enumerate(masks):
        rows, own = np.flatnonzero(mask_of_row.ravel() == number), np.array(chosen)[mask].tolist()
        _log.info("%d rows are labelled by fold %s", len(rows), ", ".join(map(str, own)))
        judge = open_judge(run, cache_dir=cache_dir, device=device, folds=own)
        table = judge.predict(labelled.iloc[rows].reset_index(drop=True))
        probs[rows] = table[PROB_COLUMNS].to_numpy()
        signatures[rows] = teacher.sign(own)
    labelled = labelled.assign(
        **dict(zip(PROB_COLUMNS, probs.T, strict=True)),
        teacher=pd.array(signatures, dtype="string"),
    )
    refuse_existing(out, overwrite=overwrite)  # another command may have written it since
    write_parquet(labelled, Path(out), teacher=teacher.to_json())
    n_out_of_fold = int((~all_unseen[kept].all(axis=1)).sum())
    return LabelCounts(len(kept), n_out_of_fold, len(pairs) - len(kept))
