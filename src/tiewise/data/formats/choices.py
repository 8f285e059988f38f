"""Read preferences: records whose columns say which response is better.

The better response always comes first in such files, so A and B are drawn from a digest of the row.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from itertools import combinations, product
from typing import Any

from tiewise.data.formats.cells import (
    Exchanges,
    Message,
    Record,
    Row,
    Turns,
    as_number,
    as_word,
    common_prompt,
    find_shared_end,
    is_list,
    is_missing,
    list_cell,
    plain_cell,
    read_messages,
    read_transcript,
    read_weight,
    read_words,
    shown,
    spells_messages,
    split_messages,
)
from tiewise.data.formats.context import CONTEXT_NAMES, refuse_second_prompt, refuse_unread_text
from tiewise.data.formats.layout import NO_PROMPT
from tiewise.data.formats.sources import parse_json
from tiewise.data.parse import Cell, join_turns
from tiewise.errors import PairsError

CHOICES = ("chosen", "rejected")
_WORDS = {name: name for name in ("language", "source", "session")}
PREFERENCE_COLUMNS = (
    *("id", *CHOICES, "chosen_model", "rejected_model", *_WORDS, "weight", "margin"),
    *CONTEXT_NAMES,
)
"""Columns that a preference reads, without those of the prompt."""
REWARDBENCH_COLUMNS = (*PREFERENCE_COLUMNS, "subset", "models")
RANKED_COLUMNS = ("id", "context", "completions", *_WORDS, "weight", *CONTEXT_NAMES[:-1])


def read_preference(record: Record) -> Iterator[Row]:
    """Read a chosen and a rejected response, as text or messages, in TRL's columns.

    The prompt has its own column or begins both responses; in two plain texts it is the part
    that they share, cut at a space. Texts "Human: … Assistant: …" are conversations, and so is a
    prompt that ends with "Assistant:".
    """
    found = [_read_choice(record, name) for name in CHOICES]
    sides = [side for side in found if side is not None]
    if len(sides) < len(found):
        refuse_unread_text(record, REWARDBENCH_COLUMNS)
        sides = _split_shared_start([record[name] for name in CHOICES])
    models = [as_word(record.get(f"{name}_model")) for name in CHOICES]
    prompt = common_prompt(CHOICES, sides)
    if "prompt" not in record and not join_turns(prompt["prompt"]).strip():
        refuse_unread_text(record, REWARDBENCH_COLUMNS)
    refuse_second_prompt(record, prompt["prompt"])
    row = prompt | _order_responses(prompt["prompt"], [s.response for s in sides], models)
    row["is_repaired"] = any(side.is_repaired for side in sides)
    if not is_missing(record.get("id")):
        row["id"] = record["id"]
    yield row | read_words(record, _WORDS) | read_margin(record)


def read_rewardbench(record: Record) -> Iterator[Row]:
    """Read RewardBench; the subset is the source.

    RewardBench 2 has lists of responses: each chosen one makes a row with each rejected one, with
    the id ``id/i/j``.
    """
    source = {"source": as_word(record["subset"])}
    if isinstance(record["chosen"], str):
        yield from (row | source for row in read_preference(record))
        return
    chosen, rejected = (_read_responses(record, name) for name in CHOICES)
    models = _read_models(record, len(chosen.turns) + len(rejected.turns))
    prompt = plain_cell(record, "prompt")
    is_repaired = any(cell.is_repaired for cell in (prompt, chosen, rejected))
    unread = {} if models or is_missing(record.get("models")) else {"unread": ["models"]}
    for (i, right), (j, wrong) in product(enumerate(chosen.turns), enumerate(rejected.turns)):
        pair_models = [models[i], models[len(chosen.turns) + j]] if models else [None, None]
        row = _order_responses(prompt.turns, [[right], [wrong]], pair_models)
        row |= {"id": record["id"], "part": f"{i}/{j}", "is_repaired": is_repaired}
        yield row | source | unread


def read_ranked(record: Record) -> Iterator[Row]:
    """Read NeMo RL's ranked completions: each two of different rank are a row, and lower is better.

    The weights of these rows sum to that of the record, so that a prompt counts once.
    """
    ranked = [_read_completion(cell) for cell in _parse_list(record, "completions")]
    places = [
        sorted(pair, key=lambda place: ranked[place][0])
        for pair in combinations(range(len(ranked)), 2)
        if ranked[pair[0]][0] != ranked[pair[1]][0]
    ]
    if not places:
        raise PairsError(
            f"completions has the ranks {', '.join(f'{rank:g}' for rank, _ in ranked)}; expected "
            "two that differ"
        )
    shared = read_words(record, _WORDS)
    shared |= {"weight": read_weight(record).get("weight", 1.0) / len(places)}
    shared |= {} if is_missing(record.get("id")) else {"id": record["id"]}
    for better, worse in places:
        sides = [end_conversation(record["context"], ranked[place][1]) for place in (better, worse)]
        prompt = common_prompt((f"completion {better}", f"completion {worse}"), sides)
        row = _order_responses(prompt["prompt"], [side.response for side in sides], [None, None])
        row["is_repaired"] = any(side.is_repaired for side in sides)
        yield prompt | row | shared | {"part": f"{better}/{worse}"}


def read_margin(record: Record) -> Row:
    """Return the weight of a preference: the column `weight`, or else `margin`.

    TRL subtracts the margin from the difference of rewards, which probabilities do not have. As a
    factor of the loss it is the "scaled Bradley-Terry" loss of HelpSteer2-Preference (Wang et al.,
    2024, arXiv:2410.01257), which did better there than subtracting it.
    """
    if "weight" in record or "margin" not in record:
        return read_weight(record)
    margin = as_number(record, "margin")
    if margin < 0:
        raise PairsError(
            f"margin is {margin:g}: the rejected response is the better one; expected 0 or more"
        )
    return {"weight": margin}


def end_conversation(context: Any, answer: Any) -> Exchanges:
    """Return the conversation of a context, messages or text, and an answer, text or messages."""
    before, after = (_decode_messages(cell) for cell in (context, answer))
    if isinstance(before, str):
        before = [{"role": "user", "content": before}]
    if not is_list(after):
        after = [{"role": "assistant", "content": after}]
    return split_messages([*read_messages(before), *read_messages(after)])


def _read_completion(cell: Any) -> tuple[float, Any]:
    if not isinstance(cell, dict) or not {"rank", "completion"} <= set(cell):
        raise PairsError(f"a completion is {shown(cell)}; expected a rank and a completion")
    return as_number(cell, "rank"), cell["completion"]


def _parse_list(record: Record, name: str) -> Any:
    cell = record[name]
    try:
        value = parse_json(cell) if isinstance(cell, str) else cell
    except ValueError as error:
        raise PairsError(f"{name} is {shown(cell)}; expected JSON ({error})") from None
    if not is_list(value):
        raise PairsError(f"{name} is {shown(cell)}; expected a list")
    return value


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
