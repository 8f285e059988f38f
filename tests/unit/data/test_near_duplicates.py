"""Nearly equal prompts are merged, and others are not, in linear time."""

from __future__ import annotations

import random
import string
import sys
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strategies import clean_text
from tiewise.data import near_duplicates
from tiewise.data.near_duplicates import choose_band_size, merge_near_duplicates, share_of
from tiewise.data.pairs import build_pairs
from tiewise.errors import PairsError


def asked(prompts, **columns):
    """Return a pairs table of these prompts."""
    n = len(prompts)
    texts = {"prompt": [[prompt] for prompt in prompts], "response_a": [["x"]] * n}
    return build_pairs({"id": range(n), **texts, "response_b": [["y"]] * n, **columns})


@cache
def shingles(text):
    """Return the set of five-character pieces, as an independent computation."""
    return {text[start : start + 5] for start in range(max(1, len(text) - 4))}


def jaccard(text, other):
    pieces, others = shingles(text), shingles(other)
    return len(pieces & others) / len(pieces | others)


def merge_by_all_comparisons(pairs, threshold):
    """Merge groups as the package does, but compare each text with every leader."""
    firsts = pairs.drop_duplicates("group").sort_values("group")
    texts = dict(zip(firsts["group"], (prompt[0] for prompt in firsts["prompt"]), strict=True))
    leaders, merged = [], {}
    for group, text in texts.items():
        near = (other for other in leaders if jaccard(text, texts[other]) >= threshold)
        merged[group] = next(near, group)
        if merged[group] == group:
            leaders.append(group)
    return [merged[group] for group in pairs["group"]]


def related_texts(n, *, seed, n_sources=12, length=60):
    """Return lower-case texts, each a source with some characters changed."""
    generator = random.Random(seed)
    letters = string.ascii_lowercase
    sources = ["".join(generator.choices(letters, k=length)) for _ in range(n_sources)]
    texts = []
    for place in range(n):
        characters = list(sources[place % n_sources])
        for position in generator.sample(range(length), generator.randint(0, 5)):
            characters[position] = generator.choice(letters)
        texts.append("".join(characters))
    return texts


def templated_texts(n, *, n_words=170, n_own=35, seed=0):
    """Return texts that share all words but the last ones, about two thirds of their pieces."""
    generator = random.Random(seed)
    words = ["".join(generator.choices(string.ascii_lowercase, k=6)) for _ in range(5_000)]
    fixed = " ".join(generator.choices(words, k=n_words - n_own))
    return [f"{fixed} {' '.join(generator.choices(words, k=n_own))}" for _ in range(n)]


ESSAY = "Write an essay about the history of bridges in mountain valleys, with three examples."


def test_edited_prompts_are_near_duplicates():
    """Small edits are found; a common beginning is not enough."""
    prompts = [
        ESSAY,
        ESSAY.replace("three", "four"),
        ESSAY + " Please!",
        "Write an essay about the history of tea, and be brief.",
        "What is 2+2?",
    ]
    near = merge_near_duplicates(asked(prompts))
    assert len(set(near[:3])) == 1
    assert len(set(near)) == 3


@given(prompts=st.lists(clean_text(), max_size=6), data=st.data())
def test_merging_keeps_groups_together(prompts, data):
    """Rows of one group get the name of one group, in any order of the rows."""
    pairs = asked(prompts)
    near = merge_near_duplicates(pairs)
    joined = dict(zip(pairs["group"], near, strict=True))
    assert [joined[group] for group in pairs["group"]] == near.tolist()
    assert set(near) <= set(pairs["group"])
    order = data.draw(st.permutations(range(len(prompts))))
    shuffled = merge_near_duplicates(pairs.iloc[list(order)].reset_index(drop=True))
    assert shuffled.tolist() == [near[row] for row in order]


@given(order=st.permutations(range(4)))
def test_every_text_of_a_group_counts(order):
    """A group of a session is merged by any of its texts, in any order of the rows."""
    prompts = ["What is the weather like?", ESSAY, ESSAY + " Please!", "Thanks a lot for all."]
    sessions = ["s", "s", None, "t"]
    pairs = asked([prompts[row] for row in order], session=[sessions[row] for row in order])
    near = dict(zip(order, merge_near_duplicates(pairs), strict=True))
    assert near[0] == near[1] == near[2] != near[3]


@given(prompts=st.lists(clean_text(), max_size=6))
def test_threshold_limits_merging(prompts):
    """A higher threshold merges no more groups than a lower one."""
    pairs = asked(prompts)
    strict = merge_near_duplicates(pairs, threshold=1.0)
    loose = merge_near_duplicates(pairs, threshold=0.5)
    assert len(set(loose)) <= len(set(strict)) <= pairs["group"].nunique()


@pytest.mark.parametrize("threshold", [0.2, 0.5, 0.65, 0.8, 1.0])
def test_merging_equals_all_comparisons(threshold):
    """At every threshold at least 99 % of the groups are those of a comparison of all pairs."""
    n_equal = n_rows = n_merged = 0
    for seed in range(3):
        pairs = asked(related_texts(100, seed=seed))
        expected = merge_by_all_comparisons(pairs, threshold)
        found = merge_near_duplicates(pairs, threshold=threshold).tolist()
        n_equal += sum(one == other for one, other in zip(found, expected, strict=True))
        n_rows, n_merged = n_rows + len(pairs), n_merged + len(pairs) - len(set(expected))
    assert n_merged > 0
    assert n_equal >= 0.99 * n_rows


@given(prompts=st.lists(st.text("ab ", min_size=1, max_size=12), min_size=2, max_size=2))
def test_share_is_the_jaccard_index(prompts):
    """The share equals that of the sets of pieces, also of texts shorter than a piece."""
    first, second = (near_duplicates._split(prompt) for prompt in prompts)
    assert share_of(first, second) == jaccard(*prompts)


def test_pair_at_the_threshold_is_merged():
    """Two texts with exactly four fifths of their pieces in common are near at 0.8, not above."""
    first, second = "abcdefghijkl", "abcdefghijklmn"
    assert jaccard(first, second) == 0.8
    pairs = asked([first, second])
    assert len(set(merge_near_duplicates(pairs, threshold=0.8))) == 1
    assert len(set(merge_near_duplicates(pairs, threshold=0.8001))) == 2


def test_bands_follow_from_the_threshold():
    """Two texts at the threshold share a band with a probability of at least 0.995."""
    for threshold in (0.2, 0.3, 0.5, 0.7, 0.8, 0.95, 1.0):
        size = choose_band_size(threshold)
        assert 120 % size == 0
        assert 1 - (1 - threshold**size) ** (120 // size) >= 0.995


@pytest.mark.parametrize("threshold", [0.0, -0.5, 1.01, float("nan")])
def test_threshold_must_be_a_share(threshold):
    """A threshold outside (0, 1] is refused."""
    with pytest.raises(PairsError, match="threshold is"):
        merge_near_duplicates(asked(["a", "b"]), threshold=threshold)


def count_comparisons(monkeypatch, prompts):
    """Return how often two texts are compared, and how many are split into pieces."""
    counts = {"share_of": 0, "_split": 0}

    def counted(name):
        function = getattr(near_duplicates, name)

        def call(*words):
            counts[name] += 1
            return function(*words)

        return call

    with monkeypatch.context() as patched:
        for name in counts:
            patched.setattr(near_duplicates, name, counted(name))
        merge_near_duplicates(asked(prompts))
    return counts


@pytest.mark.parametrize("n_own", [35, 60, 24])
def test_comparisons_grow_with_the_rows(monkeypatch, n_own):
    """Prompts of one template are compared with at most 32 others each, and split once."""
    for n in (100, 200):
        counts = count_comparisons(monkeypatch, templated_texts(n, n_own=n_own))
        assert counts["_split"] == n
        assert counts["share_of"] <= 32 * n


def test_copies_in_a_template_are_found():
    """Copies with one word changed are merged, among two hundred prompts of one template."""
    texts = templated_texts(200, n_own=40)
    copies = [f"{text} please" for text in texts[:50]]
    near = merge_near_duplicates(asked(texts + copies))
    assert (near[200:] == near[:50]).mean() > 0.98
    assert len(set(near)) >= 198


def test_long_work_shows_a_bar(monkeypatch):
    """A progress bar is updated once for each prompt."""
    bars = []

    class Bar:
        def __init__(self, total, **options):
            self.total, self.n, self.options = total, 0, options
            bars.append(self)

        def __enter__(self):
            return self

        def __exit__(self, *error):
            return None

        def update(self):
            self.n += 1

    monkeypatch.setattr(near_duplicates, "progress_bar", Bar)
    merge_near_duplicates(asked(["a", "b", "a"]))
    assert [(bar.total, bar.n) for bar in bars] == [(2, 2)]


def test_near_duplicates_need_rensa(monkeypatch):
    """Without rensa, an ImportError names it."""
    monkeypatch.setitem(sys.modules, "rensa", None)
    with pytest.raises(ImportError, match="rensa"):
        merge_near_duplicates(asked(["a", "b"]))


@pytest.mark.parametrize(("n_equal", "are_merged"), [(2_000, True), (1_000, False)])
def test_first_2000_characters_are_compared(n_equal, are_merged):
    """Texts that differ only later are near; texts that differ within them are not."""
    draw = random.Random(0)
    one, other = ("".join(draw.choices(string.ascii_lowercase, k=9_000)) for _ in range(2))
    groups = merge_near_duplicates(asked([one, one[:n_equal] + other[n_equal:]]))
    assert (groups[0] == groups[1]) == are_merged
