"""Download a model that ``tiewise push`` uploaded to the Hugging Face hub."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from tiewise.errors import ModelError, missing_extra
from tiewise.runs.manifest import MANIFEST, listed_files

_CODE = ["*.py", "*.bin", "*.pt", "*.pth", "*.pkl", "*.pickle", "*.ckpt", "*.joblib"]
is_hub_name = re.compile(r"\w[\w.-]*/\w[\w.-]*", re.ASCII).fullmatch


def download_model(repo: str, revision: str | None = None) -> Path:
    """Return the local folder with the model of a repository.

    `revision` is a branch, a tag or the id of a commit; None means the newest version. Only files
    that the manifest names are downloaded, and none that can run code. Without a network the
    version of the last download is used. ModelError is raised when the hub does not provide it.
    """
    folder = _fetch(repo, revision, [MANIFEST])
    files = listed_files(folder)
    if not files:
        raise ModelError(
            f"{repo} has no readable {MANIFEST}, so it is no model of tiewise; expected a "
            "repository that tiewise push wrote."
        )
    _fetch(repo, folder.name, files)  # by its commit: another may be pushed meanwhile
    missing = [name for name in files if not (folder / name).is_file()]
    if missing:
        raise ModelError(
            f"{repo} at revision {folder.name} is damaged: {missing[0]} is missing, or can run "
            "code. Push the model again."
        )
    return folder


def _fetch(repo: str, revision: str | None, files: Sequence[str]) -> Path:
    """Return the folder of a commit, with the named files in it."""
    try:
        import huggingface_hub
    except ModuleNotFoundError as error:
        what = f"{repo} is no run or folder here; a repository of the hub"
        raise missing_extra(what, error) from error
    try:
        folder = huggingface_hub.snapshot_download(
            repo, revision=revision, allow_patterns=list(files), ignore_patterns=_CODE
        )
    except (OSError, ValueError) as error:
        raise ModelError(
            f"{repo}: there is no such run or folder, and the hub did not provide it: "
            f"{describe_refusal(error)} Check the name and the network. A gated or private "
            "repository needs `hf auth login` first."
        ) from error
    return Path(folder)


def describe_refusal(error: Exception) -> str:
    """Return the message of an error of the hub's client on one line."""
    return " ".join(str(error).split()) or repr(error)
