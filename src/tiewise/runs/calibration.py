"""A run's calibration: written when it was adopted, applied to whatever the run predicts.

``calibration.json`` in the run folder names the out-of-fold predictions it was fitted on by digest;
after a further fold, or another fit, it belongs to other predictions and is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from tiewise.data.labels import LOGIT_COLUMNS, PROB_COLUMNS
from tiewise.errors import RunError
from tiewise.evaluation.calibration import NO_CALIBRATION, Calibration, CalibrationResult
from tiewise.evaluation.intervals import FloatArray
from tiewise.files import digest_file, read_json, write_json
from tiewise.runs.folder import RunFolder

_LEAST = 1e-12


def log_probs(table: pd.DataFrame) -> FloatArray:
    """Return what a calibration is fitted on and applied to: log-probabilities, (n, 3)."""
    probs = table[PROB_COLUMNS].to_numpy(np.float64)
    return np.asarray(np.log(np.clip(probs, _LEAST, 1)), dtype=np.float64)


def save_calibration(run: RunFolder, verdict: CalibrationResult) -> None:
    """Write an adopted calibration; without one remove what an earlier verdict left."""
    path = _path(run)
    if not verdict.is_worth_it:
        path.unlink(missing_ok=True)
        return
    write_json(path, verdict.to_dict() | {"oof_sha256": digest_file(run.oof_path)})


def read_calibration(run: RunFolder) -> Calibration:
    """Return the run's calibration, or the one that changes nothing.

    Raises
    ------
    RunError
        When the file is damaged, or was fitted on other predictions than the run's.
    """
    path = _path(run)
    if not path.is_file():
        return NO_CALIBRATION
    try:
        values = read_json(path)
        adopted = values["adopted"]
        scale, bias = (_three_numbers(adopted[name]) for name in ("scale", "bias"))
        found, oof_sha256 = Calibration(str(adopted["method"]), scale, bias), values["oof_sha256"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"{path} is damaged: {error!r}. Run tiewise calibrate again.") from error
    if not run.oof_path.is_file() or digest_file(run.oof_path) != oof_sha256:
        raise RunError(
            f"{path} was fitted on other predictions than {run.oof_path} holds now. Run tiewise "
            f"calibrate {run.name} again, or remove the file."
        )
    return found


def apply_calibration(table: pd.DataFrame, calibration: Calibration) -> pd.DataFrame:
    """Return predictions with calibrated probabilities; bit for bit the same where none is adopted.

    What was said in each single order is left as it was.
    """
    if calibration.method == NO_CALIBRATION.method:
        return table
    probs = calibration.apply(log_probs(table))
    changed = dict(zip(PROB_COLUMNS, probs.T, strict=True))
    if set(LOGIT_COLUMNS) <= set(table):
        changed |= dict(zip(LOGIT_COLUMNS, np.log(probs).T, strict=True))
    return table.assign(**changed)


def _three_numbers(values: Sequence[float]) -> tuple[float, float, float]:
    a, b, tie = map(float, values)
    if not np.isfinite([a, b, tie]).all():
        raise ValueError(f"{values} are not finite")
    return a, b, tie


def _path(run: RunFolder) -> Path:
    return run.path / "calibration.json"
