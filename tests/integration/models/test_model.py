"""The classifier: one gradient in every layout, and a graph of only what is trained."""

import itertools

import pytest
import torch

from tiewise.config import TrainConfig
from tiewise.errors import ModelError
from tiewise.models.attention import collate
from tiny_models import (
    SLOTTED,
    build_tiny,
    largest_difference,
    make_rows,
    run_step,
    score,
    write_family,
)

LAYOUTS = ("padded", "sorted", "packed")
MODES = ("none", "trainable")
MICRO_BATCHES = (1, 2, 8)
DECODERS = ("tiny:0", "tiny-llama:0")


@pytest.mark.parametrize("backbone", DECODERS)
@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"lora_targets": ("q_proj", "k_proj", "v_proj"), "n_frozen_layers": 2},
        {"tuning": "full"},
        {"head": "responses"},
    ],
    ids=["all-linear", "notebook", "full", "responses"],
)
def test_layouts_share_one_gradient(backbone, fields, cache_dir):
    """Layout, checkpointing and micro-batches change logits and gradients by less than 1e-9."""
    classifier = build_tiny(backbone, cache_dir, **fields)
    rows = make_rows(SLOTTED, slot=classifier.slot)
    results = []
    for layout, mode, n_micro_batches in itertools.product(LAYOUTS, MODES, MICRO_BATCHES):
        classifier.checkpoint(mode)
        results.append(run_step(classifier, rows, layout=layout, n_micro_batches=n_micro_batches))
    logits = torch.stack([own for own, _ in results])
    assert float((logits.amax(0) - logits.amin(0)).max()) < 1e-9
    for name in results[0][1]:
        grads = torch.stack([own[name] for _, own in results])
        assert float((grads.amax(0) - grads.amin(0)).max()) < 1e-9, name
        assert float(grads[0].abs().max()) > 0, f"{name} has no gradient"


def test_float32_gradients_agree(cache_dir):
    """In float32 the gradient of each layout is close to the float64 gradient."""
    rows = make_rows()
    _, truth = run_step(build_tiny("tiny:0", cache_dir), rows, layout="padded")
    classifier = build_tiny("tiny:0", cache_dir, dtype="float32")
    for layout in LAYOUTS:
        _, grads = run_step(classifier, rows, layout=layout)
        wide = {name: part.double() for name, part in grads.items()}
        assert largest_difference(wide, truth) < 2e-5


def test_padding_keeps_encoder_gradients(cache_dir):
    """Sorted, padded and split rows give an encoder the same gradient to 1e-9."""
    classifier = build_tiny("tiny-bert:0", cache_dir)
    rows = make_rows(segments=True)
    results = [
        run_step(classifier, rows, layout=layout, n_micro_batches=n_micro_batches)
        for layout in ("padded", "sorted")
        for n_micro_batches in MICRO_BATCHES
    ]
    for logits, grads in results[1:]:
        torch.testing.assert_close(logits, results[0][0], rtol=0, atol=1e-9)
        assert largest_difference(grads, results[0][1]) < 1e-9


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("tuning", ["lora", "full"])
@pytest.mark.parametrize(
    ("backbone", "layout"),
    [
        *(("tiny:0", layout) for layout in LAYOUTS),
        ("tiny-llama:0", "packed"),
        ("tiny-bert:0", "sorted"),
    ],
)
def test_frozen_layers_have_no_graph(backbone, layout, tuning, mode, cache_dir):
    """Below the first trained layer no tensor is kept and none requires a gradient."""
    classifier = build_tiny(
        backbone, cache_dir, n_frozen_layers=2, tuning=tuning, checkpointing=mode
    )
    requests = []
    for layer in classifier.layers[:2]:
        layer.register_forward_hook(lambda *call: requests.append(call[-1].requires_grad))
    kept_below, places = [], []

    def keep(part):
        kept_below.append(len(requests) < 2)
        return part

    classifier.layers[2].register_forward_pre_hook(lambda *_: places.append(len(kept_below)))
    batch = collate(make_rows(), range(8), layout=layout, pad_id=0)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda part: part):
        logits = classifier(batch)
    assert requests == [False, False]
    assert places[0] == 0
    logits.sum().backward()
    frozen = [part for layer in classifier.layers[:2] for part in layer.parameters()]
    assert all(part.grad is None for part in frozen)


def test_checkpointing_keeps_less(cache_dir):
    """Checkpointed layers keep only their input, less than a fifth of the numbers."""
    kept = {}
    for mode in MODES:
        classifier = build_tiny("tiny:0", cache_dir, checkpointing=mode)
        batch = collate(make_rows(), range(8), layout="packed", pad_id=0)
        sizes = []
        hooks = torch.autograd.graph.saved_tensors_hooks(
            lambda part, sizes=sizes: sizes.append(part.numel()) or part, lambda part: part
        )
        with hooks:
            classifier(batch)
        kept[mode] = sum(sizes)
    assert kept["trainable"] < 0.2 * kept["none"]


def test_summary_counts_trained_tensors(cache_dir):
    """Counts equal those of the tensors, and a 4-bit layer counts its original weights."""
    classifier = build_tiny("tiny:0", cache_dir)
    summary = classifier.trainable_summary()
    parts = [part for _, part in classifier.trainable_parameters()]
    assert summary["n_trainable"] == sum(part.numel() for part in parts)
    assert summary["n_tensors"] == len(parts)
    assert summary["n_layers"] == 4
    quantized = build_tiny("tiny:0", cache_dir, quantization="nf4", dtype="float32")
    assert quantized.trainable_summary() == summary


def test_too_long_rows_are_refused(cache_dir):
    """The message gives the length of the row, the limit and the flag."""
    classifier = build_tiny("tiny-bert:0", cache_dir)
    with pytest.raises(ModelError, match=r"513 tokens; expected at most 512.*--max-length 512"):
        score(classifier, make_rows((513,)))


@pytest.mark.parametrize(
    ("family", "most"),
    [("roberta", 511), ("distilbert", 512), ("deberta-v2", None), ("llama", None)],
)
def test_positions_count_as_in_each_family(family, most, tmp_path, cache_dir):
    """The longest allowed row runs, wherever a family starts counting; a longer row is refused."""
    folder = write_family(family, tmp_path, cache_dir)
    classifier = build_tiny(str(folder), cache_dir, dtype="float32")
    assert classifier.n_positions == most
    assert score(classifier, make_rows((most or 600,))).isfinite().all()
    if most is not None:
        with pytest.raises(ModelError, match=f"expected at most {most}"):
            score(classifier, make_rows((most + 1,)))


def test_checkpointing_repeats_dropout(cache_dir):
    """A recomputed layer drops the same inputs as in the first pass; another seed drops others."""
    classifier = build_tiny("tiny:0", cache_dir, lora_dropout=0.3)
    results = []
    for mode in MODES:
        classifier.checkpoint(mode)
        torch.manual_seed(3)
        results.append(run_step(classifier, make_rows(), layout="packed")[1])
    assert largest_difference(results[0], results[1]) == 0
    torch.manual_seed(4)
    other = run_step(classifier, make_rows(), layout="packed")[1]
    assert largest_difference(results[0], other) > 0


def rates(classifier, **fields):
    """Return the learning rate and weight decay of each trained tensor, read from an optimizer."""
    groups = classifier.parameter_groups(TrainConfig(learning_rate=1e-3, **fields))
    optimizer = torch.optim.AdamW(groups, lr=123.0)
    names = {id(part): name for name, part in classifier.trainable_parameters()}
    return {
        names[id(part)]: (group["lr"], group["weight_decay"])
        for group in optimizer.param_groups
        for part in group["params"]
    }


@pytest.mark.parametrize("backbone", ["tiny:0", "tiny-bert:0"])
@pytest.mark.parametrize("tuning", ["lora", "full"])
def test_groups_hold_every_tensor(backbone, tuning, cache_dir):
    """No trained tensor is missing; without a head learning rate all rates are equal."""
    classifier = build_tiny(backbone, cache_dir, tuning=tuning)
    found = rates(classifier)
    assert found.keys() == {name for name, _ in classifier.trainable_parameters()}
    assert {rate for rate, _ in found.values()} == {1e-3}


@pytest.mark.parametrize("backbone", ["tiny:0", "tiny-bert:0"])
def test_head_has_own_rate(backbone, cache_dir):
    """The head uses `head_learning_rate`, every other tensor `learning_rate`."""
    classifier = build_tiny(backbone, cache_dir)
    found = rates(classifier, head_learning_rate=5e-3)
    heads = {name for name, (rate, _) in found.items() if rate == 5e-3}
    assert heads == {name for name in found if ".score." in name or ".classifier." in name}
    assert {rate for name, (rate, _) in found.items() if name not in heads} == {1e-3}


def test_vectors_have_no_decay(cache_dir):
    """Biases and norms have no weight decay; matrices have."""
    classifier = build_tiny("tiny-bert:0", cache_dir, tuning="full")
    parts = dict(classifier.trainable_parameters())
    for name, (_, decay) in rates(classifier, weight_decay=0.1).items():
        assert decay == (0.1 if parts[name].ndim > 1 else 0.0), name
