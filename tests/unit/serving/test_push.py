"""Tests of the upload of a model folder."""

from __future__ import annotations

import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from run_folders import simulated_tables, write_run
from tiewise.cli import main
from tiewise.data.labels import LOGIT_COLUMNS
from tiewise.errors import ConfigError, RunError
from tiewise.evaluation.calibration import NO_CALIBRATION, calibrate
from tiewise.files import write_json
from tiewise.runs.calibration import save_calibration
from tiewise.runs.manifest import write_manifest
from tiewise.serving.push import _pushed_before, find_model, push_folder


@pytest.fixture
def model(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "README.md").write_text("# A model\n")
    return folder


@pytest.mark.parametrize("repo", [None, "", "name", "a/b/c", "https://hub/a/b", "a/b c", "../b"])
def test_missing_repository_is_refused(model, repo):
    """A repository without owner or name is refused; no name is guessed."""
    with pytest.raises(ConfigError, match="Name the repository: --repo OWNER/NAME"):
        push_folder(model, repo)


def test_command_refuses_missing_repository(model, capsys):
    """The exit status is 2, and the message names the flag."""
    assert main(["push", str(model)]) == 2
    assert (
        "Name the repository: --repo OWNER/NAME. Nothing was uploaded." in capsys.readouterr().err
    )


def test_folder_without_card_is_refused(tmp_path):
    """A folder without a model card is not uploaded."""
    with pytest.raises(RunError, match="no model card"):
        push_folder(tmp_path, "me/model")


def test_damaged_folder_is_refused(model):
    """A file that differs from the manifest is named."""
    (model / "weights").write_text("1")
    write_manifest(model)
    (model / "weights").write_text("2")
    with pytest.raises(RunError, match="damaged: weights does not match"):
        push_folder(model, "me/model")


def test_name_without_card_is_a_run(tmp_path, model):
    """A folder with a card is the model; any other name is that of a run."""
    assert find_model(str(model), tmp_path) == model
    with pytest.raises(RunError, match="There is no run nowhere"):
        find_model("nowhere", tmp_path)


def test_parts_of_runs_are_named(tmp_path, caplog):
    """A blend cannot be pushed, and a calibration of a run is reported as not uploaded."""
    folds, oof = simulated_tables(60)[1:]
    run = write_run(tmp_path, folds, oof, preset="baseline", is_scored=False)
    assert find_model("simulated", tmp_path, fold=1) == run.fold(1).adapter_dir
    assert not caplog.messages
    result = calibrate(oof["label"], oof[LOGIT_COLUMNS], groups=oof["group"])
    adopted = replace(result, adopted=replace(NO_CALIBRATION, method="bias", bias=(0.1, 0.0, 0.0)))
    save_calibration(run, adopted)
    find_model("simulated", tmp_path, fold=1)
    assert "simulated: its calibration is not uploaded" in caplog.text
    blend = replace(run.config, model=replace(run.config.model, backbone="blend"))
    write_json(run.config_path, blend.to_dict())
    with pytest.raises(RunError, match="is a blend, which has no model of its own"):
        find_model("simulated", tmp_path, fold=1)


def test_unreachable_hub_is_named(model):
    """The message names a missing network or a missing client."""
    with pytest.raises(RunError, match=r"me/model: the hub refused|needs huggingface_hub"):
        push_folder(model, "me/model")


@pytest.mark.parametrize("status", [404, 507])
def test_refused_manifest_is_no_new_repository(tmp_path, monkeypatch, status):
    """Only a missing manifest means that no model is to be replaced; a busy hub is an error."""
    hub = pytest.importorskip("huggingface_hub", "1.0")  # as of the extra `train`

    class Busy(BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.send_response(status)
            self.send_header("X-Error-Code", "EntryNotFound" if status == 404 else "")
            self.send_header("Content-Length", "0")
            self.end_headers()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Busy)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    api = hub.HfApi(endpoint=f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setattr(hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", False)
    try:
        if status == 404:
            assert _pushed_before(api, "me/model") == []
        else:
            with pytest.raises(OSError, match="on the Hub"):
                _pushed_before(api, "me/model")
    finally:
        server.shutdown()
        server.server_close()
