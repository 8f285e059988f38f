"""Read the parts of a prompt that have columns of their own: question, system, tools, history.

The system text and the descriptions of tools begin the first turn of the prompt, each followed by
an empty line, as the system messages of a conversation do; the column `system` holds the same text.
Earlier exchanges are the first turns of all three texts.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from tiewise.data.first_text import SYSTEM_COLUMN, begins_with_system
from tiewise.data.formats.cells import (
    Exchanges,
    Record,
    Row,
    Turns,
    has_brackets,
    holds_text,
    is_list,
    is_missing,
    join_texts,
    list_cell,
    parse_number,
    read_messages,
    shown,
    split_messages,
)
from tiewise.data.formats.sources import parse_json
from tiewise.data.pairs import TEXT_COLUMNS
from tiewise.data.parse import join_turns
from tiewise.errors import PairsError

HISTORY = "history"
SYSTEM_NAMES = (SYSTEM_COLUMN, "system_prompt")
CONTEXT_NAMES = (*SYSTEM_NAMES, "tools", HISTORY)
_PROMPT_NAMES = (("prompt",), ("question",), ("instruction", "input"), ("input",))
_MEDIA = ("image", "images", "audio", "audios", "video", "videos")
_WORD_ENDINGS = (
    *("id", "hash", "model", "models", "source", "dataset", "split", "category", "subset", "type"),
    *("task", "language", "lang", "date", "time", "timestamp", "url", "license", "label", "tag"),
)


def find_prompt(columns: Iterable[str]) -> tuple[str, ...]:
    """Return the columns that make up the prompt of a preference, if there are any.

    >>> find_prompt(["input", "chosen", "instruction"]), find_prompt(["chosen"])
    (('instruction', 'input'), ())
    """
    known = set(columns)
    names = next((names for names in _PROMPT_NAMES if names[0] in known), ())
    return tuple(name for name in names if name in known)


def name_prompt(record: Record, names: Sequence[str]) -> Record:
    """Return a record whose prompt is named `prompt`; two columns are joined by an empty line."""
    if names in ((), ("prompt",)):
        return record
    cells = [record[name] for name in names if not is_missing(record[name])]
    if len(cells) > 1 and not all(isinstance(cell, str) for cell in cells):
        raise PairsError(f"{' and '.join(names)} are not both text; join them in a column prompt")
    others = {name: cell for name, cell in record.items() if name not in names}
    return others | {"prompt": "\n\n".join(cells) if len(cells) > 1 else [*cells, None][0]}


def refuse_second_prompt(record: Record, turns: Turns) -> None:
    """Refuse a preference with text of a second prompt, which the turns of its prompt lack."""
    prompt = join_turns(turns)
    for name in ("question", "instruction", "input"):
        cell = record.get(name)
        if holds_text(cell) and not (isinstance(cell, str) and cell in prompt):
            raise PairsError(
                f"{name} is {shown(cell)}, which is no part of the prompt; expected one prompt. "
                f"Join both in the column prompt, or remove {name}"
            )


def refuse_unread_text(record: Record, known: Iterable[str]) -> None:
    """Refuse a preference without a prompt, if a column that is not read may hold it."""
    for name, cell in record.items():
        if name not in known and _may_be_prompt(name, cell):
            raise PairsError(
                f"{name} is {shown(cell)}, and no column is known to hold the prompt. If {name} "
                "does, rename it to prompt; else remove it"
            )


def add_context(record: Record, row: Row, *, has_history: bool) -> Row:
    """Return a row with the earlier exchanges, the system text and the tools of its record.

    A record with images or the like is refused, as a message with a block of them is.
    """
    for name in _MEDIA:
        cell = record.get(name)
        if holds_text(cell) and not (isinstance(cell, str) and cell.strip() == "[]"):
            raise PairsError(
                f"{name} is {shown(cell)}; expected text alone. Remove the row, or the column if "
                "the texts do not need it"
            )
    if has_history and (history := _read_history(record)).prompt:
        row = row | _put_before(history, row)
    system = list_cell([_read_system(record)])
    if SYSTEM_COLUMN in record:
        row = {SYSTEM_COLUMN: None} | row
    if not system.turns[0]:
        return row
    text = _join_system(system.turns[0], row.get(SYSTEM_COLUMN))
    first, *others = row["prompt"] or [None]
    if first is None or not begins_with_system(first, text):
        first = join_texts([system.turns[0], first])
    is_repaired = row["is_repaired"] or system.is_repaired
    return row | {"prompt": [first, *others], SYSTEM_COLUMN: text, "is_repaired": is_repaired}


def _join_system(text: str, found: str | None) -> str:
    """Return the system text of a row whose messages begin with the system text `found`."""
    return found if found and begins_with_system(found, text) else join_texts([text, found]) or ""


def _read_system(record: Record) -> str | None:
    texts = []
    for name in SYSTEM_NAMES:
        cell = record.get(name)
        if not is_missing(cell) and not isinstance(cell, str):
            raise PairsError(f"{name} is {shown(cell)}; expected text")
        texts += [] if is_missing(cell) or cell in texts else [cell]
    tools = _read_tools(record)
    return join_texts([*texts, *([tools] if tools else [])])


def _read_tools(record: Record) -> str | None:
    cell = record.get("tools")
    if is_missing(cell):
        return None
    if isinstance(cell, str):
        if not has_brackets(cell):
            return cell
        value = _parse("tools", cell)
        return cell if value else None
    if not holds_text(cell):
        return None
    return json.dumps(cell, ensure_ascii=False, default=lambda array: array.tolist())


def _read_history(record: Record) -> Exchanges:
    cell = record.get(HISTORY)
    if is_missing(cell):
        return split_messages([])
    items: Any = _parse(HISTORY, cell) if isinstance(cell, str) else cell
    messages: list[Any] = []
    for item in items if is_list(items) else [items]:
        if is_list(item) and len(item) == 2:
            roles = zip(("user", "assistant"), item, strict=True)
            messages += [{"role": role, "content": text} for role, text in roles]
        elif isinstance(item, dict) and is_list(items):
            messages.append(item)
        else:
            raise PairsError(
                f"{HISTORY} holds {shown(item)}; expected a list of messages or of pairs "
                "[user, assistant]"
            )
    return split_messages(read_messages(messages))


def _put_before(history: Exchanges, row: Row) -> Row:
    n = len(history.prompt)
    is_there = row["prompt"][:n] == history.prompt and len(row["prompt"]) > n
    if is_there and all(row[name][:n] == history.response for name in TEXT_COLUMNS[1:]):
        return {}
    changed: Row = {"prompt": history.prompt + row["prompt"]}
    changed |= {name: history.response + row[name] for name in TEXT_COLUMNS[1:]}
    changed |= {} if history.system is None else {SYSTEM_COLUMN: history.system}
    return changed | {"is_repaired": row["is_repaired"] or history.is_repaired}


def _parse(name: str, text: str) -> Any:
    try:
        return parse_json(text)
    except ValueError as error:
        raise PairsError(
            f"{name} is {shown(text)}; expected strict JSON, as in json.dumps ({error})"
        ) from None


def _may_be_prompt(name: str, cell: Any) -> bool:
    """Return whether a column that is not read may hold a prompt: text, and no word or number."""
    is_word = name.lower().endswith(_WORD_ENDINGS)
    if isinstance(cell, str):
        is_word |= parse_number(cell) is not None or cell.lower() in ("true", "false")
    return not is_word and holds_text(cell)
