"""Write pairs tables and submissions to files; each file is written completely or not at all."""

from __future__ import annotations

import csv
import functools
import json
import logging
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from tiewise.data.class_columns import check_order, read_columns
from tiewise.data.first_text import SYSTEM_COLUMN, split_system
from tiewise.data.folds import derive_groups
from tiewise.data.formats.cells import Message, join_messages
from tiewise.data.formats.parquet import write_parquet, write_parquet_parts
from tiewise.data.labels import ONE_HOT_COLUMNS, WORD_OF_WINNER, Winner
from tiewise.data.pairs import COLUMNS, FURTHER_COLUMNS, TEXT_COLUMNS, check_pairs
from tiewise.errors import PairsError
from tiewise.files import atomic_path

_log = logging.getLogger(__name__)
CONVERTED = (".parquet", ".csv", ".jsonl")
_SUM_TOLERANCE = 1e-3


def write_pairs(pairs: pd.DataFrame, path: str | Path) -> None:
    """Write a pairs table so that :func:`tiewise.read_pairs` returns the same table.

    Parameters
    ----------
    pairs
        A pairs table. Columns that pairs tables do not have are not written; the log names them.
    path
        Ends in ``.parquet``, which detects damage, or in ``.csv`` for the Kaggle columns followed
        by the others. In a csv either all rows have labels or none has.

    Raises
    ------
    PairsError
        For any other suffix, a table that is no pairs table, or labels that a csv cannot hold.
    """
    check_pairs(pairs)
    path = check_suffix(path, ".parquet", ".csv")
    others = [name for name in pairs if name not in (*COLUMNS, *FURTHER_COLUMNS)]
    if others:
        named = ", ".join(map(str, others))
        _log.warning("%s: not written, as pairs tables have no such columns: %s", path, named)
    pairs = pairs.drop(columns=others)
    if path.suffix == ".parquet":
        write_parquet(pairs, path)
    else:
        _write_pairs_csv(pairs, [pairs], path, derive_groups(pairs))


def write_converted(
    pairs: pd.DataFrame, parts: Iterable[pd.DataFrame], path: Path, groups: npt.NDArray[np.str_]
) -> int:
    """Write the parts of a pairs table by the suffix of `path`; return the number of ties left out.

    `pairs` has all rows, without texts; `groups` are those that its prompts and sessions imply.
    """
    suffix = check_suffix(path, *CONVERTED).suffix
    if suffix == ".jsonl":
        return _write_preference_parts(pairs, parts, path)
    if suffix == ".parquet":
        write_parquet_parts(pairs, parts, path)
    else:
        _write_pairs_csv(pairs, parts, path, groups)
    return 0


def write_submission(ids: Iterable[Any], probs: npt.ArrayLike, path: str | Path) -> None:
    """Write a Kaggle submission.

    Parameters
    ----------
    ids
        Length n, in the order of the test file; repeated ids are kept.
    probs
        Shape (n, 3): A, B, tie; each in [0, 1], each row with sum 1 (to 0.001). The columns of a
        table are found by name.
    path
        The csv to write, with the header ``id,winner_model_a,winner_model_b,winner_tie``. Every
        number reads back as the same float64.

    Raises
    ------
    PairsError
        When the path does not end in .csv, ids and probabilities differ in length or in the order
        of their index, a table has other columns, or a row is no distribution.
    """
    path = check_suffix(path, ".csv")
    check_order(ids=ids, probs=probs, error=PairsError)
    probs = np.asarray(read_columns(probs, "probs", error=PairsError), dtype=np.float64)
    ids = list(ids)
    if probs.shape != (len(ids), 3):
        raise PairsError(f"probs have the shape {probs.shape}; expected ({len(ids)}, 3)")
    is_wrong = ~((probs >= 0).all(axis=1) & (np.abs(probs.sum(axis=1) - 1) <= _SUM_TOLERANCE))
    if is_wrong.any():
        row = int(is_wrong.argmax())
        raise PairsError(
            f"row {row} (id={ids[row]}): {probs[row].tolist()} are not three probabilities with "
            f"sum 1; {int(is_wrong.sum())} rows are wrong"
        )
    columns = dict(zip(ONE_HOT_COLUMNS, probs.T, strict=True))
    _write_csv([pd.DataFrame({"id": pd.Series(ids, dtype=object), **columns})], path)


def write_preference(pairs: pd.DataFrame, path: str | Path) -> int:
    """Write a preference data set for TRL: ``prompt, chosen, rejected``, each a list of messages.

    Parameters
    ----------
    pairs
        A labelled pairs table.
    path
        The .jsonl file to write. The prompt is the system text, if there is one, and the user's
        first turn; chosen and rejected are what follows. A missing turn becomes an empty message.
        ``id`` is written too, and ``chosen_model``, ``rejected_model``, ``language`` and ``source``
        where they are known.

    Returns
    -------
    int
        The number of ties, which are not written because a preference cannot express them.

    Raises
    ------
    PairsError
        When a row has no label, or for any other suffix.
    """
    check_pairs(pairs)
    return _write_preference_parts(pairs, [pairs], check_suffix(path, ".jsonl"))


def _write_preference_parts(pairs: pd.DataFrame, parts: Iterable[pd.DataFrame], path: Path) -> int:
    if pairs["label"].isna().any():
        raise PairsError(f"{pairs['label'].isna().sum()} rows have no label; remove them first")
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        for part in parts:
            decided = part[part["label"] != Winner.TIE]
            file.writelines(
                json.dumps(_as_preference(r)) + "\n" for r in decided.to_dict("records")
            )
    return int((pairs["label"] == Winner.TIE).sum())


def check_suffix(path: str | Path, *suffixes: str) -> Path:
    """Return a path that ends in one of these; else raise PairsError."""
    if Path(path).suffix not in suffixes:
        raise PairsError(f"{path}: expected a file that ends in {' or '.join(suffixes)}.")
    return Path(path)


def _as_preference(row: dict[Any, Any]) -> dict[str, Any]:
    chosen, rejected = ("a", "b") if row["label"] == Winner.A else ("b", "a")
    n_turns = max(len(row[name]) for name in TEXT_COLUMNS)
    prompt, *responses = (
        [*row[name], *[None] * (n_turns - len(row[name]))]
        for name in ("prompt", f"response_{chosen}", f"response_{rejected}")
    )
    conversations = [join_messages(prompt, response) for response in responses]
    words = {"chosen_model": row[f"model_{chosen}"], "rejected_model": row[f"model_{rejected}"]}
    words |= {name: row[name] for name in ("language", "source")}
    return {
        "id": row["id"],
        "prompt": _prompt_messages(row),
        "chosen": conversations[0][1:],
        "rejected": conversations[1][1:],
        **{name: word for name, word in words.items() if not pd.isna(word)},
    }


def _prompt_messages(row: dict[Any, Any]) -> list[Message]:
    first_turn = row["prompt"][0] if row["prompt"] else None
    system, text = split_system(first_turn, row.get(SYSTEM_COLUMN))
    user = [] if system and text is None else [{"role": "user", "content": text or ""}]
    return [*([{"role": "system", "content": system}] if system else []), *user]


def _write_pairs_csv(
    pairs: pd.DataFrame,
    parts: Iterable[pd.DataFrame],
    path: Path,
    groups: npt.NDArray[np.str_],
) -> None:
    models = [name for name in ("model_a", "model_b") if pairs[name].notna().any()]
    as_json = functools.partial(json.dumps, ensure_ascii=False)
    further = [*_columns_not_implied(pairs, groups)]
    has_labels = bool(_one_hot(pairs["label"]))

    def spell(part: pd.DataFrame) -> pd.DataFrame:
        texts = {name: part[name].map(as_json) for name in TEXT_COLUMNS}
        labels = _one_hot(part["label"]) if has_labels else {}
        columns = ["id", *models, *texts, *labels, *further]
        return part.assign(**texts, **labels)[columns]

    _write_csv(map(spell, parts), path)


def _one_hot(labels: pd.Series) -> dict[str, pd.Series]:
    if len(labels) and labels.isna().all():
        return {}
    if labels.isna().any():
        raise PairsError(
            f"{labels.isna().sum()} of {len(labels)} rows have no label, which a csv cannot hold; "
            "write .parquet, or labelled and unlabelled rows to two files"
        )
    return {name: (labels == place).astype(int) for place, name in enumerate(ONE_HOT_COLUMNS)}


def _columns_not_implied(pairs: pd.DataFrame, groups: npt.NDArray[np.str_]) -> Iterator[str]:
    """Yield the columns that do not follow from Kaggle's."""
    if (pairs["winner"] != pairs["label"].map(WORD_OF_WINNER)).any():
        yield "winner"
    yield from (name for name in ("language", "source") if pairs[name].notna().any())
    if (pairs["group"] != groups).any():
        yield "group"
    yield from (name for name in FURTHER_COLUMNS if name in pairs)


def _write_csv(tables: Iterable[pd.DataFrame], path: Path) -> None:
    with atomic_path(path) as temporary:
        for number, table in enumerate(tables):
            append_csv(table, temporary, has_header=not number)


def append_csv(table: pd.DataFrame, path: Path, *, has_header: bool) -> None:
    """Append a table to a csv file, with or without the names of its columns."""
    words = table.select_dtypes(["string", "object"])
    # Python's csv module before 3.13 does not quote a field because of a carriage return.
    has_return = any("\r" in str(cell) for name in words for cell in words[name])
    quoting: Literal[0, 2] = csv.QUOTE_NONNUMERIC if has_return else csv.QUOTE_MINIMAL
    table.to_csv(
        path, mode="a", header=has_header, index=False, lineterminator="\n", quoting=quoting
    )
