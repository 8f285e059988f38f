"""Find in the first records of a source how its plain texts are spelled.

A csv file holds text only, so a column of lists becomes text in the spelling of its writer. Strict
JSON is read as the list that it spells; any other spelling is refused, row by row.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from tiewise.data.formats.cells import Record, is_missing, shown, spells_messages
from tiewise.data.formats.sources import parse_json
from tiewise.errors import PairsError

_begins_with_text = re.compile(r"""(array\()?[\[(]\s*(\]|['"{]|None\b|null\b|array\()""").match
_begins_with_word = re.compile(r"\[\s*[^\s\d.+\[-]").match


class Layout(NamedTuple):
    """How the plain texts of a source are spelled."""

    lists: tuple[str, ...] = ()
    """Columns of lists, in a file that holds text only."""

    def apply(self, record: Record) -> Record:
        """Return a record with lists in place of their JSON text."""
        return {**record, **{name: _parse_list(name, record[name]) for name in self.lists}}


def find_layout(plain: Sequence[str], records: Sequence[Record]) -> Layout:
    """Return the layout of a source; `plain` names its columns of plain text, the prompt first."""
    found = {name for name in plain if _all(_spells_list, [r.get(name) for r in records])}
    responses = plain[1:]
    cells = [record.get(name) for record in records for name in responses]
    if _all(_is_in_brackets, cells):
        found.update(responses)
    return Layout(tuple(name for name in plain if name in found))


def _all(is_true: Any, cells: Sequence[Any]) -> bool:
    """Return whether it is true for all texts that are not missing, of which there are some."""
    known = [cell for cell in cells if not is_missing(cell)]
    return bool(known) and all(isinstance(cell, str) and is_true(cell.strip()) for cell in known)


def _spells_list(text: str) -> bool:
    return _begins_with_text(text) is not None and text.endswith(("]", ")"))


def _is_in_brackets(text: str) -> bool:
    return text.endswith("]") and _begins_with_word(text) is not None


def _parse_list(name: str, cell: Any) -> Any:
    """Return the turns or messages that a text spells, or the text if it spells other JSON."""
    if is_missing(cell) or not isinstance(cell, str):
        return cell
    try:
        value = parse_json(cell)
    except ValueError:
        value = None
    if not isinstance(value, list):
        raise PairsError(
            f"{name} is {shown(cell)}; expected a list as strict JSON, as in json.dumps. Write the "
            "lists as JSON, or the table to .parquet or .jsonl"
        )
    has_turns = all(item is None or isinstance(item, str) for item in value)
    return value if has_turns or spells_messages(cell) else cell
