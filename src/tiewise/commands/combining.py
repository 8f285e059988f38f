"""Commands that make one model of several."""

from __future__ import annotations

import tyro

from tiewise.commands.arguments import Artifacts, Json, print_json, show_result
from tiewise.commands.words import shows
from tiewise.console import show
from tiewise.errors import missing_extra
from tiewise.runs.folder import default_artifacts


@shows("tiewise blend first second", "tiewise blend first second third --run mixed")
def blend(
    runs: tyro.conf.Positional[tuple[str, ...]],
    *,
    run: str | None = None,
    overwrite: bool = False,
    artifacts: Artifacts = default_artifacts(),  # noqa: B008
    json: Json = False,
) -> None:
    """Mix several runs with weights fitted out of fold, and write the mixture as a run.

    Args:
        runs: Names of two or more runs that have predicted the same rows.
        run: Name of the blend; made from time and configuration when not given.
        overwrite: Replace a blend of that name.
    """
    from tiewise.ensembles.blending import blend_runs
    from tiewise.runs.folder import open_run

    members = [open_run(name, artifacts) for name in runs]
    show_result(blend_runs(members, artifacts, name=run, is_overwritten=overwrite), is_json=json)


@shows("tiewise average first", "tiewise predict --run first --average --data a.csv --out p.csv")
def average(
    run: tyro.conf.Positional[str],
    *,
    overwrite: bool = False,
    artifacts: Artifacts = default_artifacts(),  # noqa: B008
    json: Json = False,
) -> None:
    """Average the adapters of a run's folds into one, which predict takes with --average.

    The folds' updates of the weights are averaged, not their predictions: one model to load, at the
    cost of one. It has seen every row of the run's data, so only other data can score it.

    Args:
        run: Name or folder of a run with two finished folds or more.
        overwrite: Replace the average that is there.
    """
    from tiewise.runs.folder import open_run

    try:
        from tiewise.network.averaging import average_run
    except ModuleNotFoundError as error:
        raise missing_extra("tiewise average", error) from error
    opened = open_run(run, artifacts)
    built = average_run(opened, is_overwritten=overwrite)
    folds = opened.finished_folds()
    if json:
        print_json({"path": str(opened.average_dir), "folds": folds, "lora_r": built.lora_r})
        return
    what = f"of rank {built.lora_r}" if built.tuning == "lora" else "of every weight"
    show(
        f"{opened.average_dir}: one model {what}, the mean of folds {', '.join(map(str, folds))}. "
        f"Use it with tiewise predict --run {run} --average."
    )


@shows("tiewise cascade counted first", "tiewise cascade counted first --shares 0.8 0.5 --json")
def cascade(
    cheap: tyro.conf.Positional[str],
    dear: tyro.conf.Positional[str],
    *,
    shares: tuple[float, ...] = (0.9, 0.8, 0.6, 0.4, 0.2),
    artifacts: Artifacts = default_artifacts(),  # noqa: B008
    json: Json = False,
) -> None:
    """Say what asking a dear run only about a cheap run's close calls costs and changes.

    Args:
        cheap: Name or folder of the run that judges every row.
        dear: Name or folder of the run that judges the close calls.
        shares: A call is close where the second largest probability is at least this share of the
            largest; a line each, between the two runs alone.
    """
    from tiewise.ensembles.cascade import weigh_cascade
    from tiewise.runs.folder import open_run

    runs = [open_run(name, artifacts) for name in (cheap, dear)]
    show_result(weigh_cascade(*runs, shares=shares), is_json=json)
