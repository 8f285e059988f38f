"""Runs in folders that cannot be written, and runs and data that were moved."""

import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tiewise.cli import main

TRAIN = "07-report-without-texts/train.csv"
FIT = ("fit", "--preset", "baseline", "--n-splits", "2", "--folds", "all")
CAPABILITIES = ("--bounding-set", "--inh-caps")


@pytest.fixture(scope="module")
def fitted(tmp_path_factory, request):
    """Fit two runs in the folder `here`, to a file that is named as seen from there."""
    folder = tmp_path_factory.mktemp("fitted")
    (folder / "here").mkdir()
    shutil.copy(request.path.parent / "data" / TRAIN, folder / "here")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder / "here")
        patch.setenv("TIEWISE_ARTIFACTS", str(folder / "art"))
        for run, seed in (("told", "0"), ("other", "1")):
            assert main([*FIT, "--data", "train.csv", "--run", run, "--seed", seed]) == 0
    return folder


@pytest.fixture
def folder(fitted, tmp_path, tiewise, monkeypatch):
    """Copy both runs and their data, and go to the folder above the data."""
    shutil.copytree(fitted, tmp_path, dirs_exist_ok=True)
    monkeypatch.setenv("TIEWISE_ARTIFACTS", str(tmp_path / "art"))
    return tmp_path


def contents(folder):
    """Return the path, content and time of every file."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


def test_report_without_texts(folder, tiewise):
    """Case 07: the sections that need texts are left out, and one line says so."""
    ended = tiewise("report", "told")
    assert ended.status == 0
    assert ended.errors.count("\n") == 1
    assert "The texts of told are not used; name its files with --data: train.csv" in ended.errors
    page = Path(ended.output.strip()).read_text()
    assert "Costliest errors" in page
    assert page.count("the texts are needed: name the data files of the run with --data") == 2
    assert tiewise("report", "told", "--data", "here/train.csv").errors == ""


@pytest.mark.parametrize("change", ["other rows", "other order", "not pairs", "a folder"])
def test_changed_texts_are_not_used(folder, tiewise, monkeypatch, change):
    """Data that are no longer those of the run give no texts, and are refused by --data."""
    monkeypatch.chdir(folder / "here")
    lines = Path("train.csv").read_text().splitlines(keepends=True)
    if change == "other rows":
        Path("train.csv").write_text("".join(lines[:-1]))
    elif change == "other order":
        Path("train.csv").write_text("".join([lines[0], *lines[:0:-1]]))
    elif change == "not pairs":
        Path("train.csv").write_text("a,b\n1,2\n")
    else:
        Path("train.csv").unlink()
        Path("train.csv").mkdir()
    for words in (("report", "told"), ("evaluate", "told", "--by-slice")):
        ended = tiewise(*words)
        assert ended.status == 0
        assert "texts" in ended.errors
        ended = tiewise(*words, "--data", "train.csv")
        assert ended.status == 2
        assert "train.csv" in ended.errors


READING = (
    ("evaluate", "told"),
    ("evaluate", "told", "--by-slice"),
    ("evaluate", "told", "--by-slice", "--data", "here/train.csv"),
    ("leaderboard", "told", "--data", "here/train.csv"),
    ("compare", "told", "other"),
    ("report", "told", "--out", "page.html"),
    ("predict", "--run", "told", "--data", "here/train.csv", "--out", "out.csv"),
    ("predict", "--run", "told", "--data", "here/train.csv", "--out", "o.parquet", "--out-of-fold"),
)


@pytest.mark.parametrize("words", READING, ids=lambda words: f"{words[0]} {words[-1]}")
def test_reading_writes_nothing(folder, tiewise, words):
    """A command that reads a run leaves the artifacts folder as it is, locks included."""
    for lock in (folder / "art").rglob(".lock"):
        lock.unlink()
    before = contents(folder / "art")
    assert tiewise(*words).status in ({0, 2} if words[0] == "leaderboard" else {0})
    assert contents(folder / "art") == before


@pytest.mark.skipif(not shutil.which("setpriv"), reason="needs setpriv, as root ignores modes")
def test_read_only_run(folder):
    """Case 14: a run that cannot be written is scored, compared and used; report asks for --out."""
    art = shutil.move(folder / "art", folder / "mounted")
    modes = {path: path.stat().st_mode for path in (Path(art), *Path(art).rglob("*"))}
    for path, mode in modes.items():
        path.chmod(mode & ~(stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH))
    try:
        for words in (READING[0], READING[4], READING[5], READING[6]):
            ended = run_obedient(words, art)
            assert ended.returncode == 0, ended.stderr
        assert (folder / "page.html").stat().st_size > 10_000
        refused = run_obedient(("report", "told"), art)
        assert refused.returncode == 2
        assert "told cannot be written: Permission denied. Name another place" in refused.stderr
        assert "--out report.html" in refused.stderr
    finally:
        for path, mode in modes.items():
            path.chmod(mode)


def run_obedient(words, art):
    """Run a command as a user to whom the modes of files apply."""
    lists = [f"{name}=-dac_override,-dac_read_search" for name in CAPABILITIES]
    prefix = ["setpriv", *lists] if os.geteuid() == 0 else []
    command = [*prefix, sys.executable, "-m", "tiewise", *words]
    variables = {**os.environ, "TIEWISE_ARTIFACTS": str(art)}
    return subprocess.run(command, capture_output=True, text=True, env=variables, check=False)


@pytest.mark.parametrize("place", ["renamed", "linked", "inside", "copied"])
def test_moved_run(folder, tiewise, monkeypatch, place):
    """A run is the same wherever its folder is, and by whichever path it is named."""
    expected = tiewise("evaluate", "told", "--json").output
    run = folder / "art" / "runs" / "told"
    name = "elsewhere/of another name"
    if place == "renamed":
        (folder / "elsewhere").mkdir()
        run.rename(folder / name)
    elif place == "linked":
        (folder / "elsewhere").mkdir()
        (folder / name).symlink_to(run)
    elif place == "copied":
        shutil.copytree(run, folder / name)
    else:
        monkeypatch.chdir(run)
        name = "."
    assert tiewise("evaluate", name, "--json").output == expected
    words = ("--run", name, "--data", folder / "here" / "train.csv", "--out", folder / "out.csv")
    assert tiewise("predict", *words).status == 0
    assert tiewise("report", name, "--out", folder / "page.html").status == 0


def test_out_of_report_is_a_page(folder, tiewise):
    """The page goes to an .html file only, so no data file is replaced by mistake."""
    ended = tiewise("report", "told", "--out", "here/train.csv")
    assert ended.status == 2
    assert "--out is here/train.csv; expected a file that ends in .html" in ended.errors
    assert tiewise("report", "told", "--out", "new/page.html").status == 0
    assert tiewise("report", "told").status == 0
    page = folder / "art" / "runs" / "told" / "report.html"
    assert page.read_bytes() == (folder / "new" / "page.html").read_bytes()


@pytest.mark.skipif(not shutil.which("setpriv"), reason="needs setpriv, as root ignores modes")
def test_folder_that_cannot_be_listed(folder):
    """A file that is written whole in a folder without read permission is a success."""
    out_dir = folder / "drop"
    out_dir.mkdir()
    out_dir.chmod(0o300)
    try:
        words = ("--run", "told", "--data", "here/train.csv", "--out", "drop/out.csv")
        ended = run_obedient(("predict", *words), folder / "art")
        assert ended.returncode == 0, ended.stderr
        assert "Traceback" not in ended.stderr
    finally:
        out_dir.chmod(0o700)
    assert [path.name for path in out_dir.iterdir()] == ["out.csv"]
    assert len((out_dir / "out.csv").read_text().splitlines()) > 50
