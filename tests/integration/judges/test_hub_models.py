"""Models are pushed to a hub and loaded from it by the hub's own client, with a local server."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from hub_stub import Repo, run_with_hub, serve_hub
from loaded_runs import open_tiny
from run_folders import fit_small
from tiewise.data.formats import write_pairs
from tiewise.data.simulation.simulate import simulate
from tiewise.errors import ModelError
from tiewise.judges.judge import Judge
from tiewise.report.card import write_card
from tiewise.runs.manifest import write_manifest
from tiewise.serving.export import export_adapter

KINDS = ("features", "adapter", "export")
CARD = "---\nlicense: apache-2.0\n---\n# A model\n"
PAIRS = simulate(6, seed=7)
SCORE = """
import json, sys, tiewise as tw
for place in sys.argv[1:]:
    name, _, revision = place.partition("@")
    try:
        judge = tw.Judge.from_pretrained(name, revision=revision or None, device="cpu")
        print(json.dumps(judge.predict_proba("pairs.parquet").tolist()))
    except tw.ModelError as error:
        print(json.dumps(str(error)))
"""


@pytest.fixture(scope="module")
def place(cache_dir, tmp_path_factory):
    """Return a folder with a feature model, an adapter and its export, each with a card."""
    folder = tmp_path_factory.mktemp("pushed")
    write_pairs(PAIRS, folder / "pairs.parquet")
    run = fit_small(folder / "artifacts", "first")
    shutil.copytree(run.fold(0).adapter_dir, folder / "features")
    opened = open_tiny("tiny", cache_dir, dtype="float32")
    adapter = opened.save(folder / "adapter")
    write_manifest(adapter)
    (adapter / "README.md").write_text(CARD)
    (adapter / ".secret").write_text("token")
    export_adapter(adapter, opened.backbone_dir, folder / "export")
    write_card(folder / "export", run)
    return folder


@pytest.fixture(scope="module")
def hub(place):
    """Yield a hub to which each model was pushed; tests change only repositories of their own."""
    with serve_hub() as running:
        running.urls = [push(running, place, kind, f"me/{kind}") for kind in KINDS]
        yield running


def push(hub, place, model, repo):
    """Push a model with the command; return its address."""
    done = run_with_hub(hub, place, "-m", "tiewise", "push", model, "--repo", repo, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)["url"]


def load(hub, place, home, *names, **options):
    """Return the probabilities of repositories, or the messages, from another process."""
    shutil.copy(place / "pairs.parquet", home)
    done = run_with_hub(hub, home, "-c", SCORE, *names, **options)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def score_here(place, model):
    return Judge.from_pretrained(place / model, device="cpu").predict_proba(PAIRS)


def read(folder):
    """Return the visible files of a folder, bytes by path."""
    paths = [path for path in folder.rglob("[!.]*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


@pytest.mark.parametrize("model", KINDS)
def test_push_uploads_visible_files(hub, place, model):
    """A new private repository gets every file but hidden ones; large ones go through LFS."""
    repo = hub.repos[f"me/{model}"]
    files = read(place / model)
    assert {name: data for name, data in repo.files.items() if name != ".gitattributes"} == files
    assert repo.is_private
    assert f"{hub.address}/me/{model}" in hub.urls
    weights = [data for name, data in files.items() if name.endswith(".safetensors")]
    assert set(weights) <= {body for command, _, body in hub.asked if command == "PUT"}
    assert len(weights) == (model != "features")


def test_round_trip_is_exact(hub, place, tmp_path):
    """A downloaded model predicts exactly as the folder that was pushed."""
    found = load(hub, place, tmp_path, *(f"me/{model}" for model in KINDS))
    for model, probs in zip(KINDS, found, strict=True):
        np.testing.assert_array_equal(probs, score_here(place, model))
    [snapshot] = (tmp_path / "hf" / "hub").glob("models--me--features/snapshots/*")
    assert set(read(snapshot)) == {"feature_model.skops", "manifest.json"}


def test_push_replaces_the_model(hub, place, tmp_path):
    """Files of the model before are removed, others stay, and its commit can still be loaded."""
    hub.repos["me/new"] = repo = Repo(hub.repos["me/features"].files, is_private=False)
    old = repo.commit(repo.files | {"notes.md": b"ours", "code.py": b"1"})
    push(hub, place, "export", "me/new")
    assert set(repo.files) == {*read(place / "export"), ".gitattributes", "notes.md", "code.py"}
    found, message = load(hub, place, tmp_path, f"me/new@{old}", "me/new@v9")
    np.testing.assert_array_equal(found, score_here(place, "features"))
    assert "Invalid rev id: v9" in message


def test_downloaded_model_works_offline(hub, place, tmp_path):
    """After one download no network is needed; before it the message says so."""
    [message] = load(hub, place, tmp_path, "me/features", online=False)
    assert "me/features: there is no such run or folder" in message
    assert "HF_HUB_OFFLINE" in message
    expected = load(hub, place, tmp_path, "me/features")
    n_asked = len(hub.asked)
    assert load(hub, place, tmp_path, "me/features", online=False) == expected
    assert len(hub.asked) == n_asked


def test_other_repositories_are_refused(hub, place, tmp_path):
    """A changed or missing file is named, and so are a repository without a model, and no one."""
    good, name = hub.repos["me/features"].files, "feature_model.skops"
    bad = {
        "changed": good | {name: good[name] + b" "},
        "missing": {file: data for file, data in good.items() if file != name},
        "code": {file.replace("skops", "py"): data.replace(b"skops", b"py")
                 for file, data in good.items()},
        "other": {"config.json": b"{}"},
    }  # fmt: skip
    hub.repos |= {f"me/{kind}": Repo(files, is_private=False) for kind, files in bad.items()}
    expected = {
        "me/changed": f"{name} does not match manifest.json",
        "me/missing": f"{name} is missing",
        "me/code": "feature_model.py is missing, or can run code",
        "me/other": "me/other has no readable manifest.json",
        "me/nothing": "Repository Not Found",
        "me/features": "Repository Not Found",  # it is private, and there is no token
    }
    messages = load(hub, place, tmp_path, *expected, token="")
    for found, part in zip(messages, expected.values(), strict=True):
        assert part in found


def test_revision_needs_a_repository(place):
    """A revision with a folder, a run or a server is refused."""
    for name in ("shipped", place / "features", "vllm:http://127.0.0.1:1"):
        with pytest.raises(ModelError, match="revision is only used with a repository"):
            Judge.from_pretrained(name, revision="main")


def test_card_on_the_hub_has_its_facts(hub):
    """The front matter has the intervals of the scores, and nothing that is not known."""
    front = hub.repos["me/export"].files["README.md"].decode().split("---")[1]
    for line in ("license: apache-2.0", "- reward-model", "- preference", "low: 0."):
        assert line in front
    assert "base_model" not in front, "the small backbone is not on the hub"
