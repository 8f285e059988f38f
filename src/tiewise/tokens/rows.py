"""Each turn is tokenised once and stored; rows of ids are assembled from the store.

What is cached: the ids of every turn of every field, bounded to the turn's first and last 4,096
tokens. By which key: the texts, the tokenizer (without the state that truncating and padding leave
behind), the code that tokenises and the version of the tokenizers library. Nothing that a template
decides is part of it, so another length, truncation or order costs no tokenisation.

The ``notebook`` template joins the turns to one string and tokenises that, control tokens parsed,
as the notebook did; it has entries of its own.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib.resources
import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import tokenizers

from tiewise.errors import TemplateError
from tiewise.files import digest_bytes, digest_json
from tiewise.tokens.arrays import Arrays, remember_arrays
from tiewise.tokens.assembly import (
    TokenizedPairs,
    TokenRows,
    Turns,
    assemble,
    assemble_strings,
    token_lengths,
)
from tiewise.tokens.columns import Column
from tiewise.tokens.controls import controls_from_vocabulary
from tiewise.tokens.template import Cut, Name, Template, Truncation, notebook_template
from tiewise.tokens.turns import Bound, Ragged, encode_texts
from tiewise.tokens.vocabulary import TextTokenizer, load_tokenizer

__all__ = [
    "FIELDS",
    "TextTokenizer",
    "TokenRows",
    "TokenizedPairs",
    "Turns",
    "assemble",
    "build_template",
    "load_tokenizer",
    "token_lengths",
    "token_rows",
    "tokenize",
]

FIELDS = ("prompt", "response_a", "response_b")

_TURN_BOUND = Bound(head=4096, tail=4096)


def token_rows(
    pairs: pd.DataFrame,
    tokenizer: TextTokenizer,
    template: Template,
    *,
    cache_dir: Path | str | None,
    is_swapped: bool = False,
) -> TokenRows:
    """Turn a pairs table into rows of ids.

    Parameters
    ----------
    pairs
        With columns `prompt`, `response_a`, `response_b`; each cell a list of str or None.
    tokenizer
        From `load_tokenizer`.
    template
        From `build_template`, or read back from a run.
    cache_dir
        Where tokens are remembered; None remembers nothing.
    is_swapped
        Show response B first, as A.

    Returns
    -------
    TokenRows
        One row for each pair, in the order of `pairs`.
    """
    if template.name == "fields":
        tokenized = tokenize(pairs, tokenizer, cache_dir=cache_dir)
        return assemble(tokenized, template, is_swapped=is_swapped)
    names = ("prompt", "response_b", "response_a") if is_swapped else FIELDS
    columns = [Column.of(pairs[name]) for name in names]
    bound = Bound(head=max(template.max_length, sum(_TURN_BOUND)), tail=0)
    arrays = remember_arrays(
        cache_dir,
        _key("strings", tokenizer, [bound, *(column.digest() for column in columns)]),
        lambda: _tokenize_strings(_notebook_strings(columns), tokenizer, bound),
    )
    return assemble_strings(Ragged(**arrays), template)


def tokenize(
    pairs: pd.DataFrame, tokenizer: TextTokenizer, *, cache_dir: Path | str | None
) -> TokenizedPairs:
    """Tokenise every turn of every field, or read it from the cache.

    Parameters
    ----------
    pairs, tokenizer, cache_dir
        See `token_rows`. A field without a turn is a missing turn.

    Returns
    -------
    TokenizedPairs
        Its arrays are read-only and memory-mapped when they come from the cache. The original
        length of a turn is exact up to 49,152 characters and estimated beyond.

    Raises
    ------
    PairsError
        When a text cannot be encoded as UTF-8.
    """
    columns = [Column.of(pairs[name]) for name in FIELDS]
    arrays = remember_arrays(
        cache_dir,
        _key("turns", tokenizer, [column.digest() for column in columns]),
        lambda: _tokenize_columns(columns, tokenizer),
    )
    return TokenizedPairs(*(_turns_of(arrays, name) for name in FIELDS))


def build_template(
    tokenizer: TextTokenizer,
    *,
    name: Name = "fields",
    max_length: int = 2048,
    truncation: Truncation = "balanced",
    cut: Cut = "middle",
) -> Template:
    """Build the template that fits a backbone's tokenizer.

    Parameters
    ----------
    tokenizer
        From `load_tokenizer`.
    name, max_length, truncation, cut
        See `Template`; the notebook's template cuts right whatever is asked.

    Raises
    ------
    TemplateError
        When the vocabulary has no tokens that can serve, or `max_length` is too short.
    """
    special = tokenizer.special
    if name == "notebook":
        return _notebook_template(tokenizer, max_length)
    controls = controls_from_vocabulary(
        tokenizer.reserved, tokenizer.encode, pad=special.get("pad_token")
    )
    return Template(controls, name, max_length, truncation, cut)


def _key(kind: str, tokenizer: TextTokenizer, contents: Sequence[object]) -> str:
    versions = [_digest_code(), tokenizers.__version__]
    return digest_json([kind, *versions, tokenizer.digest, *contents])


@functools.cache
def _digest_code() -> str:
    """Digest what decides the ids of a text: code that was changed must not find old entries."""
    package = importlib.resources.files("tiewise.tokens")
    names = ("rows.py", "columns.py", "turns.py", "vocabulary.py", "ragged.py")
    return digest_bytes(b"".join(package.joinpath(name).read_bytes() for name in names))


def _tokenize_columns(columns: Sequence[Column], tokenizer: TextTokenizer) -> Arrays:
    texts = dict.fromkeys(itertools.chain.from_iterable(column.texts for column in columns))
    position = {text: index for index, text in enumerate(texts)}
    unique = encode_texts(list(texts), tokenizer.encode_turns, _TURN_BOUND)
    arrays: Arrays = {}
    for name, column in zip(FIELDS, columns, strict=True):
        index = np.fromiter(map(position.__getitem__, column.texts), np.int64, len(column.texts))
        turns = unique.take(index)
        parts = {**vars(turns), "rows": column.rows, "missing": column.missing}
        arrays |= {f"{name}.{part}": array for part, array in parts.items()}
    return arrays


def _turns_of(arrays: Arrays, name: str) -> Turns:
    parts = (field.name for field in dataclasses.fields(Turns))
    return Turns(**{part: arrays[f"{name}.{part}"] for part in parts})


def _notebook_strings(columns: Sequence[Column]) -> list[str]:
    headers = ("<prompt>: ", "\n\n<response_a>: ", "\n\n<response_b>: ")
    fields = (
        [header + " ".join(turns) for turns in column.cells()]
        for header, column in zip(headers, columns, strict=True)
    )
    return ["".join(parts) for parts in zip(*fields, strict=True)]


def _tokenize_strings(strings: list[str], tokenizer: TextTokenizer, bound: Bound) -> Arrays:
    return dict(vars(encode_texts(strings, tokenizer.encode_strings, bound)))


def _notebook_template(tokenizer: TextTokenizer, max_length: int) -> Template:
    special, ids = tokenizer.special, tokenizer.vocabulary
    begin = ids.get(special.get("bos_token") or special.get("cls_token") or "<bos>")
    end = ids.get(special.get("eos_token") or special.get("sep_token") or "<eos>")
    pad = ids.get(special.get("pad_token") or "<pad>", end)
    if begin is None or end is None or pad is None:
        message = (
            "The notebook's template needs a token that begins and one that ends a text; the "
            f"tokenizer declares {special or 'none'}. Name them in tokenizer_config.json."
        )
        raise TemplateError(message)
    return notebook_template(begin=begin, end=end, pad=pad, max_length=max_length)
