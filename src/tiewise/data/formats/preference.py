"""Records of a chosen and a rejected response: TRL's preference data sets, and RewardBench's.

Which response is called A is decided by the digests of the two, never by which was chosen, so
neither a model nor a person can read the label off the position. The same two responses to the
same prompt come in the same order wherever they are read.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from itertools import product
from typing import Any, NamedTuple

import numpy as np

from tiewise.data.formats.cells import Record, Row, as_word, is_missing, list_cell, shown, weight_of
from tiewise.data.formats.conversations import (
    Exchanges,
    Message,
    Turns,
    common_prompt,
    read_messages,
    read_transcript,
    split_messages,
)
from tiewise.data.formats.sources import parse_json
from tiewise.data.labels import WORD_OF_WINNER, Winner
from tiewise.errors import PairsError

_WORDS = ("language", "source", "session")


class _Side(NamedTuple):
    """One response and the model it is from."""

    response: Turns
    model: str | None


def read_preference(record: Record, *, position: int, labelled: bool) -> Iterator[Row]:
    """Yield the row of a chosen and a rejected response, as text or messages.

    The prompt may stand beside them or begin both. Where it begins two plain texts, it ends at the
    last space before they differ; texts written «Human: … Assistant: …» are conversations.
    """
    chosen, rejected = (_read_side(record, name) for name in ("chosen", "rejected"))
    if chosen is None or rejected is None:
        chosen, rejected = _part_texts(record["chosen"], record["rejected"])
    sides = [
        _Side(side.response, as_word(record.get(f"{name}_model")))
        for name, side in (("chosen", chosen), ("rejected", rejected))
    ]
    row = _arrange(common_prompt("chosen", chosen, "rejected", rejected), *sides, labelled=labelled)
    row["is_repaired"] = chosen.is_repaired or rejected.is_repaired
    row["id"] = position if is_missing(record.get("id")) else record["id"]
    row |= {name: as_word(record[name]) for name in _WORDS if name in record}
    yield row | weight_of(record)


def read_rewardbench(record: Record, *, position: int, labelled: bool) -> Iterator[Row]:
    """Yield a row for each chosen and each rejected response to a prompt; the subset is the source.

    RewardBench 1 has one of each; RewardBench 2 has lists, whose rows are named ``id/i/j``.
    """
    if isinstance(record["chosen"], str):
        rows = read_preference(record, position=position, labelled=labelled)
        yield from (row | {"source": as_word(record["subset"])} for row in rows)
        return
    chosen, rejected = (_responses(record, name) for name in ("chosen", "rejected"))
    models = _models(record, len(chosen) + len(rejected))
    prompt = list_cell([record["prompt"]])
    for (i, right), (j, wrong) in product(enumerate(chosen), enumerate(rejected)):
        sides = _Side([right], models[i]), _Side([wrong], models[len(chosen) + j])
        row = _arrange(prompt.turns, *sides, labelled=labelled)
        row |= {"id": f"{record['id']}/{i}/{j}", "source": as_word(record["subset"])}
        yield row | {"is_repaired": prompt.is_repaired}


def _read_side(record: Record, name: str) -> Exchanges | None:
    """Return a whole conversation, or None for plain text that holds its prompt."""
    prompt, response = (_decode(record.get(key)) for key in ("prompt", name))
    if isinstance(response, str):
        if isinstance(prompt, str):
            cell = list_cell([prompt, response])
            return Exchanges(cell.turns[:1], cell.turns[1:], is_repaired=cell.is_repaired)
        if is_missing(prompt):
            transcript = read_transcript(response)
            return None if transcript is None else split_messages(transcript)
        response = [{"role": "assistant", "content": response}]
    return split_messages(_with_prompt(prompt, read_messages(response)))


def _decode(cell: Any) -> Any:
    """Return the messages that a text spells as JSON, as in a csv file; else the cell as it is."""
    if not isinstance(cell, str) or not cell.lstrip().startswith("[{"):
        return cell
    try:
        messages = parse_json(cell)
    except ValueError:
        return cell
    are_messages = all(
        isinstance(part, dict) and {"role", "content"} <= set(part) for part in messages
    )
    return messages if are_messages else cell


def _with_prompt(prompt: Any, messages: list[Message]) -> list[Message]:
    """Put the prompt before the messages, unless it begins them already."""
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


def _part_texts(chosen: Any, rejected: Any) -> tuple[Exchanges, Exchanges]:
    for text in (chosen, rejected):
        if not isinstance(text, str):
            raise PairsError(
                f"chosen and rejected are both text or both messages, found {shown(text)}"
            )
    shortest = min(len(chosen), len(rejected))
    n_shared = next((i for i in range(shortest) if chosen[i] != rejected[i]), shortest)
    cut = next((i for i in range(n_shared - 1, -1, -1) if chosen[i].isspace()), 0)
    sides = (list_cell([text[:cut], text[cut:]]) for text in (chosen, rejected))
    first, second = (
        Exchanges(side.turns[:1], side.turns[1:], is_repaired=side.is_repaired) for side in sides
    )
    return first, second


def _arrange(prompt: Turns, chosen: _Side, rejected: _Side, *, labelled: bool) -> Row:
    """Call the response of the smaller digest A; two equal responses go by the digest's parity."""
    digests = [_digest(prompt, side.response) for side in (chosen, rejected)]
    is_chosen_first = digests[0] < digests[1] or (
        digests[0] == digests[1] and digests[0][0] % 2 == 0
    )
    side_a, side_b = (chosen, rejected) if is_chosen_first else (rejected, chosen)
    row: Row = {"prompt": prompt, "response_a": side_a.response, "response_b": side_b.response}
    row |= {"model_a": side_a.model, "model_b": side_b.model}
    if labelled:
        row["winner"] = WORD_OF_WINNER[Winner.A if is_chosen_first else Winner.B]
    return row


def _digest(prompt: Turns, response: Turns) -> bytes:
    return hashlib.blake2b(json.dumps([prompt, response]).encode(), digest_size=16).digest()


def _responses(record: Record, name: str) -> list[str | None]:
    if not isinstance(record[name], list | tuple | np.ndarray) or not len(record[name]):
        raise PairsError(f"{name}: expected a list of responses, found {shown(record[name])}")
    return list_cell(record[name]).turns


def _models(record: Record, n: int) -> list[str | None]:
    models = record.get("models")
    if not isinstance(models, list | tuple | np.ndarray) or len(models) != n:
        return [None] * n
    return [as_word(model) for model in models]
