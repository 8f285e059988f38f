"""Commands about the machine."""

from __future__ import annotations

from tiewise.commands.arguments import Artifacts, Json, show_result
from tiewise.commands.words import shows
from tiewise.runs.folder import default_artifacts


@shows("tiewise doctor", "tiewise doctor --json")
def doctor(*, artifacts: Artifacts = default_artifacts(), json: Json = False) -> None:  # noqa: B008
    """Say what this machine has, and which presets it would run at what estimated speed."""
    from tiewise.doctor import examine

    show_result(examine(artifacts), is_json=json)
