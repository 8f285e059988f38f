"""Ranks by layer and by module, from short words."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiewise.config.loading import config_from_dict
from tiewise.config.ranks import RankRule, multiply_ranks, parse_ranks, rank_of
from tiewise.errors import ConfigError

modules = st.sampled_from(["q_proj", "v_proj", "dense"])
spans = st.tuples(st.integers(0, 9), st.integers(0, 9)).map(sorted)
rules = st.builds(
    lambda rank, span, module: RankRule(rank, *(span or (None, None)), module),
    st.integers(1, 64),
    st.none() | spans,
    st.none() | modules,
).filter(lambda rule: rule.first is not None or rule.module is not None)


@given(st.lists(rules, max_size=4))
def test_rules_are_read_as_they_are_written(wanted):
    """Words and rules are two spellings of one thing."""
    assert parse_ranks([str(rule) for rule in wanted]) == wanted


@given(st.lists(rules, max_size=4), st.integers(0, 9), modules)
def test_the_last_rule_that_fits_holds(wanted, layer, module):
    """And where none fits, the default."""
    expected = 16
    for rule in wanted:
        in_layer = rule.first is None or rule.first <= layer <= rule.last
        if in_layer and (rule.module is None or rule.module == module):
            expected = rule.rank
    assert rank_of(wanted, layer, module, 16) == expected


@given(st.lists(rules, max_size=3), st.integers(0, 9), modules, st.integers(1, 5))
def test_multiplied_rules_give_multiplied_ranks(wanted, layer, module, factor):
    """In every layer and module, the default aside."""
    more = parse_ranks(multiply_ranks([str(rule) for rule in wanted], factor))
    assert rank_of(more, layer, module, 16 * factor) == factor * rank_of(wanted, layer, module, 16)


@pytest.mark.parametrize(
    "text", ["", "=4", "8", "q_proj", "q_proj=", "q_proj=0", "q_proj=-1", "1-=3", "3-1=2", "1.=2"]
)
def test_anything_else_is_refused_with_examples(text):
    """Wherever it comes from, also from a preset."""
    with pytest.raises(ConfigError, match="--lora-ranks"):
        parse_ranks([text])
    with pytest.raises(ConfigError, match="--lora-ranks"):
        config_from_dict({"model": {"lora_ranks": [text]}})
