"""Commands that use a fitted run: its predictions, a ranking, the run as one plain model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro

from tiewise.commands.arguments import Artifacts, Device, Json, print_json, show_result
from tiewise.commands.words import shows
from tiewise.console import show
from tiewise.errors import PairsError, missing_extra
from tiewise.runs.folder import default_artifacts

_ORDER = tyro.conf.create_mutex_group(required=False)
_Order = Annotated[bool, tyro.conf.FlagCreatePairsOff, _ORDER]


@shows(
    "tiewise predict --run first --data test.csv --out probs.parquet",
    "tiewise predict --run first --data test.csv --out submission.csv --submission",
    "tiewise predict --run first --data test.csv --out probs.csv --swap",
)
def predict(
    *,
    run: str,
    data: str,
    out: Path,
    swap: _Order = False,
    no_swap: _Order = False,
    submission: bool = False,
    data_format: str | None = None,
    chunk_rows: int = 1_000,
    overwrite: bool = False,
    device: Device = None,
    artifacts: Artifacts = default_artifacts(),  # noqa: B008
    json: Json = False,
) -> None:
    """Predict every pair of a file with a run, the run's folds averaged.

    Args:
        run: Name or folder of a run.
        data: Pairs of any known format, or an hf:// path; winners are not needed.
        out: The csv, parquet or jsonl file to write: id, prob_a, prob_b, prob_tie first.
        swap: Score both orders and average them.
        no_swap: Score only the order given. Without either flag, as the run was configured.
        submission: Write Kaggle's header.
        data_format: Name of the file's format; sniffed when not given.
        chunk_rows: Pairs held in memory at a time.
        overwrite: Replace the file if it exists.
    """
    from tiewise.predicting.prediction import predict_file
    from tiewise.predicting.predictors import PredictOptions
    from tiewise.runs.folder import open_run

    report = predict_file(
        open_run(run, artifacts),
        data,
        out,
        cache_dir=artifacts / "cache",
        options=PredictOptions(
            swap=None if swap == no_swap else swap, chunk_rows=chunk_rows, device=device
        ),
        data_format=data_format,
        is_submission=submission,
        is_overwritten=overwrite,
    )
    if not report.shards.is_joined:
        return  # the process that writes the last shard speaks for all
    if json:
        print_json({"path": str(out)} | report.to_dict())
    else:
        show(f"{out}: {report}")


@shows("tiewise rank --prompt ask.txt --responses a.txt b.txt c.txt --run first")
def rank(
    *,
    prompt: Path,
    responses: tuple[Path, ...],
    run: str | None = None,
    device: Device = None,
    artifacts: Artifacts = default_artifacts(),  # noqa: B008
    json: Json = False,
) -> None:
    """Rank several responses to one prompt, each in a text file.

    Args:
        prompt: File of the prompt.
        responses: Files of two or more responses.
        run: Name or folder of a run; the small model that comes with the package when not given.
    """
    from tiewise.predicting.serving import rank as rank_texts
    from tiewise.runs.folder import open_run

    texts = [_read_text(path) for path in (prompt, *responses)]
    path = None if run is None else open_run(run, artifacts).path
    show_result(rank_texts(texts[0], texts[1:], run=path, device=device), is_json=json)


@shows(
    "tiewise export first --out exported-folder",
    "tiewise export first --fold 3 --out exported-folder",
)
def export(
    run: tyro.conf.Positional[str],
    *,
    out: Path,
    fold: int | None = None,
    overwrite: bool = False,
    device: Device = None,
    artifacts: Artifacts = default_artifacts(),  # noqa: B008
    json: Json = False,
) -> None:
    """Write one fold of a run as a plain classifier that transformers and vLLM load.

    Args:
        run: Name or folder of a run.
        out: The folder to write: merged weights, tokenizer, template, model card.
        fold: Which fold; the only finished one when not given.
        overwrite: Replace the folder if it exists.
    """
    from tiewise.reporting.card import write_card
    from tiewise.runs.folder import open_run

    try:
        from tiewise.exporting.export import export_run
    except ModuleNotFoundError as error:
        raise missing_extra("tiewise export", error) from error
    opened = open_run(run, artifacts)
    done = export_run(
        opened,
        out,
        cache_dir=artifacts / "cache",
        fold=fold,
        is_overwritten=overwrite,
        complete=lambda folder, chosen: write_card(folder, opened, fold=chosen),
        device=device,
    )
    show_result(done, is_json=json)


def _read_text(path: Path) -> str:
    try:
        return path.read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        raise PairsError(f"{path}: not UTF-8: {error}. Convert the file.") from error
