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
