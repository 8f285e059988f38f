"""Commands that make one model of several."""

from __future__ import annotations

import tyro

from tiewise.commands.arguments import Artifacts, Json, show_result
from tiewise.commands.words import shows
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
