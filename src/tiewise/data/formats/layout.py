"""Find in the first records of a source how its plain texts are spelled.

A csv file holds text only, so a column of lists becomes text in the spelling of its writer. Strict
JSON is read as the list that it spells; any other spelling is refused, row by row.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from tiewise.data.formats.cells import (
    Record,
    find_shared_end,
    is_missing,
    read_transcript,
    shown,
    spells_messages,
)
from tiewise.data.formats.context import find_prompt, name_prompt
from tiewise.data.formats.sources import parse_json
from tiewise.errors import PairsError

NO_PROMPT = (
    "chosen and rejected are texts without a prompt: there is no column prompt, and some rows do "
    "not begin alike. Rename the column that holds the prompt to prompt, or add a column prompt"
)
_MIN_PROMPT = 6  # a greeting may begin an answer to it by chance
_begins_with_text = re.compile(r"""(array\()?[\[(]\s*(\]|['"{]|None\b|null\b|array\()""").match
_begins_with_word = re.compile(r"\[\s*[^\s\d.+\[-]").match


class Layout(NamedTuple):
    """How the plain texts of a source are spelled."""

    prompt: tuple[str, ...] = ("prompt",)
    """Columns of the prompt; none where it is a part of the responses."""
    responses: tuple[str, ...] = ()
    """The two columns of plain text with a response."""
    lists: tuple[str, ...] = ()
    """Columns of lists, in a file that holds text only."""
    repeats_prompt: bool = False
    """Whether plain responses begin with the prompt again."""
    lacks_prompt: bool = False
    """Whether plain responses without a column for the prompt do not share a beginning."""

    def apply(self, record: Record) -> tuple[Record, bool]:
        """Return a record with a prompt by this name, and lists in place of their JSON text.

        The second value tells whether a repeated prompt was taken off the responses.
        """
        cells = {name: _parse_list(name, record[name]) for name in self.lists}
        record = name_prompt({**record, **cells}, self.prompt)
        if not (self.repeats_prompt and _repeats_prompt(record, self.responses)):
            return record, False
        n = len(record["prompt"])
        return {**record, **{name: record[name][n:] for name in self.responses}}, True

    def check(self, record: Record) -> None:
        """Refuse plain responses whose prompt is neither in a column nor in them."""
        if self.lacks_prompt and all(isinstance(record[name], str) for name in self.responses):
            raise PairsError(NO_PROMPT)


def find_layout(
    plain: Sequence[str], columns: Sequence[str], records: Sequence[Record], *, is_choice: bool
) -> Layout:
    """Return the layout of a source with these columns and first records.

    `plain` names the columns that may be plain text, the prompt first. With `is_choice` the prompt
    may have another name, be missing, or be repeated in both responses.
    """
    prompt = find_prompt(columns) if is_choice else tuple(plain[:1])
    responses = tuple(plain[1:])
    names = (*prompt, *responses)
    lists = {name for name in names if _all(_spells_list, [r.get(name) for r in records])}
    if _all(_is_in_brackets, [record.get(name) for record in records for name in responses]):
        lists.update(responses)
    layout = Layout(prompt, responses, tuple(name for name in names if name in lists))
    if not (is_choice and responses and records):
        return layout
    named = [name_prompt(record, prompt) for record in records]
    return layout._replace(
        repeats_prompt=bool(prompt) and all(_repeats_prompt(each, responses) for each in named),
        lacks_prompt=not prompt and not all(_shares_start(each, responses) for each in named),
    )


def _repeats_prompt(record: Record, names: Sequence[str]) -> bool:
    """Return whether both responses are the prompt, white space, and more text."""
    prompt, texts = record["prompt"], [record[name] for name in names]
    if not all(isinstance(text, str) for text in (prompt, *texts)) or len(prompt) < _MIN_PROMPT:
        return False
    rests = [text[len(prompt) :] for text in texts if text.startswith(prompt)]
    return len(rests) == len(texts) and all(
        (rest[:1].isspace() or prompt[-1].isspace())
        and rest.strip()
        and not rest.lstrip().startswith("Assistant:")
        for rest in rests
    )


def _shares_start(record: Record, names: Sequence[str]) -> bool:
    """Return whether responses begin alike, or hold their prompts as messages or a transcript."""
    texts = [record[name] for name in names]
    is_plain = all(isinstance(text, str) and text.strip() for text in texts)
    if not is_plain or any(spells_messages(text) for text in texts):
        return True
    shared = texts[0][: find_shared_end(texts)]
    return read_transcript(texts[0]) is not None or bool(shared.strip())


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
