"""A pairs table is read back equal from every writer, or refused by row or column.

``TIEWISE_TORTURE`` sets the number of tables: 2,000 in full, 100 when quick, else 50;
``TIEWISE_TABLES`` overrides it.
"""

from __future__ import annotations

import csv
import gzip
import json
import os
import tempfile
from collections import Counter
from decimal import Decimal
from functools import partial
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.feather
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import tiewise as tw
from tiewise.data.ids import id_key
from tiewise.errors import TiewiseError

try:
    import datasets
except ImportError:
    datasets = None
try:
    import polars
except ImportError:
    polars = None

SCALE = {"full": "2000", "quick": "100"}.get(os.environ.get("TIEWISE_TORTURE", ""), "50")
N_TABLES = int(os.environ.get("TIEWISE_TABLES", SCALE))
FLAGS = ("winner_model_a", "winner_model_b", "winner_tie")
WORDS = ("model_a", "model_b", "tie")
LETTERS = ("A", "b", "TIE")
SHAPES = (
    *("lists", "words", "letters", "flags", "arena", "preference", "messages", "alpaca"),
    *("helpsteer", "ranked"),
)
NO_TIE_SHAPES = ("preference", "messages", "ranked")
"""Shapes whose records have no positions and no ties."""
SPELLED = (
    *("NA", "null", "None", "nan", "", " ", "TRUE", "1", "=1+1", "sep=,", "id", "[PAD]", "\ufeffx"),
    *(
        "a,b",
        "a;b",
        "a\tb",
        "a|b",
        '"',
        '""',
        '"a"',
        "'",
        "\\",
        "\\n",
        "a\nb",
        "a\r\nb",
        "é😀",
        "\0",
    ),
)
pytestmark = pytest.mark.timeout(3600)

texts = st.sampled_from(SPELLED) | st.text(st.characters(codec="utf-8"), max_size=12)
# Text in brackets can be a list in disguise: tests/cases/test_lists.py is about that.
plain_texts = texts.filter(lambda text: text.strip()[:1] not in ("[", "(", "{"))
turns = st.lists(texts | st.none(), max_size=3)
id_lists = {
    "integers": st.integers(-(2**53) + 1, 2**53 - 1),
    "long integers": st.integers(10**16, 10**18 - 1),
    "floats": st.integers(-(10**9), 10**9).map(float),
    "decimals": st.integers(0, 10**9).map(lambda n: Decimal(n).quantize(Decimal("1.00"))),
    "text": st.text("ab019-_. é", min_size=1, max_size=6).filter(lambda word: word == word.strip()),
    "digits": st.integers(0, 10**9).map(lambda n: f"{n:06d}"),
}
spell_flags = {
    "integers": lambda flag: flag,
    "floats": float,
    "flags": bool,
    "decimals": lambda flag: Decimal(flag).quantize(Decimal("1.0")),
    "text": str,
    "text of floats": lambda flag: f"{flag:.2f}",
}


def as_messages(prompt, response):
    """Return a conversation of one exchange."""
    return [{"role": "user", "content": prompt}, {"role": "assistant", "content": response}]


def plain_record(shape, texts, label, *, spell, spell_degree):
    """Return a record of three plain texts, without an id."""
    prompt, *answers = texts
    flags = dict(zip(FLAGS, [spell(int(label == place)) for place in range(3)], strict=True))
    by_rank = answers if label == 0 else answers[::-1]
    talks = [as_messages(prompt, answer) for answer in answers]
    context = talks[0][:1]
    completions = [
        {"rank": rank, "completion": as_messages("", answer)[1:]}
        for rank, answer in enumerate(by_rank)
    ]
    chosen = [as_messages(prompt, answer) for answer in by_rank]
    outputs = dict(zip(("instruction", "output_1", "output_2"), texts, strict=True))
    steer = {"context": context, "response1": answers[0], "response2": answers[1]}
    records = {
        "words": {**named(texts), "winner": WORDS[label]},
        "letters": {**named(texts), "winner": LETTERS[label]},
        "flags": {**named(texts), **flags},
        "arena": {
            "winner": WORDS[label], "conversation_a": talks[0], "conversation_b": talks[1],
        },
        "alpaca": {**outputs, "preference": (1, 2, 1.5)[label]},
        "helpsteer": {**steer, "overall_preference": spell_degree((-2, 3, 0)[label])},
        "ranked": {"context": context, "completions": completions},
        "messages": {"prompt": prompt, "chosen": chosen[0], "rejected": chosen[1]},
        "preference": {"prompt": prompt, "chosen": by_rank[0], "rejected": by_rank[1]},
    }  # fmt: skip
    return records[shape]


@st.composite
def written_tables(draw):
    """Draw records of a format, and the pairs that they mean: id, texts and label."""
    shape = draw(st.sampled_from(SHAPES))
    n = draw(st.integers(1, 4))
    spell = spell_flags[draw(st.sampled_from(list(spell_flags)))]
    spell_degree = draw(st.sampled_from([int, float, str, Decimal]))
    ids = draw(st.lists(id_lists[draw(st.sampled_from(list(id_lists)))], min_size=n, max_size=n))
    model = st.none() | plain_texts.filter(len)
    records, meant = [], []
    for name in ids:
        label = draw(st.integers(0, 1 if shape in NO_TIE_SHAPES else 2))
        record = {"question_id" if shape == "arena" else "id": name}
        if shape == "lists":
            flags = [spell(int(label == place)) for place in range(3)]
            cells = [draw(turns) for _ in range(3)]
            record |= {
                **named(cells),
                "model_a": draw(model),
                **dict(zip(FLAGS, flags, strict=True)),
            }
        else:
            texts = [draw(plain_texts.filter(str.strip)) for _ in range(3)]
            cells = [[text] for text in texts]
            record |= plain_record(shape, texts, label, spell=spell, spell_degree=spell_degree)
        records.append(record)
        meant.append((id_key(name), cells, label))
    return records, meant, shape


def named(cells):
    """Return three texts by the names of their columns."""
    return dict(zip(("prompt", "response_a", "response_b"), cells, strict=True))


def as_cells(records, *, ascii_only):
    """Return records with JSON text in place of lists, for files that hold text only."""
    dump = partial(json.dumps, ensure_ascii=ascii_only)
    return [
        {name: dump(cell) if isinstance(cell, list) else cell for name, cell in record.items()}
        for record in records
    ]


def plain_json(value):
    """Return what JSON holds for a number that it cannot express."""
    return float(value)


def write_csv(records, path, *, dialect="excel", encoding="utf-8", start="", **options):
    """Write with the csv module of Python, as Excel does in its dialects."""
    with path.open("w", newline="", encoding=encoding) as file:
        file.write(start)
        writer = csv.writer(file, dialect, **options)
        writer.writerow(records[0])
        writer.writerows(record.values() for record in records)


def write_excel(records, path, **options):
    """Write as Excel where the comma is the decimal point."""
    spelled = [
        {name: f"{cell:f}".replace(".", ",") if isinstance(cell, Decimal) and name != "id" else cell
         for name, cell in record.items()} for record in records
    ]  # fmt: skip
    write_csv(spelled, path, delimiter=";", encoding="utf-8-sig", **options)


def write_lines(records, path, *, as_list=False, **options):
    """Write JSON with the module of Python."""
    if as_list:
        text = json.dumps(records, default=plain_json, **options)
    else:
        text = "\n".join(json.dumps(record, default=plain_json) for record in records)
    path.write_text(text, encoding="utf-8")


def write_arrow_csv(records, path):
    """Write with pyarrow."""
    pa.csv.write_csv(pa.Table.from_pylist(records), path)


def write_gzip(records, path):
    """Write a packed csv."""
    with gzip.open(path, "wt", encoding="utf-8", newline="") as file:
        pd.DataFrame(records).to_csv(file, index=False)


def write_dictionary(records, path):
    """Write parquet with dictionaries and large strings."""
    table = pa.Table.from_pylist(records)
    columns = [
        column.dictionary_encode() if name == "winner"
        else column.cast(pa.large_string()) if pa.types.is_string(column.type) else column
        for name, column in zip(table.column_names, table.columns, strict=True)
    ]  # fmt: skip
    pa.parquet.write_table(pa.Table.from_arrays(columns, table.column_names), path)


def write_shards(records, path):
    """Write a folder of parquet shards, one a record."""
    path.mkdir()
    for shard, record in enumerate(records):
        name = f"train-{shard:05d}-of-{len(records):05d}.parquet"
        pa.parquet.write_table(pa.Table.from_pylist([record]), path / name)


def frame(records):
    """Return a data frame of records."""
    return pd.DataFrame(records)


TEXT_WRITERS = {
    "pandas": (".csv", lambda records, path: frame(records).to_csv(path, index=False)),
    "pandas, index": (".csv", lambda records, path: frame(records).to_csv(path)),
    "pandas, quoted": (
        ".csv",
        lambda records, path: frame(records).to_csv(path, index=False, quoting=csv.QUOTE_ALL),
    ),
    "pandas, semicolon": (
        ".csv",
        lambda records, path: frame(records).to_csv(path, index=False, sep=";", decimal=","),
    ),
    "pandas, tab": (
        ".tsv",
        lambda records, path: frame(records).to_csv(path, index=False, sep="\t", encoding="utf-16"),
    ),
    "pandas, gzip": (".csv.gz", write_gzip),
    "Excel": (".csv", write_csv),
    "Excel, mark": (".csv", partial(write_csv, encoding="utf-8-sig")),
    "Excel, decimal comma": (".csv", write_excel),
    "Excel, sep": (".csv", partial(write_excel, start="sep=;\r\n")),
    "Excel, Unicode text": (".csv", partial(write_csv, dialect="excel-tab", encoding="utf-16")),
    "unix": (".csv", partial(write_csv, dialect="unix")),
    "pyarrow": (".csv", write_arrow_csv),
}
LIST_WRITERS = {
    "JSON list": (".json", partial(write_lines, as_list=True)),
    "JSON list, indented": (".jsonl", partial(write_lines, as_list=True, indent=2)),
    "JSON lines": (".jsonl", write_lines),
    "JSON lines in .json": (".json", write_lines),
    "pandas, json": (".json", lambda records, path: frame(records).to_json(path, orient="records")),
    "pandas, lines": (
        ".jsonl",
        lambda records, path: frame(records).to_json(path, orient="records", lines=True),
    ),
    "pandas, parquet": (".parquet", lambda records, path: frame(records).to_parquet(path)),
    "pyarrow, parquet": (".parquet", write_dictionary),
    "pyarrow, shards": ("", write_shards),
    "pyarrow, feather": (
        ".arrow",
        lambda records, path: pa.feather.write_feather(pa.Table.from_pylist(records), path),
    ),
}
if datasets is not None:
    datasets.disable_progress_bars()
    data_set = datasets.Dataset.from_list
    TEXT_WRITERS["datasets"] = (".csv", lambda records, path: data_set(records).to_csv(path))
    LIST_WRITERS |= {
        "datasets, json": (".json", lambda records, path: data_set(records).to_json(path)),
        "datasets, parquet": (".parquet", lambda records, path: data_set(records).to_parquet(path)),
        "datasets, disk": ("", lambda records, path: data_set(records).save_to_disk(path)),
    }
if polars is not None:
    TEXT_WRITERS["polars"] = (
        ".csv",
        lambda records, path: polars.DataFrame(records).write_csv(path),
    )
    LIST_WRITERS |= {
        "polars, lines": (
            ".jsonl", lambda records, path: polars.DataFrame(records).write_ndjson(path)
        ),
        "polars, parquet": (
            ".parquet", lambda records, path: polars.DataFrame(records).write_parquet(path)
        ),
    }  # fmt: skip
FRAMES = {
    "frame": frame,
    "pyarrow table": pa.Table.from_pylist,
    **({} if datasets is None else {"data set": data_set}),
}
COUNTS = Counter()
WRITERS = [*TEXT_WRITERS, *LIST_WRITERS, *FRAMES]


def outcome(pairs, shape):
    """Return the pairs that were read: id, texts and label, or the texts in order of preference."""
    rows = []
    for row in pairs.to_dict("records"):
        cells = [row["prompt"], row["response_a"], row["response_b"]]
        name = str(row["id"]).removesuffix("/0/1") if shape == "ranked" else row["id"]
        rows.append(normal(id_key(name), cells, row["label"], shape))
    return rows


def normal(name, cells, label, shape):
    """Return a row for comparison; a preference has no positions, so the winner comes first."""
    if shape in NO_TIE_SHAPES:
        cells, label = ([cells[0], *cells[1:]] if label == 0 else [cells[0], *cells[:0:-1]]), 0
    return name, cells, label


@pytest.mark.parametrize("writer", WRITERS)
@settings(
    max_examples=max(1, N_TABLES // len(WRITERS) + 1),
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
@given(table=written_tables(), ascii_only=st.booleans())
def test_table_is_read_back(writer, table, ascii_only):
    """What is read is what was written; otherwise the row or the column is named."""
    records, meant, shape = table
    with tempfile.TemporaryDirectory() as folder:
        if writer in FRAMES:
            source = FRAMES[writer](records)
        else:
            suffix, write = (TEXT_WRITERS | LIST_WRITERS)[writer]
            source = Path(folder) / f"table{suffix}"
            is_text = writer in TEXT_WRITERS
            write(as_cells(records, ascii_only=ascii_only) if is_text else records, source)
        try:
            pairs = tw.read_pairs(source)
        except TiewiseError as error:
            COUNTS["refused"] += 1
            refusal = str(error)
        else:
            COUNTS["read"] += 1
            assert outcome(pairs, shape) == [normal(*row, shape) for row in meant]
            return
    assert any(word in refusal for word in ("row ", "column", "line ")), refusal


def test_most_tables_are_read():
    """The property is about tables that are read, not about refusals."""
    print(f"{COUNTS['read']} tables read back equal, {COUNTS['refused']} refused")  # noqa: T201
    assert COUNTS["read"] > 0.9 * COUNTS.total()
