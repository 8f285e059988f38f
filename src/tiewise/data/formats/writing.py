"""From the pairs table to files, each written whole or not at all."""

from __future__ import annotations

import csv
import json
import logging
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from tiewise.data.folds import derive_groups
from tiewise.data.formats.cells import ONE_HOT_COLUMNS
from tiewise.data.formats.conversations import join_messages
from tiewise.data.formats.parquet import write_parquet
from tiewise.data.labels import WORD_OF_WINNER, Winner
from tiewise.data.schema import COLUMNS, FURTHER_COLUMNS, TEXT_COLUMNS, check_pairs
from tiewise.errors import PairsError
from tiewise.files import atomic_path

_log = logging.getLogger(__name__)
_SUM_TOLERANCE = 1e-3


def write_pairs(pairs: pd.DataFrame, path: str | Path) -> None:
    """Write a pairs table so that :func:`tiewise.read_pairs` gives the same table back.

    Parameters
    ----------
    pairs
        A pairs table. Columns that are none of a pairs table's are left out, and named in the log.
    path
        Ends in ``.parquet`` for our own format, which keeps everything and checks itself when it
        is read, or in ``.csv`` for the Kaggle columns, followed by what else the table knows. A
        csv is of labelled rows alone, or of unlabelled ones alone.

    Raises
    ------
    PairsError
        For any other suffix, a table that is none of pairs, or labels that a csv cannot hold.
    """
    check_pairs(pairs)
    writers = {".parquet": write_parquet, ".csv": _write_csv}
    path = Path(path)
    if path.suffix not in writers:
        raise PairsError(f"{path}: expected a file that ends in {' or '.join(writers)}")
    others = [name for name in pairs if name not in (*COLUMNS, *FURTHER_COLUMNS)]
    if others:
        named = ", ".join(map(str, others))
        _log.warning("%s: without %s, which pairs tables do not have", path, named)
    writers[path.suffix](pairs.drop(columns=others), path)


def write_submission(ids: Iterable[Any], probs: npt.ArrayLike, path: str | Path) -> None:
    """Write a Kaggle submission.

    Parameters
    ----------
    ids
        Length n, in the order of the test file; repeated ids are kept.
    probs
        Shape (n, 3): A, B, tie; each in [0, 1], each row of sum 1 (to 0.001).
    path
        The csv to write, with the header ``id,winner_model_a,winner_model_b,winner_tie``. Every
        number reads back as the same float64.

    Raises
    ------
    PairsError
        Where the path does not end in .csv, ids and probabilities differ in length, or a row is no
        distribution.
    """
    if Path(path).suffix != ".csv":
        raise PairsError(f"{path}: a submission is a csv file; give a name that ends in .csv")
    ids, probs = list(ids), np.asarray(probs, dtype=np.float64)
    if probs.shape != (len(ids), 3):
        raise PairsError(
            f"{len(ids)} ids need probabilities of shape ({len(ids)}, 3), found {probs.shape}"
        )
    is_wrong = ~((probs >= 0).all(axis=1) & (np.abs(probs.sum(axis=1) - 1) <= _SUM_TOLERANCE))
    if is_wrong.any():
        row = int(is_wrong.argmax())
        raise PairsError(
            f"row {row} (id={ids[row]}): {probs[row].tolist()} are not three probabilities with "
            f"sum 1; {int(is_wrong.sum())} rows are wrong"
        )
    rows = ([name, *row] for name, row in zip(ids, probs.tolist(), strict=True))
    _write_rows(path, ["id", *ONE_HOT_COLUMNS], rows)


def write_preference(pairs: pd.DataFrame, path: str | Path) -> int:
    """Write a preference data set for TRL: ``prompt, chosen, rejected``, each a list of messages.

    Parameters
    ----------
    pairs
        A labelled pairs table.
    path
        The file to write, one JSON object a line; ends in ``.jsonl``. The prompt is the first
        user's turn, and chosen and rejected what follows. A missing turn becomes an empty message,
        and so does one that only the other side has.
        ``id`` comes along, and where they are known ``chosen_model, rejected_model, language`` and
        ``source``.

    Returns
    -------
    int
        How many rows were left out because they are ties, which a preference cannot say.

    Raises
    ------
    PairsError
        Where a row has no label, or the suffix is another.
    """
    check_pairs(pairs)
    if Path(path).suffix != ".jsonl":
        raise PairsError(f"{path}: expected a file that ends in .jsonl")
    if pairs["label"].isna().any():
        raise PairsError(f"{pairs['label'].isna().sum()} rows have no label; leave them out first")
    decided = pairs[pairs["label"] != Winner.TIE]
    lines = (json.dumps(_as_preference(row)) + "\n" for row in decided.to_dict("records"))
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.writelines(lines)
    return len(pairs) - len(decided)


def _as_preference(row: dict[Any, Any]) -> dict[str, Any]:
    chosen, rejected = ("a", "b") if row["label"] == Winner.A else ("b", "a")
    n_turns = max(len(row[name]) for name in TEXT_COLUMNS)
    prompt, *responses = (
        [*row[name], *[None] * (n_turns - len(row[name]))]
        for name in ("prompt", f"response_{chosen}", f"response_{rejected}")
    )
    conversations = [join_messages(prompt, response) for response in responses]
    words = {
        "chosen_model": row[f"model_{chosen}"],
        "rejected_model": row[f"model_{rejected}"],
        "language": row["language"],
        "source": row["source"],
    }
    return {
        "id": row["id"],
        "prompt": conversations[0][:1],
        "chosen": conversations[0][1:],
        "rejected": conversations[1][1:],
        **{name: word for name, word in words.items() if not pd.isna(word)},
    }


def _write_csv(pairs: pd.DataFrame, path: Path) -> None:
    columns = _csv_columns(pairs)
    _write_rows(path, list(columns), zip(*columns.values(), strict=True))


def _csv_columns(pairs: pd.DataFrame) -> dict[str, Iterable[Any]]:
    columns: dict[str, Iterable[Any]] = {"id": pairs["id"]}
    columns |= {name: pairs[name] for name in ("model_a", "model_b") if pairs[name].notna().any()}
    columns |= {name: map(_as_json, pairs[name]) for name in TEXT_COLUMNS}
    columns |= _winner_columns(pairs["label"])
    columns |= {name: pairs[name] for name in _informative(pairs)}
    return {name: _as_cells(values) for name, values in columns.items()}


def _winner_columns(labels: pd.Series) -> dict[str, Iterable[Any]]:
    if len(labels) and labels.isna().all():
        return {}
    if labels.isna().any():
        raise PairsError(
            f"{labels.isna().sum()} of {len(labels)} rows have no label, which a csv cannot say; "
            "write .parquet, or labelled and unlabelled rows apart"
        )
    return {name: (labels == place).astype(int) for place, name in enumerate(ONE_HOT_COLUMNS)}


def _informative(pairs: pd.DataFrame) -> Iterator[str]:
    """Name the columns that the Kaggle ones do not imply."""
    plain_words = pairs["label"].map(WORD_OF_WINNER)
    if (pairs["winner"] != plain_words).any():
        yield "winner"
    yield from (name for name in ("language", "source") if pairs[name].notna().any())
    if (pairs["group"] != derive_groups(pairs)).any():
        yield "group"
    yield from (name for name in FURTHER_COLUMNS if name in pairs.columns)


def _as_json(turns: list[str | None]) -> str:
    return json.dumps(turns, ensure_ascii=False)


def _as_cells(values: Iterable[Any]) -> Iterator[Any]:
    return ("" if pd.isna(value) else value for value in values)


def _write_rows(path: str | Path, header: Sequence[str], rows: Iterable[Iterable[Any]]) -> None:
    with (
        atomic_path(path) as temporary,
        temporary.open("w", encoding="utf-8", newline="") as file,
    ):
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)
