"""Upload a model folder with its card to a repository on the Hugging Face hub."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from tiewise.config import BLEND
from tiewise.errors import ConfigError, RunError
from tiewise.evaluation.calibration import NO_CALIBRATION
from tiewise.judges.hub import describe_refusal, is_hub_name
from tiewise.runs.calibration import read_calibration
from tiewise.runs.folder import open_run
from tiewise.runs.manifest import MANIFEST, listed_files, verify_manifest

_CARD = "README.md"
_log = logging.getLogger(__name__)
_IGNORED = [".*", "**/.*", "checkpoints/**"]


def find_model(name: str, artifacts_dir: Path, *, fold: int | None = None) -> Path:
    """Return the folder to upload: one with a model card, or the adapter of a finished fold."""
    folder = Path(name)
    if (folder / _CARD).is_file():
        return folder
    run = open_run(name, artifacts_dir)
    if run.config.model.backbone == BLEND:
        raise RunError(f"{run.path} is a blend, which has no model of its own. Push its members.")
    if read_calibration(run) != NO_CALIBRATION:
        _log.warning("%s: its calibration is not uploaded: it is that of all folds.", run.name)
    return run.fold(run.choose_fold(fold)).adapter_dir


def push_folder(folder: Path, repo: str | None, *, is_public: bool = False) -> str:
    """Upload a folder to the repository OWNER/NAME and return its address.

    ConfigError is raised for a missing or malformed name, and RunError when the folder has no card
    or is damaged, or the hub refuses. A new repository is private unless `is_public` is true. In a
    repository with a model, this model's files are replaced and all others are kept.
    """
    if repo is None or not is_hub_name(repo):
        found = "" if repo is None else f", not {repo!r}"
        raise ConfigError(f"Name the repository: --repo OWNER/NAME{found}. Nothing was uploaded.")
    _check_folder(folder)
    try:
        return _upload(folder, repo, is_public=is_public)
    except ImportError as error:
        raise RunError("A push needs huggingface_hub: pip install 'tiewise[train]'.") from error
    except (OSError, ValueError) as error:
        raise RunError(
            f"{repo}: the hub refused the upload: {describe_refusal(error)} Check the network, and "
            "that you have a token (`hf auth login`) that may write there."
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
        delete_patterns=_pushed_before(hub, address.repo_id),  # but not those uploaded now
        commit_message="Upload by tiewise",
    )
    return str(address)


def _pushed_before(hub: Any, repo: str) -> list[str]:
    """Return the files of the model that is in a repository now.

    transformers would load an adapter that is left next to an export. Any other refusal of the hub
    than a missing manifest is an error: nothing is uploaded.
    """
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    try:
        return listed_files(Path(hub.hf_hub_download(repo, MANIFEST)).parent)
    except LocalEntryNotFoundError:  # the hub was not reached
        raise
    except EntryNotFoundError:
        return []
