"""The last layer at the last tokens alone, and what no text can do to them."""

import numpy as np
import pandas as pd
import pytest
import torch

from engines import build_tiny, make_rows
from opened import open_tiny
from tiewise.models.attention import collate, find_spans, last_index, last_only
from tiewise.models.scoring import score_rows


@pytest.mark.parametrize("backbone", ["tiny:0", "tiny-llama:0"])
@pytest.mark.parametrize("layout", ["padded", "packed"])
def test_equals_the_whole_layer_at_the_last_tokens(backbone, layout, cache_dir):
    """What is not computed was not needed: value and input gradient are the whole layer's."""
    classifier = build_tiny(backbone, cache_dir)
    batch = collate(make_rows(), range(8), layout=layout, pad_id=0)
    layer = classifier.layers[-1]
    decoder = classifier.network.get_base_model().model
    size = (*batch["input_ids"].shape, 64)
    seeded = torch.Generator().manual_seed(0)
    hidden = torch.randn(size, generator=seeded, dtype=torch.float64, requires_grad=True)
    positions = torch.arange(size[1])[None] if layout == "padded" else batch["position_ids"]
    rotary = decoder.rotary_emb(hidden, positions)
    spans, index = find_spans(batch), last_index(batch)
    pooled = layer(hidden, position_embeddings=rotary, last=last_only(spans, index))
    whole = type(layer).forward(layer, hidden, position_embeddings=rotary, spans=spans)
    expected = whole.flatten(0, 1)[index][None]
    torch.testing.assert_close(pooled, expected, rtol=0, atol=1e-12)
    own, other = (torch.autograd.grad(part.sin().sum(), hidden)[0] for part in (pooled, expected))
    torch.testing.assert_close(own, other, rtol=1e-12, atol=1e-12)


def test_the_last_layer_computes_one_query_a_row(cache_dir):
    """Queries, output projection and MLP of the last layer see one token of each row."""
    classifier = build_tiny("tiny:0", cache_dir)
    widths = {}

    def note(name):
        return lambda _, inputs: widths.update({name: inputs[0].shape[1]})

    last = classifier.layers[-1]
    for name in ("q_proj", "k_proj", "o_proj"):
        getattr(last.self_attn, name).register_forward_pre_hook(note(name))
    last.mlp.register_forward_pre_hook(note("mlp"))
    batch = collate(make_rows(), range(8), layout="packed", pad_id=0)
    classifier(batch)
    n_tokens = batch["input_ids"].shape[1]
    assert widths == {"q_proj": 8, "k_proj": n_tokens, "o_proj": 8, "mlp": 8}


@pytest.mark.parametrize(
    ("kind", "layouts"),
    [("tiny", ["padded", "sorted", "packed"]), ("tiny-bert", ["padded", "sorted"])],
)
def test_a_text_that_ends_in_padding_moves_no_pooled_token(kind, layouts, cache_dir):
    """Its last token is the template's, its ending counts, and no other row takes notice."""
    opened = open_tiny(kind, cache_dir)
    plain = pd.DataFrame(
        {
            "prompt": [["Who won?"], ["Which is right?"], ["And now, at greater length?"]],
            "response_a": [["A"], ["The first."], ["The first of them, I think."]],
            "response_b": [["B"], ["The second."], ["The second"]],
        }
    )
    before = score_rows(opened.classifier, opened.rows(plain), layout="padded")
    special, reserved = opened.template.special_tokens, opened.tokenizer.reserved
    for ending in [name for name, id_ in reserved.items() if id_ in {special.pad, *special.end}]:
        pairs = plain.assign(response_b=[["B"], [f"The second.{ending}"], ["The second"]])
        rows = opened.rows(pairs)
        assert [rows.row(k)[-1] for k in range(3)] == [special.end[-1]] * 3
        alone = score_rows(opened.classifier, rows, batch_tokens=1)
        for layout in layouts:
            after = score_rows(opened.classifier, rows, layout=layout)
            np.testing.assert_allclose(after, alone, rtol=0, atol=1e-10, err_msg=ending)
            np.testing.assert_allclose(after[[0, 2]], before[[0, 2]], rtol=0, atol=1e-10)
            assert np.abs(after[1] - before[1]).max() > 1e-5, ending
