"""Commands that judge a run, or anybody's predictions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tyro

from tiewise.commands.arguments import Artifacts, Json, default_artifacts, show_result
from tiewise.commands.words import shows
from tiewise.console import show
from tiewise.errors import ConfigError


@shows(
    "tiewise evaluate first",
    "tiewise evaluate first --json > scores.json",
    "tiewise evaluate --data votes.csv --predictions judge.csv",
    "tiewise evaluate --data rewardbench.parquet --predictions judge.csv --rewardbench",
)
def evaluate(
    run: tyro.conf.Positional[str | None] = None,
    *,
    data: Path | None = None,
    predictions: Path | None = None,
    rewardbench: bool = False,
    artifacts: Artifacts = default_artifacts(),  # noqa: B008
    json: Json = False,
) -> None:
    """Score a run, or any judge's predictions, with intervals beside the baselines.

    Args:
        run: Name or folder of a run.
        data: Labelled pairs that the predictions are about, when no run is given.
        predictions: A table with id, prob_a, prob_b, prob_tie (csv, parquet or jsonl).
        rewardbench: Accuracy as on RewardBench's board, by section and subset.
    """
    from tiewise.comparison import score_predictions, score_preferences
    from tiewise.crossfit import summarise
    from tiewise.runs import open_run

    scores: Any
    if rewardbench and (data is None or predictions is None):
        raise ConfigError("--rewardbench needs --data and --predictions.")
    if run is not None and data is None and predictions is None:
        scores = summarise(open_run(run, artifacts))
    elif run is None and data is not None and predictions is not None:
        score = score_preferences if rewardbench else score_predictions
        scores = score(data, predictions)
    else:
        raise ConfigError("Give a run, or both --data and --predictions.")
    show_result(scores, is_json=json)


@shows("tiewise compare first second", "tiewise compare first second --json")
def compare(
    first: tyro.conf.Positional[str],
    second: tyro.conf.Positional[str],
    *,
    artifacts: Artifacts = default_artifacts(),  # noqa: B008
    json: Json = False,
) -> None:
    """Compare two runs on the rows both have predicted: log loss and accuracy, first minus second.

    Args:
        first: Name or folder of a run.
        second: Name or folder of the run to compare it with.
    """
    from tiewise.comparison import compare_runs
    from tiewise.runs import open_run

    show_result(compare_runs(open_run(first, artifacts), open_run(second, artifacts)), is_json=json)


@shows("tiewise report first", "tiewise report first --data train.csv")
def report(
    run: tyro.conf.Positional[str],
    *,
    data: tuple[str, ...] = (),
    artifacts: Artifacts = default_artifacts(),  # noqa: B008
) -> None:
    """Write one self-contained page about a run: report.html, report.md and figures.

    Args:
        run: Name or folder of a run.
        data: Where the run's data are now, if not where they were.
    """
    from tiewise.dataset import reread_pairs
    from tiewise.report import write_report
    from tiewise.runs import open_run

    opened = open_run(run, artifacts)
    show(str(write_report(opened, pairs=reread_pairs(opened, data))))
