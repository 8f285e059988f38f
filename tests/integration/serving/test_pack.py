"""The content of a packed folder; tests/newcomer installs one, with all its wheels."""

from __future__ import annotations

import ast
import json
import shutil

import nbformat
import pandas as pd
import pytest

from fitting import configure
from loaded_runs import open_tiny
from run_folders import fit_small
from tiewise import api
from tiewise.cli import main
from tiewise.data.simulation.simulate import simulate
from tiewise.errors import RunError
from tiewise.files import read_json, write_json
from tiewise.judges.judge import Judge
from tiewise.runs.folder import start_run
from tiewise.runs.manifest import MANIFEST
from tiewise.serving import pack, wheels
from tiewise.serving.check_pack import check
from tiewise.serving.pack import make_notebook

PAIRS = simulate(12, seed=4)


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory):
    """Return a folder with two runs and their blend."""
    folder = tmp_path_factory.mktemp("artifacts")
    runs = [fit_small(folder, name, seed=seed) for seed, name in enumerate(("one", "two"))]
    api.blend(runs, run="both", artifacts=folder)
    return folder


@pytest.fixture
def few_wheels(monkeypatch):
    """Take only small packages; return the requirements that were asked for."""
    asked = []

    def find_few(requirements, **options):
        asked.append((*requirements, options))
        return wheels.find_packages(["lazy-loader"])

    monkeypatch.setattr(pack, "find_packages", find_few)
    return asked


def test_blend_is_packed_with_members(artifacts, few_wheels, tmp_path):
    """The judge of a packed blend, from the copied folder alone, predicts as the one of here."""
    done = api.pack("both", tmp_path / "out", artifacts=artifacts)
    assert few_wheels == [("tiewise", {"left_out": {"torch"}})]
    moved = shutil.move(tmp_path / "out", tmp_path / "moved")
    about = check(moved)
    assert (about["run"], about["backbones"], done.n_wheels) == ("both", {}, 2)
    found = Judge.from_pretrained(moved / "artifacts" / "runs" / "both").predict(PAIRS)
    expected = Judge.from_pretrained("both", artifacts=artifacts).predict(PAIRS)
    pd.testing.assert_frame_equal(found, expected)


def test_only_what_predicts_is_packed(artifacts, few_wheels, tmp_path):
    """Unfinished folds, checkpoints, hidden files and reports with texts are left out."""
    run = shutil.copytree(artifacts / "runs" / "one", tmp_path / "a" / "runs" / "one")
    (run / "report.html").write_text("texts")
    (run / "fold0" / "checkpoints").mkdir()
    (run / "fold0" / "checkpoints" / "state.json").write_text("{}")
    (run / "fold0" / "adapter" / ".secret").touch()
    (run / "fold1" / "scores.json").unlink()
    api.pack("one", tmp_path / "out", artifacts=tmp_path / "a")
    names = {path.name for path in (tmp_path / "out" / "artifacts").rglob("*")}
    assert {"config.json", "oof.parquet", "feature_model.skops"} <= names
    assert not names & {"report.html", "checkpoints", ".secret", ".lock", "fold1"}


@pytest.mark.parametrize("name", ["./backbone", "someone/backbone"])
def test_backbone_is_packed(cache_dir, few_wheels, tmp_path, monkeypatch, name):
    """The weights of a folder are in the pack, under the name that the run knows."""
    opened = open_tiny("tiny", cache_dir, dtype="float32")
    monkeypatch.chdir(tmp_path)
    shutil.copytree(opened.backbone_dir, name)
    config = configure(dtype="float32", lora_r=4, backbone=name)
    run = start_run(tmp_path / "artifacts", config, name="first")
    opened.save(run.fold(0).adapter_dir)
    write_json(run.fold(0).scores_path, {})
    api.pack("first", "out")
    assert few_wheels == [("tiewise[train]", {"left_out": {"torch"}})]
    assert check("out")["backbones"] == {name: "backbones/0"}
    packed = {path.name for path in (tmp_path / "out" / "backbones" / "0").iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= packed


def test_changed_folders_are_refused(artifacts, few_wheels, tmp_path):
    """Every file of the manifest is compared by its digest, and so is the Python."""
    api.pack("one", tmp_path / "out", artifacts=artifacts)
    manifest = read_json(tmp_path / "out" / MANIFEST)
    listed = set(manifest["files"])
    own = {"manifest.json", "notebook.ipynb"}  # the notebook may be edited
    there = (path for path in (tmp_path / "out").rglob("*") if path.is_file())
    assert {path.relative_to(tmp_path / "out").as_posix() for path in there} == listed | own
    for name in sorted(listed):
        path = tmp_path / "out" / name
        data = path.read_bytes()
        path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        with pytest.raises(ValueError, match=f"{name} has changed"):
            check(tmp_path / "out")
        path.write_bytes(data)
    manifest["about"]["python"] = "Python 3.9 on win-amd64"
    write_json(tmp_path / "out" / MANIFEST, manifest)
    with pytest.raises(ValueError, match=r"packed for Python 3\.9 on win-amd64; this is Python 3"):
        check(tmp_path / "out")


def test_other_folders_are_kept(artifacts, few_wheels, tmp_path, capsys):
    """A folder is replaced only on request, and only if it is a pack."""
    command = ["pack", "one", "--artifacts", str(artifacts), "--out", str(tmp_path / "out")]
    assert main([*command, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["run"] == "one"
    assert main(command) == 2
    assert main([*command, "--overwrite"]) == 0
    (tmp_path / "out" / "check_pack.py").unlink()
    capsys.readouterr()
    assert main([*command, "--overwrite"]) == 2
    assert "has files but no check_pack.py, so it is not replaced" in capsys.readouterr().err


def test_run_without_folds_is_refused(tmp_path):
    """A run of which no fold is finished cannot predict."""
    start_run(tmp_path, configure("baseline"), name="new")
    with pytest.raises(RunError, match="no fold is finished"):
        api.pack("new", tmp_path / "out", artifacts=tmp_path)
    assert not (tmp_path / "out").exists()


def test_notebook_is_valid():
    """The notebook has the format of Jupyter, and its cells are programs."""
    notebook = make_notebook()
    nbformat.validate(nbformat.from_dict(notebook))
    kinds = [cell["cell_type"] for cell in notebook["cells"]]
    assert kinds[:2] == ["markdown", "code"]
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            ast.parse(cell["source"])
