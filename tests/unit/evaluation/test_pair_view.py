"""A pair is shown whole, and nothing in it is more than text."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from strategies import any_text
from tiewise.errors import PairsError, ScoresError
from tiewise.evaluation.pair_view import show_pair
from tiewise.pairs.schema import build_pairs

turns = st.lists(any_text() | st.text("<b>&amp;\"'/ \n") | st.none(), min_size=1, max_size=3)


class Reader(HTMLParser):
    """Collects the tags and the text of each cell."""

    def __init__(self):
        super().__init__(convert_charrefs=True)
        self.tags, self.cells = set(), []

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        if tag == "td":
            self.cells.append("")

    def handle_data(self, data):
        if self.cells:
            self.cells[-1] += data


@example(prompt=["<b>&amp;</b>"], one=["</td><script>"], other=[None, '"'])
@given(prompt=turns, one=turns, other=turns)
def test_every_turn_is_in_a_cell_and_is_text_alone(prompt, one, other):
    """Read as HTML, the cells hold the turns to the character, and no tag is not ours."""
    view = show_pair({"prompt": prompt, "response_a": one, "response_b": other})
    reader = Reader()
    reader.feed(view._repr_html_().replace("\r", ""))
    assert reader.tags <= {"table", "caption", "thead", "tbody", "tr", "th", "td", "em"}
    n = max(map(len, (prompt, one, other)))
    for place, side in enumerate((prompt, one, other)):
        shown = [reader.cells[3 * turn + place] for turn in range(n)]
        whole = [*side, *[None] * (n - len(side))]
        expected = ["(missing)" if turn is None else turn.replace("\r", "") for turn in whole]
        assert shown == expected


@given(text=any_text())
def test_printed_it_commands_no_terminal(text):
    """Control characters are spelled out."""
    printed = str(show_pair({"prompt": text, "response_a": text, "response_b": text}))
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", printed)


def test_a_row_of_the_table_shows_vote_models_and_probabilities():
    """Who won stands over the winner; hostile names are escaped as texts are."""
    texts = {"prompt": [["p"]], "response_a": [["a"]], "response_b": [["b"]]}
    pairs = build_pairs({"id": [1], **texts, "winner": ["model_b"], "model_a": ["<b>m</b>"]})
    for row in (pairs, pairs.iloc[0], pairs.iloc[0].to_dict()):
        view = show_pair(row, [0.25, 0.5, 0.25])
        assert view.winner == "model_b"
        page = view._repr_html_()
        assert "<th>A: &lt;b&gt;m&lt;/b&gt;</th><th>B (won)</th>" in page
        assert "voted: model_b; P(A) 0.250, P(B) 0.500, P(tie) 0.250" in page


def test_what_is_no_single_pair_is_refused():
    """Two rows, a field too few, or logits."""
    texts = {name: [["x"]] * 2 for name in ("prompt", "response_a", "response_b")}
    with pytest.raises(PairsError, match="expected one pair, found 2"):
        show_pair(build_pairs({"id": [1, 2], **texts}))
    with pytest.raises(PairsError, match="response_b is missing"):
        show_pair({"prompt": "p", "response_a": "a"})
    with pytest.raises(ScoresError, match="logits"):
        show_pair({"prompt": "p", "response_a": "a", "response_b": "b"}, [3.0, -1.0, -1.0])
