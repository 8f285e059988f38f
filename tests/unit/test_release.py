"""Release metadata: tested lower bounds of dependencies, and one version."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import tiewise

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
UNTESTED = {"demo", "ray", "serve", "train"}
"""Extras whose lower bounds are not tested: the tests have one build of torch, and the
sessions of the pages, servers and clusters install one version of gradio, fastapi and ray."""


def _named(requirement: str) -> tuple[str, str]:
    name, floor = re.fullmatch(r"([\w-]+)\s*(?:>=|==)\s*([\w.]+)", requirement).groups()
    return name.lower().replace("-", "_"), floor


def test_minimums_match_the_project():
    """`constraints-minimums.txt` pins each lower bound of pyproject.toml, and nothing else."""
    extras = [
        requirement
        for name, requirements in PROJECT["optional-dependencies"].items()
        if name not in UNTESTED
        for requirement in requirements
    ]
    declared = dict(map(_named, [*PROJECT["dependencies"], *extras]))
    lines = (ROOT / "constraints-minimums.txt").read_text("utf-8").splitlines()
    pinned = dict(_named(line) for line in lines if not line.startswith("#"))
    assert pinned == declared


def test_version_is_written_once():
    """The version is in ``__init__.py``, where pyproject.toml reads it."""
    assert PROJECT["dynamic"] == ["version"]
    source = (ROOT / "src" / "tiewise" / "__init__.py").read_text("utf-8")
    assert re.findall(r'^__version__ = "([\w.]+)"$', source, re.MULTILINE) == [tiewise.__version__]


def test_supported_pythons_are_tested():
    """The classifiers name the versions that the session `pythons` runs."""
    said = re.findall(r"Python :: (3\.\d+)", " ".join(PROJECT["classifiers"]))
    session = re.search(r"python=\[([^\]]*)\]\)\ndef pythons", (ROOT / "noxfile.py").read_text())
    assert re.findall(r"[\d.]+", session[1]) == said
