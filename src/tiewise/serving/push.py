"""Push a model folder with its card to the hub, under a given name."""

from __future__ import annotations

import re
from pathlib import Path

from tiewise.errors import ConfigError, RunError
from tiewise.runs.folder import RunFolder, open_run
from tiewise.runs.manifest import MANIFEST, verify_manifest

_CARD = "README.md"
_LEFT_OUT = (".*", "**/.*", "checkpoints/**")
_is_name = re.compile(r"\w[\w.-]*/\w[\w.-]*", re.ASCII).fullmatch


def find_model(name: str, artifacts_dir: Path, *, fold: int | None = None) -> Path:
    """Return the folder to upload: one that holds a model's card, or a fold's adapter of a run.

    Raises
    ------
    RunError
        When there is no such run or folder, or the fold is not finished or not named.
    """
    folder = Path(name)
    if (folder / _CARD).is_file():
        return folder
    run = open_run(name, artifacts_dir)
    return run.fold(_choose_fold(run, fold)).adapter_dir


def push_folder(folder: Path, repo: str | None, *, is_public: bool = False) -> str:
    """Upload a folder and return where it is.

    Parameters
    ----------
    folder
        With a model card.
    repo
        OWNER/NAME.
    is_public
        Who may see the repository, if it has to be made.

    Raises
    ------
    ConfigError
        When `repo` is None or not spelled so; nothing is guessed.
    RunError
        When the folder has no card or is damaged, or the hub refuses.
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
            f"{repo}: the hub did not take it: {reason} Is there a network, and a token "
            "(`hf auth login`) that may write there?"
        ) from error


def _choose_fold(run: RunFolder, fold: int | None) -> int:
    finished = run.finished_folds()
    if fold is None and len(finished) == 1:
        return finished[0]
    if fold is None or fold not in finished:
        listed = ", ".join(map(str, finished)) or "none"
        raise RunError(f"{run.path}: name a finished fold with --fold; finished: {listed}.")
    return fold


def _check_folder(folder: Path) -> None:
    if not (folder / _CARD).is_file():
        raise RunError(
            f"{folder} has no model card ({_CARD}); expected one that says what the model is. "
            "Fit again with huggingface_hub and jinja2 installed, or write it with "
            "tiewise.report.card.write_card."
        )
    if (folder / MANIFEST).is_file():
        damage = verify_manifest(folder, allow_extra_files=True)
        if damage is not None:
            raise RunError(f"{folder} is damaged: {damage}. Nothing was uploaded.")


def _upload(folder: Path, repo: str, *, is_public: bool) -> str:
    import huggingface_hub

    hub = huggingface_hub.HfApi()
    made = hub.create_repo(repo, private=not is_public, exist_ok=True)
    hub.upload_folder(
        repo_id=made.repo_id,
        folder_path=folder,
        ignore_patterns=list(_LEFT_OUT),
        commit_message="Upload by tiewise",
    )
    return str(made)
