"""Completion in a real bash: commands, flags, presets, runs and files."""

import shutil
import subprocess

import pytest

from tiewise.cli import COMMANDS, main
from tiewise.config import PRESETS

BASH = shutil.which("bash")
COMPLETE = """
source complete.sh
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMP_LINE="$*"; COMP_POINT=${#COMP_LINE}
read -r _ _ _ _ function _ < <(complete -p tiewise)
"$function"; printf '%s\\n' "${COMPREPLY[@]}"
"""
OF_RUNS = ["compare", "evaluate", "export", "leaderboard", "pack", "push", "report", "blend"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return a folder with the script, two runs, and a run in another artifacts folder."""
    folder = tmp_path_factory.mktemp("here")
    for path in ("artifacts/runs/first", "artifacts/runs/first try", "other/runs/old"):
        (folder / path).mkdir(parents=True)
        (folder / path / "config.json").write_text("{}")
    (folder / "artifacts" / "runs" / "notes").mkdir()
    (folder / "mine.toml").touch()
    return folder


@pytest.fixture
def completions(folder, capsys):
    """Return a function from typed words to the set of completions; the last may be empty."""
    if BASH is None:
        pytest.skip("bash is not installed")
    if not (folder / "complete.sh").is_file():
        with pytest.raises(SystemExit):
            main(["--tyro-print-completion", "bash"])
        (folder / "complete.sh").write_text(capsys.readouterr().out)

    def complete(*words, **variables):
        done = subprocess.run(
            [BASH, "-c", COMPLETE, "bash", "tiewise", *words],
            cwd=folder, env={"PATH": "/usr/bin:/bin", **variables}, capture_output=True, text=True,
            check=True,
        )  # fmt: skip
        assert not done.stderr
        return set(done.stdout.splitlines()) - {""}

    return complete


def test_commands_and_flags_are_completed(completions):
    """Commands, flags and fixed choices; `help` is followed by a command."""
    names = {"fit", *(command.__name__ for command in COMMANDS)}
    assert completions("") >= names
    assert completions("help", "") == names
    assert completions("aud") == {"audit"}
    assert completions("audit", "--js") == {"--json"}
    assert completions("fit", "--device", "c") == {"cpu", "cuda"}
    assert completions("runs", "") == {"list", "show", "rm"}
    assert completions("predict", "--swap", "--ou") == {"--out", "--output", "--out-of-fold"}


def test_presets_are_completed(completions):
    """--preset is followed by a preset or a TOML file."""
    assert completions("fit", "--preset", "") == {*PRESETS, "mine.toml"}
    assert completions("fit", "--preset", "q") == {"quickstart"}
    assert completions("fit", "--preset", "=", "gem") == {"gemma2-9b"}


@pytest.mark.parametrize("command", OF_RUNS)
def test_runs_are_completed(completions, command):
    """Commands of runs are followed by runs: folders with a configuration."""
    assert completions(command, "f") == {"first", "first try"}
    assert completions(command, "--js") in ({"--json"}, set())


def test_runs_of_flags_are_completed(completions):
    """--run and further names are runs too, of the artifacts folder that is named."""
    assert completions("predict", "--run", "") == {"first", "first try"}
    assert completions("compare", "first", "") == {"first", "first try"}
    assert completions("runs", "rm", "first", "f") == {"first", "first try"}
    assert completions("predict", "--artifacts", "other", "--run", "") == {"old"}
    assert completions("predict", "--artifacts", "=", "other", "--run", "=") == {"old"}
    assert completions("evaluate", "", TIEWISE_ARTIFACTS="other") == {"old"}


@pytest.mark.parametrize("name", sorted({"fit", *(command.__name__ for command in COMMANDS)}))
def test_words_of_helps_are_not_offered(completions, name):
    """After a command and ``--`` every candidate is a flag, never a line of a description."""
    found = completions(name, "--")
    assert {"--help"} <= found
    assert all(word.startswith("--") and " " not in word for word in found), found


def test_other_words_are_files(completions, folder):
    """Where there is no completion, bash completes files."""
    assert completions("evaluate", "--predictions", "mi") == {"mine.toml"}
    assert completions("audit", "mi") == completions("fit", "--data", "mi") == set()
    script = (folder / "complete.sh").read_text()
    assert script.strip().splitlines()[-1] == "complete -o default -F _tiewise tiewise"


@pytest.mark.parametrize("words", [["fish2"], [], ["bash", "x"]])
def test_unknown_shell_is_refused(capsys, words):
    """The message lists the shells."""
    assert main(["--tyro-print-completion", *words]) == 2
    assert "bash, zsh, tcsh" in capsys.readouterr().err
