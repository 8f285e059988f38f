"""A run, opened: from a pairs table to its predictions, whatever kind of run it is.

A network is asked through :mod:`tiewise.predicting.judging`; torch is loaded only then. A blend
mixes what its members say. The CPU-class model averages its folds; where it stands on other runs,
these are asked first, in both orders, so that it stays symmetric. A cascade asks a dear run where a
cheap one is in two minds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tiewise.assessment.calibrated import apply_calibration, read_calibration
from tiewise.baseline.feature_model import describe_pairs, load_baseline
from tiewise.baseline.fold import open_run_embedder
from tiewise.config.run_config import BASELINE, BLEND
from tiewise.errors import ConfigError, RunError, missing_extra
from tiewise.evaluation.orders import check_share, is_close
from tiewise.pairs.labels import PROB_COLUMNS
from tiewise.pairs.table import is_degenerate
from tiewise.predicting.mixture import load_mixture
from tiewise.predicting.tally import add_costs
from tiewise.runs.folder import Run, read_object
from tiewise.runs.stacking import check_stack, open_stack, stack_columns, table_logits


@dataclass(frozen=True)
class PredictOptions:
    """How pairs are scored.

    swap
        Score both orders and average; as the run was configured when None.
    swap_when
        Score the second order only where the second largest probability is at least this share of
        the largest, in [0, 1]; this asks for a swap.
    is_bitwise
        One row a forward pass: a row's probabilities cannot depend on any other row.
    chunk_rows
        Rows read, scored and written at a time.
    device
        `cpu` or `cuda`; where the run was fitted when None.
    dear
        Name of another run, beside this one, that makes the close calls.
    dear_when
        A call is close where the second largest probability is at least this share of the largest,
        in [0, 1].

    Raises
    ------
    ConfigError
        When a value is out of range, or one order is wanted and a second one too.
    """

    swap: bool | None = None
    swap_when: float | None = None
    is_bitwise: bool = False
    chunk_rows: int = 1_000
    device: str | None = None
    dear: str | None = None
    dear_when: float | None = None

    def __post_init__(self) -> None:
        if self.chunk_rows < 1:
            raise ConfigError(f"--chunk-rows is {self.chunk_rows}; expected at least 1.")
        if (self.dear is None) != (self.dear_when is None):
            raise ConfigError("--dear and --dear-when belong together: a run, and when to ask it.")
        if self.dear_when is not None:
            check_share(self.dear_when, "--dear-when")
        if self.swap_when is None:
            return
        check_share(self.swap_when)
        if self.swap is False:
            raise ConfigError(
                "--swap-when asks for a second order where it may matter, and --one-order for "
                "none; give one of them."
            )

    def is_swapped(self, run: Run) -> bool:
        """Whether a run's pairs are scored in both orders."""
        if self.swap is None:
            return self.swap_when is not None or run.config.predict.swap
        return self.swap


Predict = Callable[[pd.DataFrame, PredictOptions], pd.DataFrame]
"""From a pairs table to its predictions, a line each, in the same order."""
_BOTH_ORDERS = PredictOptions(swap=True)


def open_predictor(
    run: Run,
    *,
    cache_dir: Path,
    device: str | None = None,
    folds: Sequence[int] | None = None,
) -> Predict:
    """Return a function from a pairs table to its predictions, averaged over the finished folds.

    Where a calibration of the run was adopted, it is applied to all folds together. Runs that this
    one is built on are asked without theirs, since it was fitted on what they say of themselves;
    and so are single folds, since a calibration has seen the rows that they have not.

    Parameters
    ----------
    run
        A run with finished folds.
    cache_dir
        Where converted backbones are cached.
    device
        `cpu` or `cuda`; where the run was fitted when None.
    folds
        Which finished folds are averaged; all of them when None.

    Raises
    ------
    RunError
        When no fold is finished, or the calibration belongs to other predictions.
    ModelError, DeviceError
        When the model is damaged or the machine cannot compute it.
    """
    calibration = read_calibration(run)
    predict = _open_model(run, cache_dir, device, folds=folds)
    if folds is not None:
        return predict
    return lambda pairs, options: apply_calibration(predict(pairs, options), calibration)


def _open_model(
    run: Run,
    cache_dir: Path,
    device: str | None,
    *,
    folds: Sequence[int] | None = None,
) -> Predict:
    members = _open_members(run, cache_dir, device)
    if run.config.model.backbone == BLEND:
        return _open_blend(run, members)
    if run.config.model.backbone == BASELINE:
        chosen = run.finished_folds() if folds is None else folds
        return _open_baseline(run, members, chosen, cache_dir)
    try:
        from tiewise.predicting.judging import open_judge
    except ModuleNotFoundError as error:
        raise missing_extra(run.config.model.backbone, error) from error

    judge = open_judge(run, cache_dir=cache_dir, device=device, folds=folds)

    def predict(pairs: pd.DataFrame, options: PredictOptions) -> pd.DataFrame:
        return judge.predict(
            pairs,
            is_swapped=options.is_swapped(run),
            swap_when=options.swap_when,
            is_bitwise=options.is_bitwise,
            batch_tokens=run.config.predict.score_batch_tokens,
        )

    return predict


def _open_members(run: Run, cache_dir: Path, device: str | None) -> dict[str, Predict]:
    """Open the runs that a run is built on, unless they have changed since."""
    members = open_stack(run.config.model.stack, run.path.parent)
    for fold in run.finished_folds():
        if members:
            identity = read_object(run.fold(fold).identity_path)
            check_stack(members, identity.get("stack", {}))
    return {member.name: _open_model(member, cache_dir, device) for member in members}


def _open_blend(run: Run, members: Mapping[str, Predict]) -> Predict:
    """Return a blend's predictions of pairs, from its members'."""
    mixture = load_mixture(run.mixture_path)

    def predict(pairs: pd.DataFrame, options: PredictOptions) -> pd.DataFrame:
        told = [members[name](pairs, options) for name in mixture.members]
        logits = [table_logits(table) for table in told]
        return add_costs(_tabulate(pairs, np.exp(mixture.apply(logits))), told)

    return predict


def _open_baseline(
    run: Run, members: Mapping[str, Predict], folds: Sequence[int], cache_dir: Path
) -> Predict:
    """Return the CPU-class model's predictions of pairs, some finished folds averaged.

    Parameters
    ----------
    run
        A run of the CPU-class model.
    members
        What predicts pairs for each run that it stands on.
    folds
        Which finished folds.
    cache_dir
        Where a converted encoder is kept.

    Raises
    ------
    RunError
        When no fold is finished.
    """
    if not folds:
        raise RunError(f"{run.path}: no fold is finished yet. Go on with tiewise fit --resume.")
    models = [load_baseline(run.fold(fold).adapter_dir) for fold in folds]
    embed = open_run_embedder(run, cache_dir)

    def predict(pairs: pd.DataFrame, _: PredictOptions) -> pd.DataFrame:
        told = {name: table_logits(judge(pairs, _BOTH_ORDERS)) for name, judge in members.items()}
        columns = {
            column: values
            for name, logits in told.items()
            for column, values in zip(stack_columns(name), logits.T, strict=True)
        }
        if pairs.empty:
            return _tabulate(pairs, np.zeros((0, 3)))
        known = pairs.assign(**columns)
        features = describe_pairs(known, embed=embed, stack=run.config.model.stack)
        probs = np.mean([model.predict_features(features) for model in models], axis=0)
        return _tabulate(pairs, probs)

    return predict


def open_cascade(cheap: Predict, dear: Predict, share: float) -> Predict:
    """Return predictions of which close calls are made by the dear one.

    Parameters
    ----------
    cheap, dear
        What predicts pairs.
    share
        The ratio of a row's two largest probabilities from which on the dear one is asked.
    """

    def predict(pairs: pd.DataFrame, options: PredictOptions) -> pd.DataFrame:
        table = cheap(pairs, options)
        goes_on = is_close(table_logits(table), share)
        probs = table[PROB_COLUMNS].to_numpy(np.float64).copy()
        # A chunk without a close call has the same columns: nobody was asked, nothing was read.
        told = [table, pd.DataFrame({"n_tokens": 0, "n_truncated": 0}, index=range(len(table)))]
        if goes_on.any():
            answers = dear(pairs[goes_on], options)
            probs[goes_on] = answers[PROB_COLUMNS]
            asked = add_costs(pd.DataFrame(index=np.flatnonzero(goes_on)), [answers])
            told.append(asked.reindex(range(len(table)), fill_value=0))
        return add_costs(_tabulate(pairs, probs), told).assign(is_dear=goes_on)

    return predict


def _tabulate(pairs: pd.DataFrame, probs: Any) -> pd.DataFrame:
    table = pd.DataFrame(probs, columns=PROB_COLUMNS)
    table.insert(0, "id", pairs["id"].to_numpy())
    return table.assign(is_degenerate=is_degenerate(pairs))
