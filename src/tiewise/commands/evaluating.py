"""Commands that judge a run, or anybody's predictions."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from tiewise.commands.arguments import Artifacts, Json, show_result
from tiewise.commands.words import shows
from tiewise.console import show
from tiewise.errors import ConfigError
from tiewise.runs.folder import default_artifacts

if TYPE_CHECKING:
    from tiewise.assessment.judged import Judged

RunName = Annotated[
    str | None, tyro.conf.Positional, tyro.conf.arg(help="Name or folder of a run.")
]
Data = Annotated[
    tuple[str, ...],
    tyro.conf.arg(help="Labelled pairs: those of --predictions, or where a run's data are now."),
]
Predictions = Annotated[
    Path | None,
    tyro.conf.arg(help="Table with id, prob_a, prob_b, prob_tie (csv, parquet, jsonl)."),
]


@shows(
    "tiewise evaluate first",
    "tiewise evaluate first --json > scores.json",
    "tiewise evaluate --data votes.csv --predictions judge.csv",
    "tiewise evaluate --data rewardbench.parquet --predictions judge.csv --rewardbench",
)
def evaluate(
    run: RunName = None,
    *,
    data: tuple[str, ...] = (),
    predictions: Predictions = None,
    rewardbench: bool = False,
    artifacts: Artifacts = default_artifacts(),  # noqa: B008
    json: Json = False,
) -> None:
    """Score a run, or any judge's predictions, with intervals beside the baselines.

    Args:
        data: Labelled pairs that --predictions are about.
        rewardbench: Accuracy as on RewardBench's board, by section and subset.
    """
    from tiewise.assessment.judged import judge_file, score_judged, score_preferences
    from tiewise.fitting.crossfit import summarise
    from tiewise.runs.folder import open_run

    scores: Any
    if rewardbench and (not data or predictions is None):
        raise ConfigError("--rewardbench needs --data and --predictions.")
    if run is not None and not data and predictions is None:
        scores = summarise(open_run(run, artifacts))
    elif run is None and data and predictions is not None:
        scores = (
            score_preferences(data, predictions)
            if rewardbench
            else score_judged(judge_file(data, predictions))
        )
    else:
        raise ConfigError("Give a run, or both --data and --predictions.")
    show_result(scores, is_json=json)


@shows("tiewise slices first", "tiewise slices --data votes.csv --predictions judge.csv")
def slices(
    run: RunName = None,
    *,
    data: Data = (),
    predictions: Predictions = None,
    artifacts: Artifacts = default_artifacts(),  # noqa: B008
    json: Json = False,
) -> None:
    """Score parts of the data, each held against all other rows, with Holm's correction."""
    from tiewise.evaluation.slices import evaluate_slices

    judged = _judge(run, data, predictions, artifacts)
    known = judged.folds if judged.pairs is None else judged.pairs
    show_result(evaluate_slices(known, judged.oof), is_json=json)


@shows("tiewise calibrate first", "tiewise calibrate --data votes.csv --predictions judge.csv")
def calibrate(
    run: RunName = None,
    *,
    data: tuple[str, ...] = (),
    predictions: Predictions = None,
    artifacts: Artifacts = default_artifacts(),  # noqa: B008
    json: Json = False,
) -> None:
    """Try to calibrate; adopt it only where it shows a gain on conversations not fitted on.

    An adopted calibration of a run is written to its folder, and whatever the run predicts from
    then on is calibrated. Otherwise it says «not worth it», and nothing changes.

    Args:
        data: Labelled pairs that --predictions are about.
    """
    from tiewise.assessment.calibrated import log_probs, save_calibration
    from tiewise.evaluation.calibration import calibrate as try_calibrations
    from tiewise.fitting.crossfit import summarise
    from tiewise.runs.folder import open_run
    from tiewise.runs.tables import is_joined

    if run is not None and data:
        raise ConfigError("No texts are needed to calibrate a run: leave out --data.")
    if run is not None and predictions is None and not is_joined(open_run(run, artifacts)):
        summarise(open_run(run, artifacts))
    judged = _judge(run, data, predictions, artifacts)
    rows = judged.oof[judged.oof["label"].notna()]
    verdict = try_calibrations(
        rows["label"], log_probs(rows), groups=rows["group"], symmetric=judged.is_symmetric
    )
    if run is not None:
        save_calibration(open_run(run, artifacts), verdict)
    show_result(verdict, is_json=json)


@shows("tiewise leaderboard first", "tiewise leaderboard first --data train.csv")
def leaderboard(
    run: RunName = None,
    *,
    data: Data = (),
    predictions: Predictions = None,
    artifacts: Artifacts = default_artifacts(),  # noqa: B008
    json: Json = False,
) -> None:
    """Rank the models named in the data by votes and by predictions, also with length controlled.

    If the predicted order agrees with the observed one only until length is controlled, the
    predictor is a length meter.
    """
    from tiewise.evaluation.leaderboard import rank_models

    judged = _judge(run, data, predictions, artifacts)
    show_result(rank_models(judged.texts(), judged.oof), is_json=json)


@shows("tiewise compare first second", "tiewise compare first second third --by-slice")
def compare(
    runs: tyro.conf.Positional[tuple[str, ...]],
    *,
    by_slice: bool = False,
    data: Data = (),
    artifacts: Artifacts = default_artifacts(),  # noqa: B008
    json: Json = False,
) -> None:
    """Compare runs with the last one named, on the rows both have predicted: log loss and accuracy.

    Args:
        runs: Names or folders of two runs or more; differences are each run minus the last.
        by_slice: Also on each slice of the rows.
        data: Where the runs' data are now, if not where they were; only slices need them.
    """
    from tiewise.assessment.comparison import compare_with_reference
    from tiewise.assessment.judged import judge_run
    from tiewise.runs.folder import open_run

    if len(runs) < 2:
        raise ConfigError("Name at least two runs to compare, the reference last.")
    if data and not by_slice:
        raise ConfigError("Texts are only needed for --by-slice: leave out --data, or add it.")
    *judged, reference = [judge_run(open_run(run, artifacts), data) for run in runs]
    show_result(compare_with_reference(judged, reference, by_slice=by_slice), is_json=json)


@shows("tiewise report first", "tiewise report first --data train.csv")
def report(
    run: tyro.conf.Positional[str],
    *,
    data: tuple[str, ...] = (),
    artifacts: Artifacts = default_artifacts(),  # noqa: B008
) -> None:
    """Write one self-contained page about a run: report.html and figures.

    Args:
        run: Name or folder of a run.
        data: Where the run's data are now, if not where they were.
    """
    from tiewise.reporting.report import write_report
    from tiewise.runs.folder import open_run
    from tiewise.training_data.dataset import reread_pairs

    opened = open_run(run, artifacts)
    show(str(write_report(opened, pairs=reread_pairs(opened, data))))


def _judge(
    run: str | None, data: tuple[str, ...], predictions: Path | None, artifacts: Path
) -> Judged:
    """Open what a command is about: a run, or predictions of labelled data."""
    from tiewise.assessment.judged import judge_file, judge_run
    from tiewise.runs.folder import open_run

    if run is not None and predictions is None:
        return judge_run(open_run(run, artifacts), data)
    if run is None and data and predictions is not None:
        return judge_file(data, predictions)
    raise ConfigError("Give a run, or both --data and --predictions.")
