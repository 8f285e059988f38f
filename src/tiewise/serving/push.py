"""Upload a model folder with its card to a repository on the Hugging Face hub."""

from __future__ import annotations

import re
from pathlib import Path

from tiewise.errors import ConfigError, RunError
from tiewise.runs.folder import open_run
from tiewise.runs.manifest import MANIFEST, verify_manifest

_CARD = "README.md"
_IGNORED = [".*", "**/.*", "checkpoints/**"]
_is_name = re.compile(r"\w[\w.-]*/\w[\w.-]*", re.ASCII).fullmatch


def find_model(name: str, artifacts_dir: Path, *, fold: int | None = None) -> Path:
    """Return the folder to upload: one with a model card, or the adapter of a finished fold."""
    folder = Path(name)
    if (folder / _CARD).is_file():
        return folder
    run = open_run(name, artifacts_dir)
    return run.fold(run.choose_fold(fold)).adapter_dir


def push_folder(folder: Path, repo: str | None, *, is_public: bool = False) -> str:
    """Upload a folder to the repository OWNER/NAME and return its address.

    ConfigError is raised for a missing or malformed name, and RunError when the folder has no card
    or is damaged, or the hub refuses. A new repository is private unless `is_public` is true.
    """
    if repo is None or not _is_name(repo):
        found = "" if repo is None else f", not {repo!r}"
        raise ConfigError(f"Name the repository: --repo OWNER/NAME{found}. Nothing was uploaded.")
    _check_folder(folder)
    try:
        return _upload(folder, repo, is_public=is_public)
    except ImportError as error:
        raise RunError("A push needs huggingface_hub: pip install 'tiewise[train]'.") from error
    except (OSError, ValueError) as error:
        reason = (str(error).strip().splitlines() or [repr(error)])[0]
        raise RunError(
            f"{repo}: the hub refused the upload: {reason} Check the network, and that you have a "
            "token (`hf auth login`) that may write there."
        ) from error


def _check_folder(folder: Path) -> None:
    if not (folder / _CARD).is_file():
        raise RunError(
            f"{folder} has no model card ({_CARD}). Fit again with huggingface_hub and jinja2 "
            "installed, or write it with tiewise.report.card.write_card."
        )
    if (folder / MANIFEST).is_file():
        damage = verify_manifest(folder, allow_extra_files=True)
        if damage is not None:
            raise RunError(f"{folder} is damaged: {damage}. Nothing was uploaded.")


def _upload(folder: Path, repo: str, *, is_public: bool) -> str:
    import huggingface_hub

    hub = huggingface_hub.HfApi()
    address = hub.create_repo(repo, private=not is_public, exist_ok=True)
    hub.upload_folder(
        repo_id=address.repo_id,
        folder_path=folder,
        ignore_patterns=_IGNORED,
        commit_message="Upload by tiewise",
    )
    return str(address)
