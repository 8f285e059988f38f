"""The last layer at the last tokens alone."""

import pytest
import torch

from engines import build_tiny, make_rows
from tiewise.attention import collate, find_spans, last_index, last_only


@pytest.mark.parametrize("backbone", ["tiny:0", "tiny-llama:0"])
@pytest.mark.parametrize("layout", ["padded", "packed"])
def test_equals_the_whole_layer_at_the_last_tokens(backbone, layout, cache_dir):
    """What is not computed was not needed: value and input gradient are the whole layer's."""
    classifier = build_tiny(backbone, cache_dir)
    batch = collate(make_rows(), range(8), layout=layout, pad_id=0)
    layer = classifier.layers[-1]
    decoder = classifier.network.get_base_model().model
    size = (*batch["input_ids"].shape, 64)
    hidden = torch.randn(size, dtype=torch.float64, requires_grad=True)
    positions = torch.arange(size[1])[None] if layout == "padded" else batch["position_ids"]
    rotary = decoder.rotary_emb(hidden, positions)
    spans, index = find_spans(batch), last_index(batch)
    pooled = layer(hidden, position_embeddings=rotary, last=last_only(spans, index))
    whole = type(layer).forward(layer, hidden, position_embeddings=rotary, spans=spans)
    expected = whole.flatten(0, 1)[index][None]
    torch.testing.assert_close(pooled, expected, rtol=0, atol=1e-12)
    own, other = (torch.autograd.grad(part.sin().sum(), hidden)[0] for part in (pooled, expected))
    torch.testing.assert_close(own, other, rtol=0, atol=1e-12)


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
