"""RMS norms and the pooled last layer equal transformers' own code."""

import numpy as np
import pandas as pd
import pytest
import torch
from transformers.models.gemma2.modeling_gemma2 import Gemma2RMSNorm
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from loaded_runs import open_tiny
from tiewise.models.attention import collate, find_spans, last_index, last_only
from tiewise.models.decoder import replace_norms
from tiewise.models.scoring import score_rows
from tiny_models import build_tiny, make_rows

KINDS = (Gemma2RMSNorm, LlamaRMSNorm)


def make_norm(kind, *, dtype):
    """Return a norm of transformers with random weights, and ours with the same weights."""
    theirs = kind(48)
    with torch.no_grad():
        theirs.weight.copy_(torch.randn(48, generator=torch.Generator().manual_seed(0)))
    ours = kind(48)
    ours.load_state_dict(theirs.state_dict())
    assert replace_norms(torch.nn.ModuleList([ours])) == 1
    return theirs.to(dtype), ours.to(dtype)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-5), (torch.bfloat16, 0.05)])
def test_norms_equal_transformers(kind, dtype, tolerance):
    """Value, input gradient and weight gradient equal transformers', up to rounding."""
    theirs, ours = make_norm(kind, dtype=dtype)
    results = []
    for norm in (theirs, ours):
        x = (3 * torch.randn(7, 5, 48, generator=torch.Generator().manual_seed(1))).to(dtype)
        x.requires_grad_()
        out = norm(x)
        assert out.dtype == dtype
        out.float().sin().sum().backward()
        results.append((out, x.grad, norm.weight.grad))
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("kind", KINDS)
def test_norms_keep_float64(kind):
    """The gradient equals the numerical derivative to digits that only float64 has."""
    _, ours = make_norm(kind, dtype=torch.float64)
    x = torch.randn(2, 3, 48, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, weight: ours(x), (x, ours.weight), atol=1e-9)


def test_frozen_norms_get_no_gradient():
    """With a frozen weight only the input has a gradient."""
    _, ours = make_norm(Gemma2RMSNorm, dtype=torch.float32)
    ours.requires_grad_(requires_grad=False)
    x = torch.randn(2, 48, requires_grad=True)
    ours(x).sum().backward()
    assert x.grad is not None
    assert ours.weight.grad is None


@pytest.mark.parametrize("backbone", ["tiny:0", "tiny-llama:0"])
@pytest.mark.parametrize("layout", ["padded", "packed"])
def test_pooled_layer_equals_whole_layer(backbone, layout, cache_dir):
    """Value and input gradient equal those of the whole layer at the last tokens."""
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


def test_last_layer_computes_one_query(cache_dir):
    """Queries, output projection and MLP of the last layer get one token per row."""
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
def test_typed_padding_moves_no_token(kind, layouts, cache_dir):
    """A text that ends in the name of a special token is pooled at the template's last token."""
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
