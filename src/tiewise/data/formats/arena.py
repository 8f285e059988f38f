"""Records of two conversations: Chatbot Arena's of every year, and MT-bench's.

``arena`` reads the 33k, 100k, 140k and expert spellings, whose later ones hold content blocks and
name sessions; ``mt_bench`` the human judgments, where a vote on the first turn concerns the first
exchange alone.
"""

from __future__ import annotations

from collections.abc import Iterator

from tiewise.data.formats.cells import (
    Record,
    Row,
    as_word,
    shown,
    soft_labels,
    weight_of,
    winner_of,
)
from tiewise.data.formats.conversations import common_prompt, read_messages, split_messages
from tiewise.errors import PairsError

_ID_COLUMNS = ("id", "question_id")
_WORDS = {
    "model_a": "model_a",
    "model_b": "model_b",
    "language": "language",
    "source": "source",
    "evaluation_session_id": "session",
}


def read_arena(record: Record, *, position: int, labelled: bool) -> Iterator[Row]:
    """Yield the row of a record of two conversations with the same user's turns."""
    row = _read_conversations(record)
    named = next((name for name in _ID_COLUMNS if name in record), None)
    row["id"] = position if named is None else record[named]
    yield row | (_read_labels(record) if labelled else {})


def read_mt_bench(record: Record, *, position: int, labelled: bool) -> Iterator[Row]:
    """Yield the row of a judgment, of as many exchanges as it judges; its id is its position."""
    row = _read_conversations(record)
    n_turns = record["turn"]
    if str(n_turns) not in {"1", "2", "1.0", "2.0"}:
        raise PairsError(f"turn must be 1 or 2, found {shown(n_turns)}")
    for name in ("prompt", "response_a", "response_b"):
        row[name] = row[name][: int(float(n_turns))]
    row["id"] = position
    yield row | (_read_labels(record) if labelled else {})


def _read_conversations(record: Record) -> Row:
    sides = [split_messages(read_messages(record[f"conversation_{name}"])) for name in "ab"]
    row: Row = {
        "prompt": common_prompt("conversation_a", sides[0], "conversation_b", sides[1]),
        "response_a": sides[0].response,
        "response_b": sides[1].response,
        "is_repaired": any(side.is_repaired for side in sides),
    }
    row |= {ours: as_word(record[theirs]) for theirs, ours in _WORDS.items() if theirs in record}
    return row | weight_of(record)


def _read_labels(record: Record) -> Row:
    return soft_labels(record) | {"winner": winner_of(record)}
