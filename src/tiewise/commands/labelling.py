"""Commands that make soft labels."""

from __future__ import annotations

from pathlib import Path

from tiewise.commands.arguments import Artifacts, Json, print_json
from tiewise.commands.words import shows
from tiewise.console import show
from tiewise.runs.folder import default_artifacts


@shows("tiewise label --run first --data pool.csv --out soft.parquet --unlabelled")
def label(
    *,
    run: str,
    data: tuple[str, ...],
    out: Path,
    folds: tuple[int, ...] = (),
    unlabelled: bool = False,
    keep_seen: bool = False,
    data_format: str | None = None,
    overwrite: bool = False,
    artifacts: Artifacts = default_artifacts(),  # noqa: B008
    json: Json = False,
) -> None:
    """Write a run's probabilities as soft labels: each row by the folds not trained on it.

    Args:
        run: Name or folder of the teacher.
        data: Pairs to label, files joined.
        out: The parquet file to write; tiewise fit --extra-data reads it.
        folds: Which of the teacher's folds may speak; all finished ones when not given.
        unlabelled: The files have no winners.
        keep_seen: Also label rows that every fold was trained on; they are left out otherwise.
        data_format: Name of the files' format; sniffed when not given.
        overwrite: Replace the file if it exists.
    """
    from tiewise.formats import read_many
    from tiewise.predicting.labelling import label_pairs
    from tiewise.runs.folder import open_run

    done = label_pairs(
        open_run(run, artifacts),
        read_many(data, format=data_format, labelled=not unlabelled),
        out,
        cache_dir=artifacts / "cache",
        folds=folds or None,
        keep_seen=keep_seen,
        is_overwritten=overwrite,
    )
    if json:
        print_json({"path": str(out)} | done.to_dict())
    else:
        show(f"{out}: {done}")
