"""Values of every feature: the weights of a saved model belong to these formulas."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tiewise.features.pair_features import FORMAT_VERSION, extract_features
from tiewise.features.text_counts import MAX_CHARS, count_text, shorten, split_words

VALUES = json.loads(Path(__file__).with_name("values.json").read_text(encoding="utf-8"))

MARKED = """# Plan: the total

Sure, here is what I would do, and maybe you should check it (twice)!
- Add 12 + 30; the sum is **42**.
* See http://example.org or http://example.com, please.
1. Because the table is long, I would probably use `x = [1, 2]`.
2) Is that what your team wants?

| a | b |
```python
def total(x): return sum(x)
```
<b>Finally</b>, the sum of 12 and 30 is "42". I'm sorry, I cannot say more than that.
Finally, the sum of 12 and 30 is 42. Finally, the sum of 12 and 30 is 42."""
PLAIN = " is it 42? I do not know: the total of 12 and 30 could be 42, or 41; ask your teacher?"
REFUSED = "I cannot. " * 5 + "As an AI language model, I won't.\nHuman: why?\nAssistant: ### no"
LONG = "unbelievable " * 1000 + "".join(f"supercalifragilistic{i} " for i in range(400))
FENCED = "```" * 9 + "\n" + "a b c d e f g h i j k l m n o p q r s t u v w x y z " * 4 + "A" * 300
FOREIGN = "Жили-были дед и баба. Жили они хорошо! " * 40 + "А потом"
PROMPTS = [
    ["Explain the sum: what is 12 + 30?\nWrite a short list of 2 ideas.", "Calculate the total."],
    ["Tell me a story, please", "Go on", "Go on", "And then?", "More", "More", "```x```\n\n1=1?"],
    [FOREIGN],
    [],
    ["Explain and translate this Python code: imagine you write a short list of ideas?"],
]
RESPONSES_A = [["See below.", MARKED], [REFUSED] * 7, [FOREIGN + "…"], [], [" Sure, it is 1 of 2"]]
RESPONSES_B = [["Wait.", PLAIN], [LONG] * 7, [FENCED], ["12 is 12", None], ["Sure, it is 3 of 2"]]


def test_every_feature_has_its_value() -> None:
    """A changed formula needs a new FORMAT_VERSION, so that no saved model meets other features."""
    features = extract_features(PROMPTS, RESPONSES_A, RESPONSES_B)
    assert VALUES["format_version"] == FORMAT_VERSION
    for kind in ("signed", "shared"):
        names = getattr(features, f"{kind}_names")
        assert list(names) == list(VALUES[kind])
        for name, column in zip(names, getattr(features, kind).T, strict=True):
            expected = VALUES[kind][name]
            # How small zlib packs a text may differ between its versions.
            tolerance = 0.01 if "packed" in name else 1e-6
            assert column.tolist() == pytest.approx(expected, rel=1e-5, abs=tolerance), name


def test_texts_are_cut_beyond_the_limit() -> None:
    """A text of the limit is whole; of a longer one equally many characters remain at both ends."""
    text = "a" * (MAX_CHARS // 2) + "z" * (MAX_CHARS // 2)
    assert MAX_CHARS == 16_000
    assert shorten(text) == text
    assert shorten(f"a{text}z") == text


@pytest.mark.parametrize(("name", "length"), [("early_refusal", 150), ("refusals", 2000)])
def test_refusals_are_sought_at_the_beginning(name: str, length: int) -> None:
    """A phrase that ends within the first characters counts, and one that ends later does not."""
    empty = split_words("")
    for shift, expected in ((0, 1), (1, 0)):
        text = "I cannot".rjust(length + shift, "-")
        assert count_text(text, empty, empty)[0][name] == expected


def test_short_parts_are_no_sentences() -> None:
    """A sentence has more than ten characters."""
    empty = split_words("")
    counts = count_text("0123456789. 0123456789a.", empty, empty)[0]
    assert counts["sentences"] == 1


def test_novelty_favours_new_words() -> None:
    """It is the log of A's content words that B lacks, less that of B's: 3 against 1."""
    features = extract_features([["Q"]], [["red green blue the sea"]], [["sea of foam"]])
    novelty = features.signed[0, features.signed_names.index("novelty")]
    assert np.isclose(novelty, np.log1p(3) - np.log1p(1))
