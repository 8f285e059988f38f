"""Turn a record of each known format into rows, and find the format of a source.

To add a format, write a function from a record to its rows and list it in `FORMATS`.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import product
from typing import Any, NamedTuple

from tiewise.data.first_text import SYSTEM_COLUMN
from tiewise.data.formats.cells import (
    ONE_HOT_COLUMNS,
    Exchanges,
    Message,
    Record,
    Row,
    Turns,
    as_word,
    common_prompt,
    find_shared_end,
    has_brackets,
    is_list,
    is_missing,
    json_cell,
    list_cell,
    plain_cell,
    read_messages,
    read_transcript,
    read_weight,
    shown,
    spells_messages,
    split_messages,
)
from tiewise.data.formats.context import (
    CONTEXT_NAMES,
    HISTORY,
    add_context,
    find_prompt,
    refuse_second_prompt,
    refuse_unread_text,
)
from tiewise.data.formats.layout import NO_PROMPT, Layout
from tiewise.data.formats.sources import parse_json
from tiewise.data.ids import id_key, read_id
from tiewise.data.labels import PROB_COLUMNS
from tiewise.data.pairs import COLUMNS, FURTHER_WORDS, TEXT_COLUMNS, WORD_COLUMNS
from tiewise.data.parse import Cell, join_turns
from tiewise.errors import PairsError

_CONVERSATIONS = ("conversation_a", "conversation_b")
_CHOICES = ("chosen", "rejected")
_WORDS = {
    name: name for name in (*WORD_COLUMNS, *FURTHER_WORDS) if name not in ("winner", SYSTEM_COLUMN)
}
_ARENA_WORDS = {name: name for name in ("model_a", "model_b", "language", "source")}
_ARENA_WORDS["evaluation_session_id"] = "session"
_CHOICE_WORDS = {name: name for name in ("language", "source", "session")}


def _read_flat(record: Record, read_cell: Callable[[Record, str], Cell]) -> Iterator[Row]:
    cells = {name: read_cell(record, name) for name in TEXT_COLUMNS}
    row: Row = {name: cell.turns for name, cell in cells.items()}
    row["is_repaired"] = any(cell.is_repaired for cell in cells.values())
    yield row | {"id": record["id"]} | _read_words(record, _WORDS) | read_weight(record)


_read_lists = functools.partial(_read_flat, read_cell=json_cell)


def _read_plain(record: Record) -> Iterator[Row]:
    if all(has_brackets(record[name]) for name in TEXT_COLUMNS):
        raise PairsError(
            f"{', '.join(TEXT_COLUMNS)} look like lists of turns in a file of plain text; give "
            "--data-format kaggle (format='kaggle') if they are JSON lists"
        )
    yield from _read_flat(record, plain_cell)


def read_arena(record: Record) -> Iterator[Row]:
    """Read two conversations with the same user turns, as all Chatbot Arena data sets hold them."""
    row = _read_conversations(record)
    named = next((name for name in ("id", "question_id") if name in record), None)
    yield row if named is None else row | {"id": record[named]}


def read_mt_bench(record: Record) -> Iterator[Row]:
    """Read a judgment of MT-bench; a judgment of turn 1 is about the first exchange only."""
    row = _read_conversations(record)
    n_turns = record["turn"]
    if str(n_turns) not in {"1", "2", "1.0", "2.0"}:
        raise PairsError(f"turn is {shown(n_turns)}; expected 1 or 2")
    n = int(float(n_turns))
    if len(row["prompt"]) < n:
        raise PairsError(f"turn is {n} in a conversation of {len(row['prompt'])} turns")
    yield row | {name: row[name][:n] for name in TEXT_COLUMNS}


def read_preference(record: Record) -> Iterator[Row]:
    """Read a chosen and a rejected response, as text or messages, in TRL's columns.

    The prompt has its own column or begins both responses; in two plain texts it is the part
    that they share, cut at a space. Texts "Human: … Assistant: …" are conversations, and so is a
    prompt that ends with "Assistant:".
    """
    found = [_read_choice(record, name) for name in _CHOICES]
    sides = [side for side in found if side is not None]
    if len(sides) < len(found):
        refuse_unread_text(record, _BENCH)
        sides = _split_shared_start([record[name] for name in _CHOICES])
    models = [as_word(record.get(f"{name}_model")) for name in _CHOICES]
    prompt = common_prompt(_CHOICES, sides)
    if "prompt" not in record and not join_turns(prompt["prompt"]).strip():
        refuse_unread_text(record, _BENCH)
    refuse_second_prompt(record, prompt["prompt"])
    row = prompt | _order_responses(prompt["prompt"], [s.response for s in sides], models)
    row["is_repaired"] = any(side.is_repaired for side in sides)
    if not is_missing(record.get("id")):
        row["id"] = record["id"]
    yield row | _read_words(record, _CHOICE_WORDS) | read_weight(record)


def read_rewardbench(record: Record) -> Iterator[Row]:
    """Read RewardBench; the subset is the source.

    RewardBench 2 has lists of responses: each chosen one makes a row with each rejected one, with
    the id ``id/i/j``.
    """
    source = {"source": as_word(record["subset"])}
    if isinstance(record["chosen"], str):
        yield from (row | source for row in read_preference(record))
        return
    chosen, rejected = (_read_responses(record, name) for name in _CHOICES)
    models = _read_models(record, len(chosen.turns) + len(rejected.turns))
    prompt = plain_cell(record, "prompt")
    is_repaired = any(cell.is_repaired for cell in (prompt, chosen, rejected))
    unread = {} if models or is_missing(record.get("models")) else {"unread": ["models"]}
    for (i, right), (j, wrong) in product(enumerate(chosen.turns), enumerate(rejected.turns)):
        pair_models = [models[i], models[len(chosen.turns) + j]] if models else [None, None]
        row = _order_responses(prompt.turns, [[right], [wrong]], pair_models)
        name = id_key(read_id(record["id"]))
        row |= {"id": f"{name}/{i}/{j}", "is_repaired": is_repaired}
        yield row | source | unread


class Format(NamedTuple):
    """One way to write pairs, and the columns that a source of this format has and has not."""

    read: Callable[[Record], Iterator[Row]]
    needs: tuple[str, ...]
    excludes: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()
    """All columns that reach the pairs table, where a source has them."""
    plain: tuple[str, ...] = ()
    """Columns of plain text: the prompt and the two responses."""
    is_choice: bool = False
    """Whether the text columns name the winner; otherwise the winner has its own columns."""


_LABELS = (*ONE_HOT_COLUMNS, "winner", *PROB_COLUMNS)
_FLAT = (*COLUMNS[:4], *_WORDS, "weight", *_LABELS, *CONTEXT_NAMES)
_ARENA = (*_CONVERSATIONS, *_ARENA_WORDS, "weight", *_LABELS, *CONTEXT_NAMES[:-1])
_TRL = ("id", *_CHOICES, "chosen_model", "rejected_model", *_CHOICE_WORDS, "weight", *CONTEXT_NAMES)
_BENCH = (*_TRL, "subset", "models")

FORMATS = {
    "pairs": Format(_read_lists, COLUMNS, reads=(*_FLAT, "label")),
    "rewardbench": Format(
        read_rewardbench,
        ("id", "prompt", *_CHOICES, "subset"),
        excludes=TEXT_COLUMNS[1:],
        reads=_BENCH,
        plain=("prompt", *_CHOICES),
        is_choice=True,
    ),
    "preference": Format(
        read_preference,
        _CHOICES,
        excludes=(*TEXT_COLUMNS[1:], *_CONVERSATIONS),
        reads=_TRL,
        plain=("prompt", *_CHOICES),
        is_choice=True,
    ),
    "mt_bench": Format(
        read_mt_bench,
        (*_CONVERSATIONS, "question_id", "judge", "turn"),
        excludes=("anony", "tstamp", "language"),
        reads=(*_ARENA, "turn"),
    ),
    "arena": Format(read_arena, _CONVERSATIONS, reads=(*_ARENA, "id", "question_id")),
    "kaggle": Format(_read_lists, COLUMNS[:4], reads=_FLAT),
    "wsdm": Format(_read_plain, COLUMNS[:4], reads=_FLAT, plain=TEXT_COLUMNS),
}
"""Every format by name; the first that fits is used. wsdm has plain text in place of lists."""


def find_unread(name: str, columns: Sequence[str]) -> list[str]:
    """Return the columns of a source that the format with this name does not read."""
    known = FORMATS[name]
    reads = (*known.reads, *(find_prompt(columns) if known.is_choice else ()))
    return [column for column in columns if column not in reads]


def read_record(name: str, record: Record, layout: Layout) -> list[Row]:
    """Return the rows of a record of the format with this name, without id and labels."""
    known = FORMATS[name]
    record, is_cut = layout.apply(record)
    has_history = HISTORY in known.reads
    rows = [add_context(record, row, has_history=has_history) for row in known.read(record)]
    layout.check(record)
    for row in rows:
        row["is_repaired"] |= is_cut
    return rows


def find_format(name: str, columns: Sequence[str], records: Iterable[Record]) -> str:
    """Return the format that has these columns; PairsError, which has the source's `name`, if none.

    Between lists of turns and plain text the first records decide.
    """
    fitting = [
        key
        for key, known in FORMATS.items()
        if set(known.needs) <= set(columns) and set(known.excludes).isdisjoint(columns)
    ]
    if not fitting:
        needs = "\n".join(f"  {key}: {', '.join(known.needs)}" for key, known in FORMATS.items())
        raise PairsError(
            f"{name}: no known format has the columns {', '.join(columns)}. "
            f"Each format needs at least:\n{needs}"
        )
    return "wsdm" if fitting[0] == "kaggle" and _holds_plain_text(records) else fitting[0]


def _holds_plain_text(records: Iterable[Record]) -> bool:
    """Return whether fewer than half of the texts are lists or look like malformed ones."""
    cells = [record.get(name) for record in records for name in TEXT_COLUMNS]
    known = [cell for cell in cells if not is_missing(cell)]
    return 2 * sum(map(has_brackets, known)) < len(known)


def _read_conversations(record: Record) -> Row:
    sides = [split_messages(read_messages(record[name])) for name in _CONVERSATIONS]
    row = common_prompt(_CONVERSATIONS, sides)
    row |= {f"response_{name}": side.response for name, side in zip("ab", sides, strict=True)}
    row["is_repaired"] = any(side.is_repaired for side in sides)
    return row | _read_words(record, _ARENA_WORDS) | read_weight(record)


def _read_words(record: Record, names: dict[str, str]) -> Row:
    return {ours: as_word(record[theirs]) for theirs, ours in names.items() if theirs in record}


def _read_choice(record: Record, name: str) -> Exchanges | None:
    """Return the conversation that ends with a response; None for plain text with its prompt."""
    prompt, response = (_decode_messages(record.get(key)) for key in ("prompt", name))
    if isinstance(prompt, str):
        prompt = _read_open_transcript(prompt) or prompt
    if not isinstance(response, str):
        return split_messages(_with_prompt(prompt, read_messages(response)))
    spoken = read_transcript(response)
    if "prompt" not in record:
        return None if spoken is None else split_messages(spoken)
    if spoken is not None and _begins_with(spoken, prompt):
        return split_messages(spoken)
    if is_list(prompt):
        return split_messages([*read_messages(prompt), {"role": "assistant", "content": response}])
    return _as_exchange(prompt, response)


def _read_open_transcript(text: str) -> list[Message] | None:
    """Return the messages of a transcript that ends with "Assistant:", before the response."""
    messages = read_transcript(text) or []
    is_open = len(messages) > 1 and messages[-1]["role"] == "assistant"
    return messages[:-1] if is_open and not messages[-1]["content"].strip() else None


def _begins_with(messages: list[Message], prompt: Any) -> bool:
    """Return whether a conversation begins with the prompt, white space aside."""
    if is_missing(prompt):
        return False
    if isinstance(prompt, str):
        prompt = read_transcript(prompt) or [{"role": "user", "content": prompt}]
    before = read_messages(prompt)
    first, second = (split_messages(each) for each in (messages[: len(before)], before))
    return all(
        [turn and turn.strip() for turn in turns] == [turn and turn.strip() for turn in others]
        for turns, others in ((first.prompt, second.prompt), (first.response, second.response))
    )


def _decode_messages(cell: Any) -> Any:
    """Return the messages of a cell that is their JSON text, as in a csv file; else the cell."""
    return read_messages(cell) if isinstance(cell, str) and spells_messages(cell) else cell


def _with_prompt(prompt: Any, messages: list[Message]) -> list[Message]:
    """Put the prompt before the messages, unless they begin with it."""
    if is_missing(prompt):
        return messages
    if isinstance(prompt, str):
        asked = [message["content"] for message in messages if message["role"] == "user"]
        if asked and prompt not in asked:
            raise PairsError("the prompt is none of the user's messages in the conversation")
        return messages if asked else [{"role": "user", "content": prompt}, *messages]
    before = read_messages(prompt)
    is_there = split_messages(messages[: len(before)]) == split_messages(before)
    return messages if is_there and len(messages) > len(before) else [*before, *messages]


def _split_shared_start(texts: Sequence[Any]) -> list[Exchanges]:
    """Take the beginning that two texts share, up to a space, as their prompt."""
    for text in texts:
        if not isinstance(text, str):
            raise PairsError(f"found {shown(text)}; chosen and rejected are both text or messages")
    cut = find_shared_end(texts)
    if not texts[0][:cut].strip():
        raise PairsError(NO_PROMPT)
    return [_as_exchange(text[:cut], text[cut:]) for text in texts]


def _as_exchange(prompt: str | None, response: str) -> Exchanges:
    cell = list_cell([prompt, response])
    return Exchanges(cell.turns[:1], cell.turns[1:], cell.is_repaired)


def _order_responses(
    prompt: Turns, responses: Sequence[Turns], models: Sequence[str | None]
) -> Row:
    """Return the row of the chosen and the rejected response; the smaller digest is A.

    So the position does not depend on the label. Two equal responses have one digest: its parity
    decides. Two empty responses are an error.
    """
    if _are_empty(*responses):
        raise PairsError("both responses are empty, so that none can be chosen; remove the row")
    first, second = (_digest([prompt, response]) for response in responses)
    is_chosen_a = first < second or (first == second and first[0] % 2 == 0)
    row: Row = {"prompt": prompt, "winner": "model_a" if is_chosen_a else "model_b"}
    for side, place in zip("ab", (0, 1) if is_chosen_a else (1, 0), strict=True):
        row |= {f"response_{side}": responses[place], f"model_{side}": models[place]}
    return row


def _are_empty(chosen: Turns, rejected: Turns) -> bool:
    """Return whether the last turn of both is blank, and no earlier turn differs."""
    first, second = ([(turn or "").strip() for turn in turns] for turns in (chosen, rejected))
    return first == second and not any(first[-1:])


def _digest(turns: list[Turns]) -> bytes:
    return hashlib.blake2b(json.dumps(turns).encode(), digest_size=16).digest()


def _read_responses(record: Record, name: str) -> Cell:
    if not is_list(record[name]) or not len(record[name]):
        raise PairsError(f"{name} is {shown(record[name])}; expected a list of responses")
    return list_cell(record[name])


def _read_models(record: Record, n: int) -> list[str | None]:
    """Return the names of `n` models, or an empty list if the cell does not hold as many."""
    models: Any = record.get("models")
    if isinstance(models, str):
        try:
            models = parse_json(models)
        except ValueError:
            return []
    is_known = is_list(models) and len(models) == n
    return [as_word(model) for model in models] if is_known else []
