"""The classifier: one gradient in every layout, and nothing in the graph that need not be."""

import itertools

import pytest
import torch

from engines import build_tiny, largest_difference, make_rows, run_step, score, write_family
from tiewise.config.run_config import ModelConfig
from tiewise.errors import ModelError
from tiewise.models.attention import collate
from tiewise.models.backbones import resolve_backbone
from tiewise.models.model import build_classifier

LAYOUTS = ("padded", "sorted", "packed")
MODES = ("none", "trainable", "all")
MICRO_BATCHES = (1, 2, 8)
DECODERS = ("tiny:0", "tiny-llama:0")


@pytest.mark.parametrize("backbone", DECODERS)
@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"lora_targets": ("q_proj", "k_proj", "v_proj"), "n_frozen_layers": 2},
        {"tuning": "full"},
    ],
    ids=["all-linear", "notebook", "full"],
)
def test_one_gradient_in_every_layout(backbone, fields, cache_dir):
    """Layout, checkpointing and micro-batches change no digit that float64 can hold."""
    classifier = build_tiny(backbone, cache_dir, **fields)
    _silence_dropout(classifier)
    results = []
    for layout, mode, n_micro_batches in itertools.product(LAYOUTS, MODES, MICRO_BATCHES):
        classifier.checkpoint(mode)
        results.append(
            run_step(classifier, make_rows(), layout=layout, n_micro_batches=n_micro_batches)
        )
    logits = torch.stack([own for own, _ in results])
    assert float((logits.amax(0) - logits.amin(0)).max()) < 1e-9
    for name in results[0][1]:
        grads = torch.stack([own[name] for _, own in results])
        assert float((grads.amax(0) - grads.amin(0)).max()) < 1e-9, name
        assert float(grads[0].abs().max()) > 0, f"{name} has no gradient"


def test_one_gradient_in_float32_to_rounding(cache_dir):
    """In float32 the layouts are as close to one another as to the float64 truth."""
    rows = make_rows()
    _, truth = run_step(build_tiny("tiny:0", cache_dir), rows, layout="padded")
    classifier = build_tiny("tiny:0", cache_dir, dtype="float32")
    for layout in LAYOUTS:
        _, grads = run_step(classifier, rows, layout=layout)
        wide = {name: part.double() for name, part in grads.items()}
        assert largest_difference(wide, truth) < 2e-5


def test_an_encoder_has_one_gradient_whatever_the_padding(cache_dir):
    """Sorted, padded and split rows give an encoder the same gradient."""
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
def test_no_frozen_layer_is_in_the_graph(backbone, layout, tuning, mode, cache_dir):
    """Below the first trained layer nothing is kept and nothing asks for a gradient."""
    classifier = build_tiny(
        backbone, cache_dir, n_frozen_layers=2, tuning=tuning, checkpointing=mode
    )
    asks = []
    for layer in classifier.layers[:2]:
        layer.register_forward_hook(lambda *call: asks.append(call[-1].requires_grad))
    kept_below, places = [], []

    def keep(part):
        kept_below.append(len(asks) < 2)
        return part

    classifier.layers[2].register_forward_pre_hook(lambda *_: places.append(len(kept_below)))
    batch = collate(make_rows(), range(8), layout=layout, pad_id=0)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda part: part):
        logits = classifier(batch)
    assert asks == [False, False]
    assert places[0] == 0
    logits.sum().backward()
    frozen = [part for layer in classifier.layers[:2] for part in layer.parameters()]
    assert all(part.grad is None for part in frozen)


def test_checkpointing_keeps_less(cache_dir):
    """Checkpointed layers keep their input alone; the head and the rest stay as they are."""
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
    assert kept["all"] == kept["trainable"]


@pytest.mark.parametrize("backbone", [*DECODERS, "tiny-bert:0"])
def test_first_values_follow_from_the_seed_alone(backbone, cache_dir):
    """Equal seeds give equal bits, other seeds others, and torch's own state is untouched."""
    path = resolve_backbone(backbone, cache_dir=cache_dir)
    config = ModelConfig(backbone=backbone)

    def build(seed):
        return dict(build_classifier(config, path, seed=seed).trainable_parameters())

    state = torch.get_rng_state()
    first = build(0)
    assert torch.equal(state, torch.get_rng_state())
    torch.rand(3)
    assert largest_difference(first, build(0)) == 0
    assert largest_difference(first, build(1)) > 0


def test_the_summary_counts_what_is_trained(cache_dir):
    """Counts are those of the tensors themselves, and a 4-bit layer counts its weights."""
    classifier = build_tiny("tiny:0", cache_dir)
    summary = classifier.trainable_summary()
    parts = [part for _, part in classifier.trainable_parameters()]
    assert summary["n_trainable"] == sum(part.numel() for part in parts)
    assert summary["n_tensors"] == len(parts)
    assert summary["n_layers"] == 4
    quantised = build_tiny("tiny:0", cache_dir, quantization="nf4", dtype="float32")
    assert quantised.trainable_summary() == summary


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32", "float64"])
@pytest.mark.parametrize("backbone", ["tiny:0", "tiny-bert:0"])
def test_the_head_computes_in_float32_or_better(backbone, dtype, cache_dir):
    """Logits are float32, or float64 under a float64 backbone, in training and scoring."""
    classifier = build_tiny(backbone, cache_dir, dtype=dtype)
    expected = torch.float64 if dtype == "float64" else torch.float32
    logits = score(classifier, make_rows())
    assert logits.dtype == expected
    assert all(part.dtype == expected for part in classifier.head.parameters())
    assert logits.isfinite().all()


@pytest.mark.parametrize("backbone", ["tiny:0", "tiny-bert:0"])
def test_the_head_keeps_its_precision_under_autocast(backbone, cache_dir):
    """Where the backbone computes in bfloat16, logits are not rounded to it."""
    classifier = build_tiny(backbone, cache_dir, dtype="float32")
    with torch.autocast("cpu", torch.bfloat16):
        logits = score(classifier, make_rows())
        assert torch.is_autocast_enabled("cpu")
    assert logits.dtype == torch.float32
    assert (logits != logits.bfloat16().float()).any()


def test_a_row_longer_than_the_table_of_positions_is_refused(cache_dir):
    """The message names the length and how to mend it."""
    classifier = build_tiny("tiny-bert:0", cache_dir)
    with pytest.raises(ModelError, match=r"513 tokens.*positions for 512.*--max-length 512"):
        score(classifier, make_rows((513,)))


@pytest.mark.parametrize(
    ("family", "most"),
    [("roberta", 511), ("distilbert", 512), ("deberta-v2", None), ("llama", None)],
)
def test_the_table_of_positions_is_counted_as_the_family_counts(family, most, tmp_path, cache_dir):
    """The longest row allowed runs, whatever the first position is called; one more is refused."""
    folder = write_family(family, tmp_path, cache_dir)
    classifier = build_tiny(str(folder), cache_dir, dtype="float32")
    assert classifier.n_positions == most
    assert score(classifier, make_rows((most or 600,))).isfinite().all()
    if most is not None:
        with pytest.raises(ModelError, match=f"positions for {most}"):
            score(classifier, make_rows((most + 1,)))


def test_dropout_draws_anew_but_checkpointing_repeats_it(cache_dir):
    """A recomputed layer drops what it dropped the first time."""
    classifier = build_tiny("tiny:0", cache_dir, lora_dropout=0.3)
    results = []
    for mode in MODES:
        classifier.checkpoint(mode)
        torch.manual_seed(3)
        results.append(run_step(classifier, make_rows(), layout="packed")[1])
    assert largest_difference(results[0], results[1]) == 0
    assert largest_difference(results[0], results[2]) == 0
    torch.manual_seed(4)
    other = run_step(classifier, make_rows(), layout="packed")[1]
    assert largest_difference(results[0], other) > 0


def _silence_dropout(classifier):
    for module in classifier.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
