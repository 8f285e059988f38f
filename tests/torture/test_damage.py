"""Any damage to any file is detected, and no code in a file is executed."""

from __future__ import annotations

import json
import logging
import os
import pickle
import random
import shutil
import signal
from pathlib import Path

import pytest

from faults import copy_run, damages, fit, fit_to, fold_of, n_resumed, outcome, scaled, tiewise
from tiewise.errors import ModelError
from tiewise.models.backbones import resolve_backbone
from tiewise.models.pretrained import load_folds
from tiewise.runs import checkpoints
from tiewise.runs.manifest import verify_manifest

pytestmark = pytest.mark.timeout(3600)

SEED = int(os.environ.get("TIEWISE_SEED", "0"))
N_BITS = scaled(quick=6, full=40)
N_RESUMED = n_resumed(quick=2, full=1000)


# ---- checkpoints ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def broken(workplace):
    """Kill a fit that has two checkpoints; return them, newest first."""
    process = fit_to(workplace, "broken", 13)
    process.send(signal.SIGKILL)
    process.end()
    found = checkpoints.list_checkpoints(fold_of(workplace, "broken").checkpoints_dir)
    newest, before = [path for path in reversed(found) if verify_manifest(path) is None][:2]
    return newest, before


def damages_of(newest: Path, before: Path):
    """Return (name, damage to a checkpoint) for every file of the newest checkpoint."""
    found = []
    for path in sorted(newest.iterdir()):
        for kind, damage in damages(path, N_BITS, SEED):
            found.append((f"{path.name} {kind}", _to_file(path.name, damage)))
        other = before / path.name
        found.append((f"{path.name} of another step", _to_file(path.name, _copy_from(other))))
    found.append(("another step under its name", lambda folder: _replace(folder, before)))
    found.append(("a pickle next to it", lambda folder: (folder / "optimizer.pt").write_bytes(b"")))
    found.append(("nothing in it", lambda folder: (shutil.rmtree(folder), folder.mkdir())))
    found.append(("a file of its name", lambda folder: (shutil.rmtree(folder), folder.touch())))
    return found


def _to_file(name, damage):
    return lambda folder: damage(folder / name)


def _copy_from(source):
    return lambda path: shutil.copyfile(source, path)


def _replace(folder, source):
    shutil.rmtree(folder)
    shutil.copytree(source, folder)


def test_damaged_checkpoint_is_skipped(broken, tmp_path, caplog):
    """For each damage the newest is skipped with a message, and the previous one is used."""
    newest, before = broken
    for number, (name, damage) in enumerate(damages_of(newest, before)):
        folder = tmp_path / str(number)
        for checkpoint in broken:
            shutil.copytree(checkpoint, folder / checkpoint.name)
        damage(folder / newest.name)
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            assert checkpoints.newest_intact(folder) == folder / before.name, name
        assert f"{newest.name} is skipped: " in caplog.text, name
        shutil.rmtree(folder)
    print(f"{number + 1} damages to a checkpoint seen")  # noqa: T201 - the campaign's count


def test_fit_resumes_from_previous_checkpoint(workplace, undisturbed, broken):
    """Adapter, predictions and history equal those of the uninterrupted fit."""
    newest, before = broken
    every = damages_of(newest, before)
    *files, last = every  # the last one once failed when the fit saved that step again
    chosen = files if len(files) <= N_RESUMED else random.Random(SEED).sample(files, N_RESUMED)
    for name, damage in [*chosen, last]:
        shutil.rmtree(fold_of(workplace, "damaged").path.parent, ignore_errors=True)
        fold = copy_run(workplace, "broken", "damaged")
        damage(fold.checkpoints_dir / newest.name)
        resumed = fit(workplace, "damaged", "--resume")
        assert resumed.end() == 0, (name, resumed.messages())
        assert f"{newest.name} is skipped: " in resumed.messages(), name
        assert f"resuming from {_relative(fold, before)}" in resumed.messages(), name
        assert outcome(workplace, "damaged") == undisturbed, name
    print(f"{len(chosen)} of them resumed, bit-identical")  # noqa: T201


def test_fit_without_intact_checkpoint_restarts(workplace, undisturbed, broken):
    """If all are damaged, the fit says that it starts at step 0, and the result is the same."""
    fold = copy_run(workplace, "broken", "hopeless")
    for checkpoint in checkpoints.list_checkpoints(fold.checkpoints_dir):
        (checkpoint / "state.safetensors").unlink(missing_ok=True)
    resumed = fit(workplace, "hopeless", "--resume")
    assert resumed.end() == 0, resumed.messages()
    assert "starting at step 0" in resumed.messages()
    assert outcome(workplace, "hopeless") == undisturbed


def _relative(fold, checkpoint):
    folder = fold.checkpoints_dir
    return Path(*folder.parts[folder.parts.index("artifacts") :]) / checkpoint.name


# ---- adapters and cached backbones ----------------------------------------------------------


@pytest.fixture(scope="module")
def backbone_dir(workplace):
    """Return the folder of the backbone of all runs."""
    return resolve_backbone("tiny:0", cache_dir=workplace / "artifacts" / "cache")


def test_damaged_adapter_is_refused(workplace, backbone_dir, tmp_path):
    """A fold with any damaged file is refused, except its model card."""
    adapter_dir = fold_of(workplace, "straight").adapter_dir
    load_folds([adapter_dir], backbone_dir)
    n_refused = 0
    read = {path for path in adapter_dir.iterdir() if path.name != "README.md"}
    for path in sorted(read):
        for kind, damage in damages(path, N_BITS, SEED):
            copy = shutil.copytree(adapter_dir, tmp_path / "copy")
            damage(copy / path.name)
            with pytest.raises(ModelError, match="is damaged") as refused:
                load_folds([copy], backbone_dir)
            assert path.name in str(refused.value), (path.name, kind)
            shutil.rmtree(copy)
            n_refused += 1
    print(f"{n_refused} damages to an adapter refused")  # noqa: T201


def test_damaged_cached_backbone_is_repaired(tmp_path, caplog):
    """The backbone is built again with a message, and has the same bytes."""
    folder = resolve_backbone("tiny:0", cache_dir=tmp_path)
    whole = {path.name: path.read_bytes() for path in folder.iterdir()}
    n_repaired = 0
    for name, content in sorted(whole.items()):
        for kind, damage in damages(folder / name, N_BITS, SEED):
            damage(folder / name)
            caplog.clear()
            with caplog.at_level(logging.WARNING):
                assert resolve_backbone("tiny:0", cache_dir=tmp_path) == folder
            assert f"{folder} is made again: " in caplog.text, (name, kind)
            assert (folder / name).read_bytes() == content, (name, kind)
            n_repaired += 1
    assert {path.name for path in folder.iterdir()} == set(whole)
    print(f"{n_repaired} damages to a cached backbone repaired")  # noqa: T201


# ---- the files of a run ---------------------------------------------------------------------

RUN_FILES = (
    *("config.json", "data.json", "folds.parquet", "fold0/fingerprint.json"),
    *("env.json", "oof.parquet", "scores.json"),
    *("fold0/oof.parquet", "fold0/scores.json", "fold0/history.jsonl"),
)[: scaled(quick=4, full=10)]
CONTENTS = {
    "removed": None,
    "empty": b"",
    "not JSON": b'{"a": [1, ',
    "a list": b"[1, 2]",
    "an empty object": b"{}",
    "deep": b"[" * 100_000,
    "not UTF-8": b"\xff\xfe\x00",
}


@pytest.mark.parametrize("name", RUN_FILES)
def test_damaged_run_gives_messages(workplace, name):
    """For any content of any file of a run, each command ends with a result or a message."""
    commands = [
        ["evaluate", "worn"],
        ["compare", "worn", "straight"],
        ["fit", "--preset", "tiny", "--data", "train.csv", "--run", "worn", "--resume"],
    ]
    chosen = CONTENTS if scaled(quick=0, full=1) else {"not JSON": CONTENTS["not JSON"]}
    for kind, content in chosen.items():
        for command in commands:
            shutil.rmtree(fold_of(workplace, "worn").path.parent, ignore_errors=True)
            run_dir = copy_run(workplace, "straight", "worn").path.parent
            (run_dir / name).unlink()
            if content is not None:
                (run_dir / name).write_bytes(content)
            process = tiewise(workplace, *command)
            assert process.end() in {0, 2}, (kind, command, process.messages())
            assert "Traceback" not in process.messages(), (kind, command, process.messages())


# ---- files that could run code --------------------------------------------------------------

PICKLES = (
    *("adapter_model.bin", "optimizer.pt", "scheduler.pt", "training_args.bin", "rng_state.pth"),
    *("pytorch_model.bin", "model.pkl", "output.pkl", "scaler.pt"),
)


class Payload:
    """Makes a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.fixture
def bomb(tmp_path):
    """Give a pickle that makes a folder when it is read, and check that no test made it."""
    trace = tmp_path / "went_off"
    content = pickle.dumps(Payload(trace))
    pickle.loads(content)
    trace.rmdir()
    yield content
    assert not trace.exists()


def plant(folder: Path, content: bytes) -> None:
    """Put the pickle into a folder under every name that a program might read."""
    for name in PICKLES:
        (folder / name).write_bytes(content)


def test_pickle_in_checkpoint_is_not_read(workplace, undisturbed, broken, bomb):
    """The checkpoint is skipped, the fit resumes from the previous one, nothing is executed."""
    newest, _ = broken
    fold = copy_run(workplace, "broken", "mined")
    plant(fold.checkpoints_dir / newest.name, bomb)
    plant(fold.checkpoints_dir, bomb)
    plant(fold.path, bomb)
    resumed = fit(workplace, "mined", "--resume")
    assert resumed.end() == 0, resumed.messages()
    assert "is not in manifest.json" in resumed.messages()
    assert outcome(workplace, "mined") == undisturbed


@pytest.mark.parametrize("name", PICKLES)
def test_pickle_in_adapter_is_refused(workplace, backbone_dir, tmp_path, bomb, name):
    """The message names the file."""
    copy = shutil.copytree(fold_of(workplace, "straight").adapter_dir, tmp_path / "copy")
    (copy / name).write_bytes(bomb)
    with pytest.raises(ModelError, match=name):
        load_folds([copy], backbone_dir)


def test_pickle_in_cache_is_not_read(workplace, undisturbed, bomb):
    """Pickles next to tokens or cached weights, also under joblib's own names, are ignored."""
    shutil.copytree(workplace / "artifacts" / "cache", workplace / "mined" / "cache")
    for folder in [path for path in (workplace / "mined" / "cache").rglob("*") if path.is_dir()]:
        plant(folder, bomb)
    process = tiewise(
        workplace, "fit", "--preset", "tiny", "--data", "train.csv", "--run", "r",
        "--artifacts", "mined",
    )  # fmt: skip
    assert process.end() == 0, process.messages()
    shutil.copytree(workplace / "mined" / "runs" / "r", workplace / "artifacts" / "runs" / "r")
    assert outcome(workplace, "r") == undisturbed


def test_backbone_folder_runs_no_code(workplace, backbone_dir, tmp_path, bomb):
    """Pickles, Python files, adapter files and false shards in it are not executed."""
    folder = shutil.copytree(backbone_dir, tmp_path / "backbone")
    plant(folder, bomb)
    config = json.loads((folder / "config.json").read_bytes())
    config["auto_map"] = {
        "AutoConfig": "evil.EvilConfig",
        "AutoModelForSequenceClassification": "evil.EvilModel",
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "evil.py").write_text(f"import os\nos.mkdir({str(tmp_path / 'went_off')!r})\n")
    adapter = {"peft_type": "LORA", "base_model_name_or_path": str(folder), "r": 4}
    (folder / "adapter_config.json").write_text(json.dumps(adapter))
    process = fit(workplace, "lured", "--backbone", str(folder))
    assert process.end() in {0, 2}, process.messages()
    assert "Traceback" not in process.messages()
    weights = {"weight_map": {"model.norm.weight": "pytorch_model.bin"}, "metadata": {}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(weights))
    (folder / "model.safetensors").rename(folder / "other.safetensors")
    process = fit(workplace, "lured_again", "--backbone", str(folder))
    assert process.end() == 2, process.messages()
    assert "Traceback" not in process.messages()
