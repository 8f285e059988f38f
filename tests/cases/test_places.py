"""Runs in folders that cannot be written, and runs and data that were moved."""

import json
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

CAPABILITIES = ("--bounding-set", "--inh-caps")


@pytest.fixture
def folder(fitted, tmp_path, tiewise, monkeypatch):
    """Copy both runs and their data, and go to the folder above the data.

    The files that the fits read are not found, as on another machine.
    """
    shutil.copytree(fitted, tmp_path, dirs_exist_ok=True)
    for path in tmp_path.glob("art/runs/*/data.json"):
        path.write_text(path.read_text().replace(str(fitted), str(fitted / "gone")))
    monkeypatch.setenv("TIEWISE_ARTIFACTS", str(tmp_path / "art"))
    return tmp_path


@pytest.fixture
def empty_figures(monkeypatch):
    """Write reports without drawing, which takes most of their time."""
    monkeypatch.setattr(
        "tiewise.report.page.to_svg", lambda draw, name: b'<svg width="72pt"></svg>'
    )


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
    assert page.count("the texts are needed: name the data files of the run with --data") == 3
    assert tiewise("report", "told", "--data", "here/train.csv").errors == ""


@pytest.mark.usefixtures("empty_figures")
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


OBEDIENT = (
    READING[0],
    READING[4],
    READING[5],
    READING[6],
    ("report", "told"),
    ("predict", "--run", "told", "--data", "here/train.csv", "--out", "drop/out.csv"),
)
RUN_ALL = """
import contextlib, io, json, sys
from tiewise.cli import main
ended = []
for words in json.load(sys.stdin):
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as to:
        status = main(words)
    ended.append((status, to.getvalue()))
print(json.dumps(ended))
"""


@pytest.fixture(scope="module")
def obedient(fitted, tmp_path_factory):
    """Run commands in one process to which the modes of files apply, also when root tests.

    The runs cannot be written, and the folder `drop` can be written and not listed. Return the
    folder of all, and the status and messages of each command.
    """
    if not shutil.which("setpriv"):
        pytest.skip("needs setpriv, as root ignores modes")
    folder = shutil.copytree(fitted, tmp_path_factory.mktemp("obedient"), dirs_exist_ok=True)
    (folder / "drop").mkdir()
    art = folder / "art"
    modes = {path: path.stat().st_mode for path in (folder / "drop", art, *art.rglob("*"))}
    for path, mode in modes.items():
        path.chmod(mode & ~(stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH))
    (folder / "drop").chmod(0o300)
    try:
        return folder, dict(zip(OBEDIENT, run_obedient(folder), strict=True))
    finally:
        for path, mode in modes.items():
            path.chmod(mode)


def run_obedient(folder):
    """Run the commands in a folder, without the capabilities of root; return how they ended."""
    lists = [f"{name}=-dac_override,-dac_read_search" for name in CAPABILITIES]
    prefix = ["setpriv", *lists] if os.geteuid() == 0 else []
    variables = {**os.environ, "TIEWISE_ARTIFACTS": str(folder / "art")}
    done = subprocess.run(
        [*prefix, sys.executable, "-c", RUN_ALL],
        input=json.dumps(OBEDIENT), capture_output=True, text=True, cwd=folder, env=variables,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    return json.loads(done.stdout)


def test_read_only_run(obedient):
    """Case 14: a run that cannot be written is scored, compared and used; report asks for --out."""
    folder, ended = obedient
    for words in (READING[0], READING[4], READING[5], READING[6]):
        assert ended[words][0] == 0, ended[words]
    assert (folder / "page.html").stat().st_size > 10_000
    status, errors = ended["report", "told"]
    assert status == 2
    assert "told cannot be written: Permission denied. Name another place" in errors
    assert "--out report.html" in errors


def test_folder_that_cannot_be_listed(obedient):
    """A file that is written whole in a folder without read permission is a success."""
    folder, ended = obedient
    assert ended[OBEDIENT[-1]][0] == 0, ended[OBEDIENT[-1]]
    assert [path.name for path in (folder / "drop").iterdir()] == ["out.csv"]
    rows = (folder / "here" / "train.csv").read_text().splitlines()
    assert len((folder / "drop" / "out.csv").read_text().splitlines()) == len(rows)


@pytest.mark.usefixtures("empty_figures")
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


@pytest.mark.usefixtures("empty_figures")
def test_out_of_report_is_a_page(folder, tiewise):
    """The page goes to an .html file only, so no data file is replaced by mistake."""
    ended = tiewise("report", "told", "--out", "here/train.csv")
    assert ended.status == 2
    assert "--out is here/train.csv; expected a file that ends in .html" in ended.errors
    assert tiewise("report", "told", "--out", "new/page.html").status == 0
    assert tiewise("report", "told").status == 0
    page = folder / "art" / "runs" / "told" / "report.html"
    assert page.read_bytes() == (folder / "new" / "page.html").read_bytes()
