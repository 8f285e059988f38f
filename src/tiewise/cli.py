"""The command line: one function a command, each a few lines over the library.

Results go to standard output, everything else to standard error. With ``--json`` standard output
holds one JSON object and nothing more. Exit status: 0 done; 2 the person must change something;
130 or 143 interrupted, go on with ``--resume``; 1 our own bug.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from tiewise.config import PRESETS, RunConfig, load_preset
from tiewise.errors import ConfigError, Interrupted, TiewiseError

DEFAULT_PRESET = "quickstart"
Artifacts = Annotated[Path, tyro.conf.arg(help="Folder of runs, caches and submissions.")]
Json = Annotated[bool, tyro.conf.arg(help="Print one JSON object.")]
Config = Annotated[RunConfig, tyro.conf.OmitArgPrefixes]
Position = tyro.conf.Positional
_DESCRIPTION = """Which of two chatbot responses does a person prefer? P(A), P(B), P(tie).

A first run:  tiewise fit --preset quickstart --fold 0 --run first
              tiewise evaluate first
Every command takes --help and --quiet."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status; messages, not tracebacks, reach a person."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    is_quiet = "--quiet" in words
    words = [word for word in words if word != "--quiet"]
    level = logging.WARNING if is_quiet else logging.INFO
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr, force=True)
    logging.getLogger("tiewise").setLevel(level)
    try:
        tyro.extras.subcommand_cli_from_dict(
            _commands(words), args=words, prog="tiewise", description=_DESCRIPTION
        )
    except TiewiseError as error:
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        return 2
    except Interrupted as signal:
        sys.stderr.write("Stopped after a checkpoint; go on with --resume.\n")
        return 128 + int(signal.args[0])
    except KeyboardInterrupt:
        sys.stderr.write("Interrupted.\n")
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return 0


def _commands(words: Sequence[str]) -> dict[str, Callable[..., Any]]:
    return {
        "fit": _fit_command(_preset_in(words) if words[:1] == ["fit"] else DEFAULT_PRESET),
        "predict": predict,
        "evaluate": evaluate,
        "compare": compare,
        "audit": audit,
        "simulate": simulate,
        "report": report,
        "presets": presets,
    }


def _preset_in(words: Sequence[str]) -> str:
    """Find the preset before the flags are read: it gives them their defaults."""
    for position, word in enumerate(words):
        if word == "--preset" and position + 1 < len(words):
            return words[position + 1]
        if word.startswith("--preset="):
            return word.removeprefix("--preset=")
    return DEFAULT_PRESET


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

        del preset
        if fold is not None and folds is not None:
            raise ConfigError("--fold and --folds contradict each other; give one of them.")
        wanted = list(range(config.data.n_splits)) if folds else [fold or 0]
        options = FitOptions(run, is_resumed=resume, is_overwritten=overwrite, init_from=init_from)
        done, fitted = cross_fit(config, wanted, artifacts, options)
        if not _is_first_process():
            return
        scores = summarise(done)
        if json:
            _print_json({"run": done.name, "path": str(done.path), "fitted": fitted, **scores})
        elif not fitted:
            _print(f"{done.path}: nothing to do, every fold asked for is finished.")
        else:
            _print(_show_scores(scores))
            _print(f"Run {done.name} is in {done.path}.")

    return fit


def evaluate(
    run: Position[str | None] = None,
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
    from tiewise.crossfit import score_predictions, summarise
    from tiewise.runs import open_run

    if run is not None and data is None and predictions is None:
        scores = summarise(open_run(run, artifacts))
    elif run is None and data is not None and predictions is not None:
        scores = score_predictions(data, predictions)
    else:
        raise ConfigError("Give a run, or both --data and --predictions.")
    _print_json(scores) if json else _print(_show_scores(scores))


def presets() -> None:
    """List the presets and what they fit."""
    for name in PRESETS:
        config = load_preset(name)
        _print(
            f"{name:14} {config.model.backbone}, {config.model.tuning}, "
            f"max_length {config.template.max_length}, device {config.train.device}"
        )


def _is_first_process() -> bool:
    return int(os.environ.get("RANK", "0")) == 0


def _print(text: str) -> None:
    sys.stdout.write(text + "\n")


def _print_json(value: Any) -> None:
    _print(json.dumps(value, ensure_ascii=False, allow_nan=False))
