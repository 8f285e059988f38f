"""Nulls and types that databases and spreadsheets make of texts, labels and ids."""

import datetime
import uuid
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest

import tiewise as tw
from tiewise.errors import TiewiseError

FLAGS = ("winner_model_a", "winner_model_b", "winner_tie")
TEXTS = {"prompt": ['["p"]'], "response_a": ['["a"]'], "response_b": ['["b"]']}


def one_row(**cells):
    """Return a frame of one row with Kaggle's columns, some cells replaced."""
    columns = {"id": [7], **TEXTS, **dict(zip(FLAGS, ([0], [1], [0]), strict=True))}
    columns |= {name: pd.Series([cell], dtype=object) for name, cell in cells.items()}
    return pd.DataFrame(columns)


@pytest.mark.parametrize(
    ("zero", "one"),
    [
        (Decimal(0), Decimal("1.00")),
        ("0.0", "1.00"),
        ("0,0", "1,0"),
        (False, True),
        (np.bool_(False), np.bool_(True)),
        (np.int8(0), np.int8(1)),
        (np.float32(0), np.float32(1)),
        ("FALSE", "TRUE"),
        ("0E0", "1E0"),
    ],
    ids=repr,
)
def test_zero_and_one_of_any_type(zero, one):
    """Winners are compared as numbers, however a table spells them."""
    frame = one_row(winner_model_a=zero, winner_model_b=one, winner_tie=zero)
    assert tw.read_pairs(frame)["label"].tolist() == [1]


@pytest.mark.parametrize(
    "cell",
    [
        datetime.date(1970, 1, 1),
        datetime.timedelta(1),
        pd.Timestamp(1),
        b"1",
        b"\x01",
        uuid.UUID(int=1),
        "1,000",
        "1_0",
        "yes",
        Decimal("NaN"),
        Decimal("1.01"),
    ],
    ids=repr,
)
def test_other_types_are_no_winner(cell):
    """A date, bytes or another word is refused with its row."""
    with pytest.raises(TiewiseError, match=r"id=7.*exactly one must be 1"):
        tw.read_pairs(one_row(winner_model_b=cell))


@pytest.mark.parametrize("label", [1, 1.0, "1", "1.0", Decimal("1.00"), np.int8(1), True], ids=repr)
def test_labels_of_any_type(label):
    """The column `label` is compared as a number too."""
    words = dict.fromkeys(("winner", "model_a", "model_b", "language", "group", "source"))
    lists = {name: [["x"]] for name in TEXTS}
    frame = pd.DataFrame({"id": [7], **lists, "label": pd.Series([label], dtype=object), **words})
    assert tw.read_pairs(frame)["winner"].tolist() == ["model_b"]


@pytest.mark.parametrize("cell", [b"gpt", ["gpt"], {"name": "gpt"}, pd.Timestamp(1)])
def test_other_types_are_no_word(cell):
    """The name of a model is text; bytes do not become the text of their Python literal."""
    with pytest.raises(TiewiseError, match="id=7"):
        tw.read_pairs(one_row(model_a=cell))


@pytest.mark.parametrize(
    ("weight", "value"), [("0,25", 0.25), (Decimal("0.5"), 0.5), (np.float32(2), 2), (True, 1)]
)
def test_weights_of_any_type(weight, value):
    """A decimal comma is read where it cannot separate thousands."""
    assert tw.read_pairs(one_row(weight=weight))["weight"].tolist() == [value]


@pytest.mark.parametrize("weight", ["1,000", "12,345", "1_0", b"1", pd.Timestamp(1), "1.000,5"])
def test_unclear_weights_are_refused(weight):
    """A comma that may separate thousands is refused with the row and the column."""
    with pytest.raises(TiewiseError, match=r"id=7.*weight is"):
        tw.read_pairs(one_row(weight=weight))
