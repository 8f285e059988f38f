"""What tells two fits apart."""

from tiewise.config.identity import OPERATIONAL, defining_fields, first_difference
from tiewise.config.loading import load_preset

TINY = load_preset("tiny")


def test_every_defining_field_is_a_field():
    """No operational name is misspelt: each is a field of its section."""
    for section, names in OPERATIONAL.items():
        assert names <= set(TINY.to_dict()[section])
        assert not names & set(defining_fields(TINY)[section])


def test_a_field_that_is_new_or_gone_is_a_difference():
    """Missing on one side counts."""
    assert first_difference({"a": 1}, {"a": 1, "b": 2}) == ("b", None, 2)
    assert first_difference({"a": 1, "b": 2}, {"a": 1}) == ("b", 2, None)
