"""Second implementations that the tests compare the package with."""

from __future__ import annotations

import ast
import json

from tiewise.data.parse import repair_text


def turns_by_eval(text: str) -> list[str]:
    """Return the result of the notebook's ``eval(text, {"null": ""})`` without executing text."""
    tree = ast.parse(text.strip(), mode="eval")
    assert isinstance(tree.body, ast.List)
    for position, item in enumerate(tree.body.elts):
        if isinstance(item, ast.Name) and item.id == "null":
            tree.body.elts[position] = ast.Constant("")
    return [str(item) for item in ast.literal_eval(tree)]


def turns_by_json(text: str) -> list[str | None] | None:
    """Return the turns as json reads them; None if it is not JSON or not a list of strings."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, list):
        return None
    if any(turn is not None and type(turn) is not str for turn in value):
        return None
    return [turn if turn is None else repair_text(turn) for turn in value]
