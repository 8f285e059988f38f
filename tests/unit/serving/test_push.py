"""Nothing leaves this machine but what was asked for, to where it was asked."""

from __future__ import annotations

import pytest

from tiewise.cli import main
from tiewise.errors import ConfigError, RunError
from tiewise.runs.manifest import write_manifest
from tiewise.serving.push import find_model, push_folder


@pytest.fixture
def model(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "README.md").write_text("# A model\n")
    return folder


@pytest.mark.parametrize("repo", [None, "", "name", "a/b/c", "https://hub/a/b", "a/b c", "../b"])
def test_without_a_repository_nothing_is_uploaded(model, repo):
    """No name is guessed, neither from the run nor from whoever is logged in."""
    with pytest.raises(
        (ConfigError, RunError), match=r"Name the repository: --repo OWNER/NAME|hub"
    ):
        push_folder(model, repo)


def test_the_command_refuses_too(model, capsys):
    """Exit status 2, and the flag by name."""
    assert main(["push", str(model)]) == 2
    assert (
        "Name the repository: --repo OWNER/NAME. Nothing was uploaded." in capsys.readouterr().err
    )


def test_a_folder_without_a_card_is_refused(tmp_path):
    """A model without a card cannot be identified, so it is refused."""
    with pytest.raises(RunError, match="no model card"):
        push_folder(tmp_path, "me/model")


def test_a_damaged_folder_is_refused(model):
    """What a fit sealed must still hold."""
    (model / "weights").write_text("1")
    write_manifest(model)
    (model / "weights").write_text("2")
    with pytest.raises(RunError, match="damaged: weights does not match"):
        push_folder(model, "me/model")


def test_only_a_finished_fold_is_found(tmp_path, model):
    """A folder with a card is itself; anything else is the name of a run."""
    assert find_model(str(model), tmp_path) == model
    with pytest.raises(RunError, match="There is no run nowhere"):
        find_model("nowhere", tmp_path)


def test_without_a_hub_it_is_said_so(model):
    """Offline, or without the client: a message."""
    with pytest.raises(RunError, match=r"me/model: the hub did not take it|needs huggingface_hub"):
        push_folder(model, "me/model")
