"""Layouts of a batch, and attention that separates its rows."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoConfig, AutoModelForSequenceClassification, Cache

from strategies import token_rows
from tiewise.errors import ModelError
from tiewise.models import attention
from tiewise.models.attention import FAMILIES, choose_layout, collate
from tiewise.models.backbones import resolve_backbone
from tiewise.models.loading import quiet_transformers
from tiny_families import find_tiny
from tiny_models import SLOTTED, build_tiny, make_rows, run_step, write_family

LAYOUTS = ("padded", "sorted", "packed")


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_families_equal_eager_attention(family, tmp_path, cache_dir):
    """Logits and gradients equal those of transformers' eager code, which runs each row alone."""
    folder = write_family(family, tmp_path, cache_dir)
    ours = build_tiny(str(folder), cache_dir, tuning="full", n_frozen_layers=0)
    rows = make_rows()
    logits, grads = run_step(ours, rows, layout="packed")
    with quiet_transformers():
        theirs = AutoModelForSequenceClassification.from_pretrained(
            folder, num_labels=3, dtype=torch.float64, attn_implementation="eager"
        ).train()
    theirs.load_state_dict(ours.network.state_dict())
    for position in range(len(rows)):
        ids = torch.from_numpy(rows.row(position).astype(np.int64))[None]
        own = theirs(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
        label = torch.tensor([position % 3])
        (torch.nn.functional.cross_entropy(own, label) / len(rows)).backward()
        # transformers rounds norms and weights to float32 on the way.
        torch.testing.assert_close(own[0].detach(), logits[position], rtol=0, atol=2e-5)
    for name, part in theirs.named_parameters():
        scale = 1 + float(part.grad.abs().max())
        own_grad = grads[f"network.{name}"]
        torch.testing.assert_close(part.grad, own_grad, rtol=0, atol=5e-5 * scale, msg=name)


@given(token_rows(), st.data(), st.sampled_from(LAYOUTS))
def test_layouts_keep_every_token(rows, data, layout):
    """Tokens, order and lengths can be read back from any batch, and padding is masked."""
    chosen = data.draw(st.lists(st.integers(0, len(rows) - 1), min_size=1, max_size=6))
    batch = collate(rows, chosen, layout=layout, pad_id=70_001)
    expected = [rows.row(index).tolist() for index in chosen]
    assert batch["lengths"].tolist() == [len(row) for row in expected]
    if layout == "packed":
        flat = batch["input_ids"][0].tolist()
        assert flat == [token for row in expected for token in row]
        assert batch["position_ids"][0].tolist() == [n for row in expected for n in range(len(row))]
        return
    for ids, mask, row in zip(batch["input_ids"], batch["attention_mask"], expected, strict=True):
        assert ids[: len(row)].tolist() == row
        assert set(ids[len(row) :].tolist()) <= {70_001}
        assert mask.tolist() == [1] * len(row) + [0] * (len(ids) - len(row))


def test_segments_follow_tokens():
    """Segment ids have the layout of the tokens, with zero on padding."""
    rows = make_rows((3, 5), segments=True)
    batch = collate(rows, [1, 0], layout="padded", pad_id=0)
    assert batch["token_type_ids"][0].tolist() == rows.type_ids[3:].tolist()
    assert batch["token_type_ids"][1].tolist() == [*rows.type_ids[:3].tolist(), 0, 0]


def test_empty_batches_are_refused():
    """A batch without rows, or a row without tokens, is refused."""
    with pytest.raises(ModelError, match="at least one row"):
        collate(make_rows((2,)), [], layout="packed", pad_id=0)
    with pytest.raises(ModelError, match="at least one token"):
        collate(make_rows((2, 0)), [0, 1], layout="packed", pad_id=0)


@pytest.mark.parametrize("backbone", ["tiny:0", "tiny-llama:0"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_rows_stay_independent(backbone, layout, cache_dir):
    """Changing the tokens of one row changes no bit of the other rows' logits."""
    classifier = build_tiny(backbone, cache_dir)
    rows = make_rows()
    before, _ = run_step(classifier, rows, layout=layout)
    for changed in range(len(rows)):
        values = rows.values.copy()
        values[rows.offsets[changed] : rows.offsets[changed + 1]] = 19
        other = type(rows)(values, rows.offsets, rows.n_truncated)
        after, _ = run_step(classifier, other, layout=layout)
        kept = [index for index in range(len(rows)) if index != changed]
        assert torch.equal(before[kept], after[kept])
        assert not torch.equal(before[changed], after[changed])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_no_mask_and_no_cache(layout, cache_dir, monkeypatch):
    """Rows are separated by their lengths: attention gets no mask, and no layer gets a cache."""
    classifier = build_tiny("tiny:0", cache_dir)
    masks, caches, check = [], [], attention._no_mask

    def watch_masks(**options):
        masks.append(options["attention_mask"])
        check(**options)

    def watch_caches(_, args, kwargs):
        # Under which name a layer gets its cache depends on the version of transformers.
        caches.append([part for part in (*args, *kwargs.values()) if isinstance(part, Cache)])

    monkeypatch.setattr(attention, "_no_mask", watch_masks)
    for layer in classifier.layers:
        layer.register_forward_pre_hook(watch_caches, with_kwargs=True)
    run_step(classifier, make_rows(), layout=layout)
    n_layers = len(classifier.layers)
    assert masks == [None] * n_layers
    assert caches == [[]] * n_layers


def test_masks_and_dropout_are_refused():
    """The attention would ignore both, so it refuses them."""
    part = torch.randn(1, 1, 3, 4)
    spans = attention.find_spans(collate(make_rows((3,)), [0], layout="packed", pad_id=0))
    with pytest.raises(AssertionError, match="never by a mask"):
        attention.attend_rows(None, part, part, part, torch.ones(1, 1, 3, 3), spans=spans)
    with pytest.raises(ModelError, match="dropout"):
        attention.attend_rows(None, part, part, part, None, spans=spans, dropout=0.1)


def test_layout_depends_on_backbone(cache_dir):
    """Known decoders are packed; encoders and decoders with attention dropout are sorted."""

    def choose(backbone, device="cpu", **changes):
        path = resolve_backbone(find_tiny(backbone, cache_dir), cache_dir=cache_dir)
        config = AutoConfig.from_pretrained(path)
        for name, value in changes.items():
            setattr(config, name, value)
        return choose_layout(config, device)

    assert choose("tiny:0") == ("packed", "the CPU kernel goes row by row")
    assert choose("tiny-llama:0", "cuda")[0] == "packed"
    assert "on CUDA" in choose("tiny-llama:0", "cuda")[1]
    assert choose("tiny-bert:0")[0] == "sorted"
    assert "bert" in choose("tiny-bert:0")[1]
    assert choose("tiny:0", attention_dropout=0.1)[0] == "sorted"
    assert choose("tiny:0", use_bidirectional_attention=True)[0] == "sorted"


@pytest.mark.parametrize("head", ["linear", "responses"])
def test_other_decoders_pool_padded_rows(head, tmp_path, cache_dir):
    """Where rows cannot be packed, padding does not change logits, even after a padding token."""
    folder = write_family("phi", tmp_path, cache_dir)
    classifier = build_tiny(str(folder), cache_dir, n_frozen_layers=0, head=head)
    assert not classifier.can_pack
    rows = make_rows(SLOTTED, slot=classifier.slot)
    rows.values[rows.offsets[4] - 1] = 0  # this row ends in the padding token's id
    together, _ = run_step(classifier, rows, layout="padded")
    apart, _ = run_step(classifier, rows, layout="padded", n_micro_batches=len(SLOTTED))
    torch.testing.assert_close(together, apart, rtol=0, atol=1e-9)
    with pytest.raises(ModelError, match="phi accepts padded batches only"):
        run_step(classifier, rows, layout="packed")
