"""Save the adopted calibration of a run, read it back, and apply it to predictions.

``calibration.json`` names the SHA-256 of the out-of-fold predictions that it was fitted on; when
these change, it is refused.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from tiewise.data.labels import LOGIT_COLUMNS, PROB_COLUMNS, without_ties
from tiewise.errors import RunError
from tiewise.evaluation.calibration import NO_CALIBRATION, Calibration, CalibrationResult
from tiewise.files import digest_file, read_json, write_json
from tiewise.runs.folder import RunFolder
from tiewise.runs.tables import is_joined, log_probs

_FILE = "calibration.json"


def save_calibration(
    run: RunFolder, result: CalibrationResult, *, oof_sha256: str | None = None
) -> None:
    """Write the adopted calibration; if none was adopted, remove an earlier one.

    `oof_sha256` is the SHA-256 of the predictions that it was fitted on; None means those that the
    run has now.
    """
    path = run.path / _FILE
    if result.is_worth_it:
        write_json(path, result.to_dict() | {"oof_sha256": oof_sha256 or digest_file(run.oof_path)})
    else:
        path.unlink(missing_ok=True)


def read_calibration(run: RunFolder) -> Calibration:
    """Return the calibration of a run, or `NO_CALIBRATION`; refuse one of other predictions."""
    path = run.path / _FILE
    if not path.is_file():
        return NO_CALIBRATION
    again = f"Run tiewise evaluate {run.name} --calibrate again, or remove the file."
    try:
        values = read_json(path)
        found, oof_sha256 = _as_calibration(**values["adopted"]), values["oof_sha256"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"{path} is damaged: {error!r}. {again}") from error
    is_same = run.oof_path.is_file() and digest_file(run.oof_path) == oof_sha256
    if not (is_same and is_joined(run)):
        raise RunError(
            f"{path} was fitted on other predictions than {run.oof_path} has now. {again}"
        )
    return found


def apply_calibration(
    table: pd.DataFrame, calibration: Calibration, *, has_ties: bool = True
) -> pd.DataFrame:
    """Return predictions with calibrated probabilities and logits; those of one order stay.

    P(tie) is 0 for a judge of pairs that cannot be a tie.
    """
    if calibration.method == NO_CALIBRATION.method:
        return table
    probs = calibration.apply(log_probs(table))
    probs = probs if has_ties else without_ties(probs)
    changed = dict(zip(PROB_COLUMNS, probs.T, strict=True))
    if set(LOGIT_COLUMNS) <= set(table):
        changed |= dict(zip(LOGIT_COLUMNS, log_probs(pd.DataFrame(changed)).T, strict=True))
    return table.assign(**changed)


def _as_calibration(method: str, scale: list[float], bias: list[float]) -> Calibration:
    """Check the values of a file; ValueError unless there are three finite scales and biases."""
    numbers = np.array([scale, bias], dtype=np.float64)
    if numbers.shape != (2, 3) or not np.isfinite(numbers).all():
        raise ValueError(f"scale and bias are {scale}, {bias}; expected three finite numbers each")
    return Calibration(str(method), *(tuple(row) for row in numbers.tolist()))
