"""Each test that a page names exists, and the table of promises names every torture test."""

import ast
import functools
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROMISES = ROOT / "docs" / "reliability-tests.md"
FAILURES = ROOT / "docs" / "known-failures.md"
_TEST = re.compile(r"`(?:tests/)?((?:\w+/)+\w+)\.py::(\w+)`")


def named_in(*pages):
    """Return (file, function) of the tests that pages name, sorted."""
    return sorted({pair for page in pages for pair in _TEST.findall(page.read_text("utf-8"))})


@functools.cache
def functions_in(path):
    """Return the names of all functions and classes of a file, methods included."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    kinds = ast.FunctionDef | ast.ClassDef
    return frozenset(node.name for node in ast.walk(tree) if isinstance(node, kinds))


@pytest.mark.parametrize(("file", "name"), named_in(*sorted((ROOT / "docs").rglob("*.md"))))
def test_named_test_exists(file, name):
    """A page is updated when a test that it names is renamed."""
    assert name in functions_in(ROOT / "tests" / f"{file}.py")


def test_every_torture_test_is_listed():
    """The table names every test in tests/torture."""
    for path in (ROOT / "tests" / "torture").glob("test_*.py"):
        assert f"torture/{path.stem}" in {file for file, _ in named_in(PROMISES)}, path.name


def test_each_failure_has_a_guard():
    """Each section of the known failures names a symptom, a cause and a test."""
    sections = re.split(r"^### ", FAILURES.read_text("utf-8"), flags=re.MULTILINE)[1:]
    assert len(sections) > 20
    for section in sections:
        for part in ("**Symptom.**", "**Cause.**", "**Guarded by**"):
            assert section.count(part) == 1, section.splitlines()[0]
        assert _TEST.search(section), section.splitlines()[0]
