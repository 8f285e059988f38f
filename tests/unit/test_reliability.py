"""Each test that docs/reliability.md names exists."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
NAMED = sorted(set(re.findall(r"`(?:((?:\w+/)+\w+)\.py::)(\w+)`", TEXT)))


def functions_in(path):
    """Return the names of all functions and classes of a file, methods included."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    kinds = ast.FunctionDef | ast.ClassDef
    return {node.name for node in ast.walk(tree) if isinstance(node, kinds)}


@pytest.mark.parametrize(("file", "name"), NAMED)
def test_named_test_exists(file, name):
    """The table is updated when a test is renamed."""
    assert name in functions_in(ROOT / "tests" / f"{file}.py")


def test_every_torture_test_is_listed():
    """The table names every test in tests/torture."""
    for path in (ROOT / "tests" / "torture").glob("test_*.py"):
        assert f"torture/{path.stem}" in {file for file, _ in NAMED}, path.name
