"""Groups, first texts and JSON at the border of what is accepted."""

import pandas as pd
import pytest

from tiewise.data.first_text import compose, first_user_text
from tiewise.data.folds import read_groups
from tiewise.data.formats import read_pairs
from tiewise.data.formats.sources import parse_json
from tiewise.data.ids import as_integer
from tiewise.errors import FoldError, PairsError


def test_groups_are_compared_as_numbers():
    """1 and 1.0 are one group, also in tuples; a tuple with a missing part is none."""
    assert read_groups([1, 1.0, 2.5]).tolist() == ["1", "1", "2.5"]
    assert read_groups([("s", 1), ("s", 1.0)]).tolist() == ["('s', 1)"] * 2
    for group in (("s", None), ("s", float("nan")), float(2**53), [1]):
        with pytest.raises(FoldError, match="groups is"):
            read_groups(["x", group])


INVISIBLE = "ad 34f 61c 180b 180f 200b 200f 202a 202e 2060 206f fe00 fe0f feff e0100 e01ef"


@pytest.mark.parametrize("code", INVISIBLE.split())
def test_invisible_characters_are_left_out(code):
    """Both ends of each range of characters without a width."""
    assert compose(f"a{chr(int(code, 16))}é") == "aé"


@pytest.mark.parametrize("name", ["Assistant", "AI", "Bot"])
def test_speakers_of_a_conversation(name):
    """Each name of an assistant shows that a prompt holds a whole conversation."""
    assert first_user_text([f"Human: Hi\n{name}: Yo\nUser: And?"]) == "Hi"
    assert first_user_text(["Human: Hi\nUser: And?"]) == "Human: Hi\nUser: And?"


def test_json_may_be_nested_a_hundred_deep():
    """One level more is refused, and so is a key that occurs twice."""
    parse_json("[" * 100 + "]" * 100)
    with pytest.raises(PairsError, match="nested more than 100 deep"):
        parse_json("[" * 101 + "]" * 101)
    with pytest.raises(PairsError, match="names a key twice"):
        parse_json('{"a": 1, "a": 1}')


def test_shards_have_the_same_columns(tmp_path):
    """Shards of a folder with other columns are not one table."""
    rows = pd.DataFrame({"prompt": ["q"], "chosen": ["x"], "rejected": ["y"]})
    rows.to_csv(tmp_path / "t-0.csv", index=False)
    rows.assign(more=1).to_csv(tmp_path / "t-1.csv", index=False)
    with pytest.raises(PairsError, match=r"t-1\.csv and t-0\.csv have different columns"):
        read_pairs(tmp_path)


@pytest.mark.parametrize(
    ("word", "integer"),
    [
        ("9007199254740991.0", 2**53 - 1),
        ("9007199254740992.0", None),
        ("-9007199254740993.0", None),
        ("9e99", None),
        ("123456789012345678", 123456789012345678),
    ],
)
def test_float_ids_end_where_floats_are_rounded(word, integer):
    """From 2**53 on, the text of a float may be another integer's; plain digits are exact."""
    assert as_integer(word) == integer
