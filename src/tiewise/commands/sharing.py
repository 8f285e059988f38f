"""Commands that show a model to others."""

from __future__ import annotations

from pathlib import Path

import tyro

from tiewise.commands.arguments import Artifacts, Json, print_json
from tiewise.commands.words import shows
from tiewise.console import show
from tiewise.runs.folder import default_artifacts


@shows(
    "tiewise push first --repo my-name/prefers-a-or-b",
    "tiewise push first --fold 3 --repo my-name/prefers-a-or-b --public",
    "tiewise push exported-folder --repo my-name/prefers-a-or-b",
)
def push(
    model: tyro.conf.Positional[str],
    *,
    repo: str | None = None,
    fold: int | None = None,
    public: bool = False,
    artifacts: Artifacts = default_artifacts(),  # noqa: B008
    json: Json = False,
) -> None:
    """Upload a fold's adapter, or an exported folder, with its model card to the hub.

    Args:
        model: Name of a run, or a folder that holds a model with its card.
        repo: OWNER/NAME of the repository; nothing is uploaded without it.
        fold: Which fold of the run; the only finished one when not given.
        public: Let everybody see the repository if it has to be made; else only its owner.
    """
    from tiewise.exporting.push import find_model, push_folder

    folder = find_model(model, artifacts, fold=fold)
    url = push_folder(folder, repo, is_public=public)
    if json:
        print_json({"path": str(folder), "url": url})
    else:
        show(f"{folder} is at {url}")


@shows("tiewise demo", "tiewise demo --run first --port 7861")
def demo(
    *,
    run: str | None = None,
    port: int = 7860,
    artifacts: Artifacts = default_artifacts(),  # noqa: B008
) -> None:
    """Serve a page to try a model on, for this machine alone.

    Args:
        run: Name or folder of a run; the small model that comes with the package when not given.
        port: Port on 127.0.0.1; 0 for any that is free.
    """
    from tiewise.demo.app import serve

    path: Path | None = None
    if run is not None:
        from tiewise.runs.folder import open_run

        path = open_run(run, artifacts).path
    serve(path, port=port, announce=show)
