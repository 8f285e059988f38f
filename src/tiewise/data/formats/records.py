"""Turn a record of each known format into rows.

To add a format, write a function from a record to its rows and list it in `FORMATS`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Container, Iterator
from typing import Any, NamedTuple

from tiewise.data.first_text import SYSTEM_COLUMN
from tiewise.data.formats.cells import (
    Record,
    Row,
    as_number,
    common_prompt,
    has_brackets,
    json_cell,
    plain_cell,
    read_messages,
    read_weight,
    read_words,
    shown,
    split_messages,
)
from tiewise.data.formats.choices import (
    CHOICES,
    PREFERENCE_COLUMNS,
    RANKED_COLUMNS,
    REWARDBENCH_COLUMNS,
    end_conversation,
    read_preference,
    read_ranked,
    read_rewardbench,
)
from tiewise.data.formats.context import CONTEXT_NAMES, HISTORY, add_context, name_prompt
from tiewise.data.formats.layout import Layout
from tiewise.data.ids import ID_COLUMNS
from tiewise.data.labels import ONE_HOT_COLUMNS, PROB_COLUMNS, WORD_OF_WINNER, Winner
from tiewise.data.pairs import COLUMNS, FURTHER_WORDS, TEXT_COLUMNS, WORD_COLUMNS
from tiewise.data.parse import Cell
from tiewise.errors import LabelError, PairsError

LABEL_COLUMNS = (ONE_HOT_COLUMNS, ("winner",), ("label",), tuple(PROB_COLUMNS))
"""Groups of columns that name the winner in formats without a winner of their own."""
_CONVERSATIONS = ("conversation_a", "conversation_b")
_WORDS = {
    name: name for name in (*WORD_COLUMNS, *FURTHER_WORDS) if name not in ("winner", SYSTEM_COLUMN)
}
_ARENA_WORDS = {name: name for name in ("model_a", "model_b", "language", "source")}
_ARENA_WORDS["evaluation_session_id"] = "session"
_ALPACA_WORDS = {"generator_1": "model_a", "generator_2": "model_b", "dataset": "source"}
_HELPSTEER_WORDS = {"language": "language", "domain": "source"}


def _read_flat(record: Record, read_cell: Callable[[Record, str], Cell]) -> Iterator[Row]:
    cells = {name: read_cell(record, name) for name in TEXT_COLUMNS}
    row: Row = {name: cell.turns for name, cell in cells.items()}
    row["is_repaired"] = any(cell.is_repaired for cell in cells.values())
    yield row | _read_id(record) | read_words(record, _WORDS) | read_weight(record)


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
    yield _read_conversations(record) | _read_id(record, "question_id") | _read_id(record)


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


def read_alpaca(record: Record) -> Iterator[Row]:
    """Read AlpacaEval: an instruction, with its input if it has one, and two outputs."""
    names = [name for name in ("instruction", "input") if name in record]
    named = name_prompt(record, names)
    cells = [plain_cell(named, name) for name in ("prompt", "output_1", "output_2")]
    row: Row = dict(zip(TEXT_COLUMNS, (cell.turns for cell in cells), strict=True))
    row["is_repaired"] = any(cell.is_repaired for cell in cells)
    yield row | _read_id(record) | read_words(record, _ALPACA_WORDS) | read_weight(record)


def read_helpsteer(record: Record) -> Iterator[Row]:
    """Read HelpSteer3: the messages of a context, and two responses; the domain is the source."""
    names = ("response1", "response2")
    sides = [end_conversation(record["context"], record[name]) for name in names]
    row = common_prompt(names, sides)
    row |= {f"response_{name}": side.response for name, side in zip("ab", sides, strict=True)}
    row["is_repaired"] = any(side.is_repaired for side in sides)
    yield row | _read_id(record) | read_words(record, _HELPSTEER_WORDS) | read_weight(record)


def _read_alpaca_winner(record: Record) -> Row:
    """Read AlpacaEval's preference: 1 is A, 2 is B, 0 and 1.5 are a tie; between, 1 + P(B)."""
    value = as_number(record, "preference")
    if value in (0, 1.5):
        probs, winner = (0.0, 0.0, 1.0), Winner.TIE
    elif 1 <= value <= 2:
        probs, winner = (2 - value, value - 1, 0.0), Winner.A if value < 1.5 else Winner.B
    else:
        raise LabelError(f"preference is {value:g}; expected 0, or a number from 1 to 2")
    return {"winner": WORD_OF_WINNER[winner], **dict(zip(PROB_COLUMNS, probs, strict=True))}


def _read_helpsteer_winner(record: Record) -> Row:
    """Read HelpSteer3's overall preference: below 0 is A, above is B; the weight is its size.

    A tie, 0, has the weight 1. That the size is a factor of the loss is the "scaled Bradley-Terry"
    loss of HelpSteer2-Preference (Wang et al., 2024, arXiv:2410.01257).
    """
    value = as_number(record, "overall_preference")
    if value not in range(-3, 4):
        raise LabelError(f"overall_preference is {value:g}; expected an integer from -3 to 3")
    winner = Winner.TIE if value == 0 else Winner.A if value < 0 else Winner.B
    weight = {} if "weight" in record else {"weight": max(1.0, abs(value))}
    return {"winner": WORD_OF_WINNER[winner], **weight}


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
    winner: str | None = None
    """The format's own column for the winner, which `read_winner` reads."""
    read_winner: Callable[[Record], Row] | None = None

    def id_columns(self, columns: Container[str]) -> list[str]:
        """Return those of a source's columns from which this format reads ids."""
        return [name for name in ID_COLUMNS if name in self.reads and name in columns]


_LABELS = (*ONE_HOT_COLUMNS, "winner", *PROB_COLUMNS)
_FLAT = (*COLUMNS[:4], *_WORDS, "weight", *_LABELS, *CONTEXT_NAMES)
_TALK = ("id", "weight", *_LABELS, *CONTEXT_NAMES[:-1])
_ARENA = (*_CONVERSATIONS, *_ARENA_WORDS, *_TALK[1:])
_ALPACA = ("instruction", "output_1", "output_2")
_HELPSTEER = ("context", "response1", "response2")

FORMATS = {
    "pairs": Format(_read_lists, COLUMNS, reads=(*_FLAT, "label")),
    "rewardbench": Format(
        read_rewardbench,
        ("id", "prompt", *CHOICES, "subset"),
        excludes=TEXT_COLUMNS[1:],
        reads=REWARDBENCH_COLUMNS,
        plain=("prompt", *CHOICES),
        is_choice=True,
    ),
    "preference": Format(
        read_preference,
        CHOICES,
        excludes=(*TEXT_COLUMNS[1:], *_CONVERSATIONS),
        reads=PREFERENCE_COLUMNS,
        plain=("prompt", *CHOICES),
        is_choice=True,
    ),
    "mt_bench": Format(
        read_mt_bench,
        (*_CONVERSATIONS, "question_id", "judge", "turn"),
        excludes=("anony", "tstamp", "language"),
        reads=(*_ARENA, "turn"),
    ),
    "arena": Format(read_arena, _CONVERSATIONS, reads=(*_ARENA, "id", "question_id")),
    "kaggle": Format(_read_lists, TEXT_COLUMNS, reads=_FLAT),
    "wsdm": Format(_read_plain, TEXT_COLUMNS, reads=_FLAT, plain=TEXT_COLUMNS),
    "helpsteer3": Format(
        read_helpsteer,
        _HELPSTEER,
        reads=(*_HELPSTEER, *_HELPSTEER_WORDS, "overall_preference", *_TALK),
        winner="overall_preference",
        read_winner=_read_helpsteer_winner,
    ),
    "nemo_rl": Format(
        read_ranked, ("context", "completions"), reads=RANKED_COLUMNS, is_choice=True
    ),
    "alpaca_eval": Format(
        read_alpaca,
        _ALPACA,
        reads=(*_ALPACA, "input", *_ALPACA_WORDS, "preference", *_TALK, HISTORY),
        winner="preference",
        read_winner=_read_alpaca_winner,
    ),
}
"""Every format by name; the first that fits is used. wsdm has plain text in place of lists."""


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


def _read_conversations(record: Record) -> Row:
    sides = [split_messages(read_messages(record[name])) for name in _CONVERSATIONS]
    row = common_prompt(_CONVERSATIONS, sides)
    row |= {f"response_{name}": side.response for name, side in zip("ab", sides, strict=True)}
    row["is_repaired"] = any(side.is_repaired for side in sides)
    return row | read_words(record, _ARENA_WORDS) | read_weight(record)


def _read_id(record: Record, name: str = "id") -> dict[str, Any]:
    """Return the id of a record; nothing where a source has none, so that it is the row number."""
    return {"id": record[name]} if name in record else {}
