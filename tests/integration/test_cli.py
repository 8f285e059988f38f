"""Every command ends with a result or a message, and the exit status that belongs to it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from huggingface_hub import ModelCard
from safetensors.numpy import load_file, save_file

import tiewise
from tiewise.cli import main
from tiewise.config import PRESETS
from tiewise.data.formats import read_pairs
from tiewise.data.simulation.simulate import simulate, write_simulation
from tiewise.files import write_json
from tiewise.runs.manifest import write_manifest
from tiewise.serving.demo.judgement import judge_responses
from tiewise.serving.push import find_model

FIT = ("fit", "--preset", "tiny", "--data", "train.csv")
WEIGHTS = "adapter_model.safetensors"
WINNERS = ["winner_model_a", "winner_model_b", "winner_tie"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Make a folder with valid and invalid data, and a finished run `base`."""
    folder = tmp_path_factory.mktemp("shell")
    write_simulation(simulate(60, seed=0), folder / "train.csv")
    train = pd.read_csv(folder / "train.csv")
    tables = {
        "test": train.drop(columns=WINNERS),
        "soft": train.drop(columns=WINNERS).assign(prob_a=0.5, prob_b=0.25, prob_tie=0.25),
        "header": train[:0],
        "one": train[:1],
        "one_class": train.assign(**dict(zip(WINNERS, (1, 0, 0), strict=True))),
        "one_id": train.assign(id=1),
        "one_prompt": train.assign(prompt='["same"]'),
        "escapes": train.assign(id=[f"\x1b[31m{i}" for i in range(60)]),
    }
    for name, table in tables.items():
        table.to_csv(folder / f"{name}.csv", index=False)
    (folder / "empty.csv").touch()
    (folder / "noise.csv").write_bytes(np.random.default_rng(0).bytes(5000))
    (folder / "noise.parquet").write_bytes(b"PAR1" + bytes(500) + b"PAR1")
    (folder / "folder.csv").mkdir()
    (folder / "wrong.toml").write_text("[train]\nlearning_rate = 'high'\n")
    (folder / "noise.toml").write_bytes(b"\xff\xfe")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert run(*FIT, "--run", "base") == 0
    for name, change in {
        "headless": remove_head,
        "halved": halve_head,
        "moved": change_backbone,
    }.items():
        copied = shutil.copytree(folder / "artifacts/runs/base", folder / "elsewhere" / name)
        change(copied / "fold0" / "adapter")
        write_manifest(copied / "fold0" / "adapter")
        (folder / name).symlink_to(copied)
    return folder


def remove_head(adapter_dir):
    """Remove the head, as peft does when it saves with the wrong task type."""
    tensors = load_file(adapter_dir / WEIGHTS)
    save_file({n: t for n, t in tensors.items() if "score" not in n}, adapter_dir / WEIGHTS)


def halve_head(adapter_dir):
    """Keep two of the three classes."""
    tensors = load_file(adapter_dir / WEIGHTS)
    tensors |= {name: part[:2].copy() for name, part in tensors.items() if "score" in name}
    save_file(tensors, adapter_dir / WEIGHTS)


def change_backbone(adapter_dir):
    """Name other backbone weights in the adapter."""
    card = json.loads((adapter_dir / "classifier.json").read_bytes())
    write_json(adapter_dir / "classifier.json", card | {"backbone_sha256": 64 * "0"})


def run(*words):
    """Return the exit status, whether it is returned or raised."""
    try:
        return main(words)
    except SystemExit as error:
        return error.code


@pytest.fixture
def here(folder, monkeypatch):
    """Work in the folder, without environment variables of tiewise."""
    monkeypatch.chdir(folder)
    monkeypatch.delenv("TIEWISE_DATA", raising=False)
    monkeypatch.delenv("TIEWISE_ARTIFACTS", raising=False)
    return folder


REFUSED_FITS = {
    "--data nowhere.csv": "there is no such file",
    "--data folder.csv": "folder.csv holds no file",
    "--data empty.csv": "empty",
    "--data header.csv": "there are no rows",
    "--data one.csv": "the number of prompt groups is 1; expected at least 5",
    "--data test.csv": "--unlabelled",
    "--data one_id.csv": "occurs more than once",
    "--data one_prompt.csv": "the number of prompt groups is 1; expected at least 5",
    "--data soft.csv": "holds out no row with a winner",
    "--data noise.csv": "no known format",
    "--data noise.parquet": "parquet",
    "--data-format nonsense": "format is 'nonsense'",
    "--fold 5": "expected 0 to 4",
    "--fold -1": "expected 0 to 4",
    "--fold first": "--fold",
    "--folds 3": "--folds is '3'; expected all. For one fold: --fold 3.",
    "--fold 1 --folds all": "contradict",
    "--n-splits 1": "--n-splits",
    "--n-splits 59": "expected at least 59",
    "--limit 0": "--limit",
    "--limit 1": "the number of prompt groups is 1; expected at least 5",
    "--limit 3": "the number of prompt groups is 3; expected at least 5",
    "--max-length 0": "--max-length",
    "--max-length 1": "max_length is 1",
    "--batch-size 0": "--batch-size",
    "--micro-batch-tokens 0": "--micro-batch-tokens",
    "--score-batch-tokens 0": "--score-batch-tokens",
    "--learning-rate inf": "--learning-rate",
    "--learning-rate nan": "--learning-rate",
    "--lora-alpha nan": "--lora-alpha",
    "--max-grad-norm -1": "--max-grad-norm",
    "--n-warmup-steps -2": "--n-warmup-steps",
    "--seed -1": "--seed",
    "--data-seed -1": "--data-seed",
    "--optimizer nonsense": "--optimizer is nonsense",
    "--report-to nonsense": "--report-to nonsense",
    "--quantization nf4 --tuning full": "--tuning full",
    "--lora-targets nonsense": "--lora-targets",
    "--n-layers 99": "--n-layers",
    "--n-frozen-layers 99": "--n-frozen-layers",
    "--template notebook": "expected right with --template notebook",
    "--layout zigzag": "--layout",
    "--device cuda": "CUDA",
    "--init-from nowhere": "--init-from nowhere",
    "--init-from train.csv": "--init-from train.csv",
    "--init-from .": "manifest.json is missing",
    "--init-from artifacts/runs/base/fold0 --lora-r 2": "lora_r",
    "--backbone ./nowhere": "no such folder",
    "--backbone .": "config.json",
    "--backbone package:nonsense": "expected one of package:",
    "--backbone missing/missing": "and the hub cannot",
    "--backbone-sha256 00": "SHA-256",
    "--run a/b": "plain name",
    "--run ..": "plain name",
    "--artifacts train.csv": "Not a directory",
    "--artifacts /proc/nowhere": "/proc/nowhere",
    "--nonsense 3": "--nonsense",
    "--preset nonsense": "expected one of",
    "--preset wrong.toml": "--learning-rate",
    "--preset noise.toml": "not a TOML file",
    "--preset folder.csv": "expected one of",
    "--preset baseline --init-from artifacts/runs/base/fold0": "does not apply to the",
    "--resume --overwrite": "contradict",
    "--run base": "fitted before",
    "--run base --seed 4": "train.seed was 0 and is now 4",
    "--run base --data one_class.csv --resume": "other",
}


def skip_with_cuda(line):
    """Skip a case that expects CUDA to be missing, on a machine that has it."""
    if "--device cuda" in line and torch.cuda.is_available():
        pytest.skip("CUDA is available")


@pytest.mark.parametrize("flags", REFUSED_FITS)
def test_impossible_fit_is_refused(here, capsys, flags):
    """Exit status 2 and a message about the error; no traceback, and no run folder is left."""
    skip_with_cuda(flags)
    runs_dir = here / "artifacts" / "runs"
    before = sorted(runs_dir.iterdir())
    assert run(*FIT, "--run", "new", *flags.split()) == 2
    captured = capsys.readouterr()
    assert REFUSED_FITS[flags] in captured.err + captured.out
    assert "Traceback" not in captured.err
    assert sorted(runs_dir.iterdir()) == before


REFUSED = {
    "nonsense": "nonsense",
    "evaluate": "Give a run",
    "evaluate nowhere": "`tiewise runs` lists them",
    "evaluate train.csv": "There is no run train.csv",
    "evaluate base --data train.csv": "leave it out",
    "evaluate --by-slice": "Give a run",
    "evaluate base --by-slice --predictions train.csv": "Give a run",
    "evaluate base --by-slice --data one_class.csv": "not the data that base",
    "evaluate nowhere --calibrate": "`tiewise runs` lists them",
    "evaluate base --calibrate --by-slice": "exclude one another",
    "predict --run base --data test.csv --out new.csv --out-of-fold --swap": "leave out",
    "leaderboard --data train.csv": "Give a run",
    "evaluate --data train.csv --predictions nowhere.csv": "nowhere.csv",
    "evaluate --data train.csv --predictions train.csv": "are missing",
    "evaluate --data train.csv --predictions folder.csv": "folder.csv",
    "evaluate --data train.csv --predictions empty.csv": "empty.csv",
    "evaluate --data train.csv --predictions noise.csv": "noise.csv",
    "evaluate --data folder.csv --predictions train.csv": "folder.csv",
    "compare base": "expected two or more",
    "compare base base --data nowhere.csv": "leave it out",
    "evaluate base --calibrate --data train.csv": "leave it out",
    "compare base base base": "name each run once",
    "compare base nowhere": "`tiewise runs` lists them",
    "audit": "no file to read",
    "audit nowhere.csv": "there is no such file",
    "audit folder.csv": "folder.csv holds no file",
    "audit empty.csv": "empty",
    "audit noise.csv": "no known format",
    "audit noise.parquet": "parquet",
    "audit train.csv --data-format nonsense": "format is 'nonsense'",
    "audit train.csv --n-splits 1": "--n-splits is 1",
    "audit train.csv --max-length -5": "--max-length is -5",
    "convert test.csv --out new.csv": "--unlabelled",
    "simulate --n 5 --out new.tsv": "ends in .csv",
    "simulate --n 5 --out .": "ends in .csv",
    "simulate --n 0 --out new.csv": "--n",
    "simulate --n many": "--n",
    "simulate --seed -1 --out new.csv": "--seed",
    "simulate --n 5 --out train.csv": "--overwrite",
    "simulate --n 5 --out folder.csv --overwrite": "Is a directory",
    "simulate --n 5 --out train.csv/new.csv": "train.csv",
    "predict --run base --data nowhere.csv --out new.csv": "nowhere.csv",
    "predict --run base --data header.csv --out new.csv": "no rows",
    "predict --run base --data noise.csv --out new.csv": "no known format",
    "predict --run base --data test.csv --out train.csv": "--overwrite",
    "predict --run base --data test.csv --out new.xyz": ".xyz",
    "predict --run nowhere --data test.csv --out new.csv": "`tiewise runs` lists them",
    "predict --data test.csv": "--out",
    "predict --run base --data test.csv --out new.csv --swap --no-swap": "exclude each other",
    "predict --run base --data test.csv --out new.csv --chunk-rows 0": "--chunk-rows is 0",
    "predict --run base --data test.csv --out new.csv --device cuda": "--device cpu",
    "predict --run headless --data test.csv --out new.csv": "score.weight is missing",
    "predict --run halved --data test.csv --out new.csv": "expected (3, 64)",
    "predict --run moved --data test.csv --out new.csv": "was fitted on",
    "rank --prompt train.csv --responses train.csv": "at least two responses",
    "rank --prompt Name --responses train.csv train.csv": "'Name' is no readable text file",
    "rank --prompt noise.csv --responses train.csv train.csv": "not UTF-8",
    "runs show nowhere": "`tiewise runs` lists them",
    "runs rm base nowhere": "`tiewise runs` lists them",
    "runs rm folder.csv": "There is no run folder.csv",
    "runs base": "invalid choice",
    "report nowhere": "`tiewise runs` lists them",
    "export nowhere --out new.csv": "`tiewise runs` lists them",
    "export base": "--out",
    "export base --out train.csv": "--overwrite",
    "export base --out new.csv --fold 3": "fold 3 is not finished (finished: 0)",
    "export base --out new.csv --device cuda": "--device cpu",
    "export headless --out new.csv": "score.weight is missing",
    "export halved --out new.csv": "expected (3, 64)",
    "export moved --out new.csv": "was fitted on",
}


@pytest.mark.parametrize("line", REFUSED)
def test_impossible_command_is_refused(here, capsys, line):
    """Exit status 2 and a message about the error; no traceback, and no file is written."""
    skip_with_cuda(line)
    assert run(*line.split()) == 2
    captured = capsys.readouterr()
    assert REFUSED[line] in captured.err + captured.out
    assert "Traceback" not in captured.err
    assert not (here / "new.csv").exists()


def test_refused_fit_leaves_name_free(here):
    """After a refused fit the run name can be used with another configuration."""
    assert run(*FIT, "--run", "again", "--n-layers", "99") == 2
    assert run(*FIT, "--run", "again", "--n-epochs", "1", "--data", "one_class.csv") == 0


ODD_FITS = {
    "batch": "--batch-size 500",
    "tokens": "--micro-batch-tokens 1 --n-epochs 1",
    "length": "--max-length 1000000000 --n-epochs 1",
    "few": "--limit 7 --n-splits 2",
    "open": "--max-grad-norm 0 --n-epochs 1",
    "classes": "--data one_class.csv --n-epochs 1",
}


@pytest.mark.parametrize("name", ODD_FITS)
def test_unusual_fit_finishes(here, name):
    """A too large batch, a too small token budget or a single class does not stop a fit."""
    assert run(*FIT, "--run", name, *ODD_FITS[name].split()) == 0


@pytest.mark.parametrize(
    "words",
    [
        ["evaluate", "base"],
        ["compare", "base", "base"],
        ["evaluate", "base", "--by-slice"],
        ["evaluate", "base", "--calibrate"],
        ["leaderboard", "base"],
        ["audit", "train.csv"],
        ["audit", "train.csv", "--backbone", "tiny:0"],
        [*FIT, "--run", "base", "--resume"],
        [*FIT, "--run", "pure", "--n-epochs", "1"],
    ],
)
def test_json_is_the_only_output(here, capfd, words):
    """Standard output is one line with one JSON object, in ASCII for any locale."""
    assert run(*words, "--json") == 0
    out = capfd.readouterr().out
    assert isinstance(json.loads(out), dict)
    assert out.count("\n") == 1
    assert out.isascii()


def test_export_is_complete(here, capsys):
    """Transformers loads it with the scores of the run; the card says what is untested."""
    assert run("export", "base", "--out", "plain", "--json") == 0
    done = json.loads(capsys.readouterr().out)
    assert done["path"] == "plain"
    assert done["drift"] < 1e-5
    card = (here / "plain" / "README.md").read_text()
    assert "vllm serve DIR" in card
    assert "--skip-tokenizer-init" in card
    assert "## Scores" in card
    assert run("export", "base", "--out", "plain") == 2
    assert run("export", "base", "--out", "plain", "--overwrite") == 0
    assert "README.md shows how" in capsys.readouterr().out


@pytest.mark.parametrize("words", ["predict --run base --data test.csv", "export base"])
def test_missing_torch_is_named(here, capsys, monkeypatch, words):
    """A message names the package and the extra; no traceback."""
    for name in ("tiewise.models.pretrained", "tiewise.serving.export"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, "torch", None)
    assert run(*words.split(), "--out", "never.csv") == 2
    assert "needs torch, which is not installed: run pip install" in capsys.readouterr().err


def test_finished_fold_is_not_fitted_again(here, capsys):
    """With ``--resume`` the command says that there is nothing to do, and writes no file."""
    adapter = here / "artifacts" / "runs" / "base" / "fold0" / "adapter"
    before = [path.stat().st_mtime_ns for path in sorted(adapter.iterdir())]
    assert run(*FIT, "--run", "base", "--resume") == 0
    assert "nothing to do" in capsys.readouterr().out
    assert [path.stat().st_mtime_ns for path in sorted(adapter.iterdir())] == before


def test_overwriting_gives_equal_adapter(here):
    """``--overwrite`` removes the old files, and the same configuration gives the same bytes."""
    assert run(*FIT, "--run", "twice", "--n-epochs", "1") == 0
    adapter = here / "artifacts" / "runs" / "twice" / "fold0" / "adapter"
    manifest = (adapter / "manifest.json").read_bytes()
    (adapter.parent / "stray").touch()
    assert run(*FIT, "--run", "twice", "--n-epochs", "1", "--overwrite") == 0
    assert (adapter / "manifest.json").read_bytes() == manifest
    assert not (adapter.parent / "stray").exists()


def test_missing_data_of_environment_is_refused(here, monkeypatch, capsys):
    """A TIEWISE_DATA or TIEWISE_ARTIFACTS that cannot be used is an error, not ignored."""
    monkeypatch.setenv("TIEWISE_DATA", "nowhere.csv")
    assert run("fit", "--preset", "tiny", "--run", "new") == 2
    assert "nowhere.csv" in capsys.readouterr().err
    monkeypatch.setenv("TIEWISE_ARTIFACTS", "train.csv")
    assert run(*FIT, "--run", "new") == 2


def test_data_cannot_control_the_terminal(here, capfd):
    """Control characters of ids and columns are escaped in messages and results."""
    for words in (["audit", "escapes.csv"], [*FIT, "--data", "escapes.csv", "--fold", "9"]):
        run(*words)
    text = "\x1b]0;owned\x07"
    (here / "column.csv").write_text(f"id,{text}\n1,2\n")
    assert run("audit", "column.csv") == 2
    captured = capfd.readouterr()
    assert "\x1b" not in captured.out + captured.err
    assert "\\x1b]0;owned" in captured.err


def shell(line, folder, **environment):
    """Run a line of bash in which `tiewise` is this package."""
    program = f'tiewise() {{ {sys.executable} -m tiewise "$@"; }}\nset -o pipefail\n{line}'
    return subprocess.run(
        ["bash", "-c", program],
        cwd=folder,
        env={name: value for name, value in (os.environ | environment).items() if value},
        capture_output=True,
        timeout=100,
        check=False,
    )


@pytest.mark.parametrize(
    ("line", "status"),
    [
        ("tiewise audit train.csv | head -n 1", 0),
        ("tiewise audit train.csv --json | head -c 1", 0),
        ("tiewise audit train.csv >&-", 0),
        ("tiewise audit train.csv 2>&-", 0),
        ("tiewise audit nowhere.csv 2>&-", 2),
        ("tiewise audit train.csv < /dev/null", 0),
        ("tiewise audit train.csv > /dev/full", 2),
        ("mkdir gone && cd gone && rmdir ../gone && tiewise audit nowhere.csv", 2),
    ],
)
def test_shell_conditions_are_handled(folder, line, status):
    """A pipe without a reader, a closed stream, a full disk or a missing folder: no traceback."""
    done = shell(line, folder)
    assert done.returncode == status, done.stderr
    assert b"Traceback" not in done.stderr
    assert b"Exception ignored" not in done.stderr


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_any_locale_is_supported(folder, encoding):
    """Characters that the encoding of the terminal lacks are escaped."""
    pairs = pd.read_csv(folder / "train.csv").assign(model_a="mod\u00e8le \u4e2d")
    pairs.to_csv(folder / "accents.csv", index=False)
    environment = {"PYTHONIOENCODING": encoding, "PYTHONUTF8": "0", "LC_ALL": "C"}
    done = shell("tiewise audit accents.csv", folder, **environment)
    assert done.returncode == 0, done.stderr
    again = shell("tiewise audit accents.csv --json", folder, **environment)
    assert json.loads(again.stdout)


def test_help_is_fast_and_has_examples(tmp_path):
    """Each help takes less than two seconds of CPU time, loads no torch, and shows examples."""
    program = """
import contextlib, io, json, sys, time
from tiewise.cli import COMMANDS, main
found = {}
for name in ["fit", *(command.__name__ for command in COMMANDS)]:
    out, started = io.StringIO(), time.process_time()
    with contextlib.redirect_stdout(out), contextlib.suppress(SystemExit):
        main([name, "--help"])
    lines = out.getvalue().splitlines()
    examples = [line.strip() for line in lines if line.startswith("  tiewise ")]
    found[name] = [examples, time.process_time() - started]
print(json.dumps([found, sorted({"torch", "pandas", "gradio"} & set(sys.modules))]))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    found, heavy = json.loads(done.stdout)
    for name, (examples, seconds) in found.items():
        assert examples, f"{name}: give examples in its docstring"
        assert any(line.startswith(f"tiewise {name}") for line in examples)
        assert seconds < 2
    assert heavy == []


@pytest.mark.parametrize("no_color", ["", "1"])
def test_no_color_gives_plain_help(folder, no_color):
    """On a terminal the help has bold text; with NO_COLOR it is plain."""
    line = f'script -qec "{sys.executable} -m tiewise --help" /dev/null'
    done = shell(line, folder, NO_COLOR=no_color, TERM="xterm")
    assert (b"\x1b[1m" in done.stdout) == (not no_color)


def test_every_adapter_has_a_card(here):
    """A fit writes a card with the scores of its fold, also for the feature model."""
    assert run("fit", "--preset", "baseline", "--data", "train.csv", "--run", "counted") == 0
    for name in ("base", "counted"):
        adapter = find_model(name, here / "artifacts")
        card = ModelCard((adapter / "README.md").read_text("utf-8"))
        scores = json.loads((adapter.parent / "scores.json").read_bytes())
        assert card.data.eval_results[0].metric_value == scores["log_loss"]["value"]
        assert card.data.eval_results[0].dataset_split == "fold 0, held out"


def test_demo_counts_truncation(here):
    """Truncated rows are counted, and a language model has different values for the two orders."""
    path = here / "artifacts" / "runs" / "base"
    found = judge_responses("Why?", ["one " * 400, "two " * 300, "three"], run=path)
    assert "of 3 rows were truncated" in found.truncation
    short = judge_responses("Why?", ["a", "b"], run=path)
    assert "Nothing was truncated; the longest row has" in short.truncation
    given, swapped = found.orders["A", "B"].iloc[:, 1:].astype(float).to_numpy()
    average = found.pairs[["prob_a", "prob_b", "prob_tie"]].to_numpy()[0]
    assert (given != swapped).any()
    np.testing.assert_allclose(average, (given + swapped) / 2, atol=2e-3)


def test_convert_counts_dropped_ties(here, capsys):
    """Csv and parquet keep all rows; a preference file drops ties, and the message counts them."""
    for suffix in ("parquet", "csv", "jsonl"):
        assert run("convert", "train.csv", "--out", f"converted.{suffix}") == 0
    n_ties = int(pd.read_csv("train.csv")["winner_tie"].sum())
    assert f"{60 - n_ties} of 60 rows, {n_ties} ties dropped" in capsys.readouterr().out
    assert len(read_pairs("converted.jsonl")) == 60 - n_ties
    assert run("convert", "test.csv", "--out", "test.parquet", "--unlabelled") == 0
    assert run("convert", "soft.csv", "--out", "soft.parquet") == 0
    assert run("convert", "train.csv", "--out", "converted.csv") == 2
    assert run("convert", "train.csv", "--out", "converted.xyz") == 2


def test_rewardbench_scores_any_predictions(here, capsys):
    """Predictions of any judge are joined by id and scored as on RewardBench."""
    pairs = read_pairs("train.csv")
    probs = {"prob_a": 0.6, "prob_b": 0.2, "prob_tie": 0.2}
    pd.DataFrame({"id": pairs["id"], **probs}).to_csv("judge.csv", index=False)
    line = "evaluate --data train.csv --predictions judge.csv --rewardbench --json"
    assert run(*line.split()) == 0
    decided = pairs[pairs["label"] < 2]
    found = json.loads(capsys.readouterr().out)
    assert found["overall"]["value"] == pytest.approx((decided["label"] == 0).mean())
    assert run("evaluate", "base", "--rewardbench") == 2


def test_doctor_lists_presets(here, capsys):
    """Each preset has an estimated speed, or the reason why it cannot run here."""
    assert run("doctor", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["versions"]["tiewise"] == tiewise.__version__
    assert "files" in found["room"]["cache"]
    assert set(found["presets"]) == set(PRESETS)
    assert "(estimated)" in found["presets"]["quickstart"]
    if found["devices"]["cuda"].startswith("none"):
        assert "needs CUDA" in found["presets"]["gemma2-9b"]
