"""The command line: one function a command, each a few lines over the library.

Results go to standard output, everything else to standard error. With ``--json`` standard output
holds one JSON object and nothing more. Exit status: 0 done; 2 the person must change something;
130 or 143 interrupted, go on with ``--resume``; 1 our own bug.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from tiewise.config import PRESETS, RunConfig, load_preset
from tiewise.console import run_command, show
from tiewise.errors import ConfigError
from tiewise.files import refuse_existing

DEFAULT_PRESET = "quickstart"
Artifacts = Annotated[Path, tyro.conf.arg(help="Folder of runs, caches and submissions.")]
Json = Annotated[bool, tyro.conf.arg(help="Print one JSON object.")]
Config = Annotated[RunConfig, tyro.conf.OmitArgPrefixes]
_DESCRIPTION = """Which of two chatbot responses does a person prefer? P(A), P(B), P(tie).

A first run:  tiewise fit --preset quickstart --fold 0 --run first
              tiewise evaluate first
Every command takes --help and --quiet."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    is_quiet = "--quiet" in words
    words = [word for word in words if word != "--quiet"]

    def command() -> None:
        tyro.extras.subcommand_cli_from_dict(
            _commands(words), args=words, prog="tiewise", description=_DESCRIPTION
        )

    return run_command(command, is_quiet=is_quiet)


def _commands(words: Sequence[str]) -> dict[str, Callable[..., Any]]:
    return {
        "fit": _fit_command(_preset_in(words) if words[:1] == ["fit"] else DEFAULT_PRESET),
        "predict": predict,
        "rank": rank,
        "evaluate": evaluate,
        "compare": compare,
        "audit": audit,
        "simulate": simulate,
        "report": report,
        "presets": presets,
    }


def _preset_in(words: Sequence[str]) -> str:
    """Find the preset before the flags are read: it gives them their defaults. The last counts."""
    found = DEFAULT_PRESET
    for word, following in zip(words, [*words[1:], ""], strict=True):
        if word == "--preset" and following:
            found = following
        elif word.startswith("--preset="):
            found = word.removeprefix("--preset=")
    return found


def _default_artifacts() -> Path:
    return Path(os.environ.get("TIEWISE_ARTIFACTS", "artifacts"))


def _fit_command(preset_name: str) -> Callable[..., None]:
    defaults = load_preset(preset_name)

    def fit(
        *,
        preset: str = preset_name,
        fold: int | None = None,
        folds: Literal["all"] | None = None,
        run: str | None = None,
        resume: bool = False,
        overwrite: bool = False,
        init_from: Path | None = None,
        artifacts: Artifacts = _default_artifacts(),  # noqa: B008 - read once, at the start
        json: Json = False,
        config: Config = defaults,
    ) -> None:
        """Fit one fold, or all, and write the run folder.

        Args:
            preset: Where the other flags' defaults come from: a name from `tiewise presets`, or a
                TOML file.
            fold: The fold to hold out; 0 when neither this nor --folds is given.
            folds: Fit every fold, one after the other.
            run: Name of the run; made from time and configuration when not given.
            resume: Go on from the newest intact checkpoint of the same run.
            overwrite: Remove the folds of this run first.
            init_from: Start from the adapter in this folder (a fold of another run).
        """
        from tiewise.crossfit import FitOptions, cross_fit, summarise
        from tiewise.runs import is_first_process

        del preset
        if fold is not None and folds is not None:
            raise ConfigError("--fold and --folds contradict each other; give one of them.")
        wanted = list(range(config.data.n_splits)) if folds else [fold or 0]
        options = FitOptions(run, is_resumed=resume, is_overwritten=overwrite, init_from=init_from)
        done, fitted = cross_fit(config, wanted, artifacts, options)
        if not is_first_process():
            return
        scores = summarise(done)
        if json:
            about = {"run": done.name, "path": str(done.path), "fitted": fitted}
            _print_json(about | scores.to_dict())
        elif not fitted:
            show(f"{done.path}: nothing to do, every fold asked for is finished.")
        else:
            show(f"{scores}\nRun {done.name} is in {done.path}.")

    return fit


def predict(
    *,
    run: str,
    data: Path,
    out: Path,
    swap: bool = False,
    one_order: bool = False,
    swap_when: float | None = None,
    bitwise: bool = False,
    submission: bool = False,
    data_format: str | None = None,
    chunk_rows: int = 1_000,
    overwrite: bool = False,
    artifacts: Artifacts = _default_artifacts(),  # noqa: B008
) -> None:
    """Predict every pair of a file with a run, the run's folds averaged.

    Args:
        run: Name or folder of a run.
        data: Pairs of any known format; winners are not needed.
        out: The csv, parquet or jsonl file to write: id, prob_a, prob_b, prob_tie first.
        swap: Score both orders and average them.
        one_order: Score the pairs as they are. With neither, as the run was configured.
        swap_when: Score the second order only of pairs whose second largest probability is at
            least this share of the largest.
        bitwise: One pair a forward pass, so that no pair can depend on another to the last bit.
        submission: Write Kaggle's header.
        data_format: Name of the file's format; sniffed when not given.
        chunk_rows: Pairs held in memory at a time.
        overwrite: Replace the file if it exists.
    """
    from tiewise.prediction import PredictOptions, predict_file
    from tiewise.runs import open_run

    if swap and one_order:
        raise ConfigError("--swap and --one-order contradict each other; give one of them.")
    is_swapped = swap if swap or one_order else None
    report = predict_file(
        open_run(run, artifacts),
        data,
        out,
        cache_dir=artifacts / "cache",
        options=PredictOptions(is_swapped, swap_when, bitwise, chunk_rows),
        data_format=data_format,
        is_submission=submission,
        is_overwritten=overwrite,
    )
    if report.is_joined:
        show(f"{out}: {report.n_rows} pairs")


def rank(
    prompt: Path,
    responses: tuple[Path, ...],
    *,
    run: str | None = None,
    artifacts: Artifacts = _default_artifacts(),  # noqa: B008
    json: Json = False,
) -> None:
    """Rank several responses to one prompt, each in a text file.

    Args:
        prompt: File of the prompt.
        responses: Files of two or more responses.
        run: Name or folder of a run; the small model that comes with the package when not given.
    """
    from tiewise.runs import open_run
    from tiewise.serving import rank as rank_texts

    texts = [path.read_text("utf-8") for path in (prompt, *responses)]
    path = None if run is None else open_run(run, artifacts).path
    _show(rank_texts(texts[0], texts[1:], run=path), is_json=json)


def report(
    run: tyro.conf.Positional[str],
    *,
    data: tuple[str, ...] = (),
    artifacts: Artifacts = _default_artifacts(),  # noqa: B008
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


def evaluate(
    run: tyro.conf.Positional[str | None] = None,
    *,
    data: Path | None = None,
    predictions: Path | None = None,
    artifacts: Artifacts = _default_artifacts(),  # noqa: B008
    json: Json = False,
) -> None:
    """Score a run, or any judge's predictions, with intervals beside the baselines.

    Args:
        run: Name or folder of a run.
        data: Labelled pairs that the predictions are about, when no run is given.
        predictions: A table with id, prob_a, prob_b, prob_tie (csv, parquet or jsonl).
    """
    from tiewise.comparison import score_predictions
    from tiewise.crossfit import summarise
    from tiewise.runs import open_run

    if run is not None and data is None and predictions is None:
        scores = summarise(open_run(run, artifacts))
    elif run is None and data is not None and predictions is not None:
        scores = score_predictions(data, predictions)
    else:
        raise ConfigError("Give a run, or both --data and --predictions.")
    _show(scores, is_json=json)


def compare(
    first: tyro.conf.Positional[str],
    second: tyro.conf.Positional[str],
    *,
    artifacts: Artifacts = _default_artifacts(),  # noqa: B008
    json: Json = False,
) -> None:
    """Compare two runs on the rows both have predicted: log loss and accuracy, first minus second.

    Args:
        first: Name or folder of a run.
        second: Name or folder of the run to compare it with.
    """
    from tiewise.comparison import compare_runs
    from tiewise.runs import open_run

    _show(compare_runs(open_run(first, artifacts), open_run(second, artifacts)), is_json=json)


def audit(
    data: tyro.conf.Positional[tuple[str, ...]],
    *,
    data_format: str | None = None,
    unlabelled: bool = False,
    n_splits: int = 5,
    backbone: str | None = None,
    max_length: int = 1024,
    artifacts: Artifacts = _default_artifacts(),  # noqa: B008
    json: Json = False,
) -> None:
    """Read data and say what is in them: rows, classes, oddities, leakage of each fold rule.

    Args:
        data: Files to read, joined.
        data_format: Name of the files' format; sniffed when not given.
        unlabelled: The files have no winners.
        n_splits: Number of folds to try each rule with.
        backbone: Count tokens with this backbone's tokenizer, and what max_length would cut.
        max_length: Tokens a row may hold.
    """
    from tiewise.audit import audit_pairs
    from tiewise.formats import read_many

    pairs = read_many(data, format=data_format, labelled=not unlabelled, on_error="skip")
    lengths = _count_tokens(pairs, backbone, artifacts) if backbone else None
    found = audit_pairs(pairs, n_splits=n_splits, token_lengths=lengths, max_length=max_length)
    _show(found, is_json=json)


def simulate(
    *, n: int = 1500, seed: int = 0, out: Path = Path("train.csv"), overwrite: bool = False
) -> None:
    """Write pairs with a known posterior, in Kaggle's columns, and print their Bayes log loss.

    Args:
        n: Number of pairs.
        seed: Seed of the simulation.
        out: The csv file to write; the posterior goes beside it.
        overwrite: Replace the file if it exists.
    """
    from tiewise.simulate import simulate as simulate_pairs
    from tiewise.simulate import write_simulation

    refuse_existing(out, is_overwritten=overwrite)
    bayes = write_simulation(simulate_pairs(n, seed=seed), out)
    show(f"{out}: {n} pairs, Bayes log loss {bayes:.4f}")


def presets() -> None:
    """List the presets and what they fit."""
    for name in PRESETS:
        config = load_preset(name)
        show(
            f"{name:14} {config.model.backbone}, {config.model.tuning}, "
            f"max_length {config.template.max_length}, device {config.train.device}"
        )


def _count_tokens(pairs: Any, backbone: str, artifacts: Path) -> Any:
    from tiewise.backbones import resolve_backbone
    from tiewise.tokens import load_tokenizer, token_lengths, tokenize

    cache_dir = artifacts / "cache"
    tokenizer = load_tokenizer(resolve_backbone(backbone, cache_dir=cache_dir))
    return token_lengths(tokenize(pairs, tokenizer, cache_dir=cache_dir))


def _show(result: Any, *, is_json: bool) -> None:
    if is_json:
        _print_json(result.to_dict())
    else:
        show(str(result))


def _print_json(value: Any) -> None:
    show(json.dumps(value, allow_nan=False))
