"""Estimates of memory are close to measurements."""

import gc
import weakref

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from tiewise.models.attention import collate
from tiewise.training import memory
from tiewise.training.memory import choose_checkpointing, estimate_memory, free_memory
from tiny_models import build_tiny, make_rows

LENGTHS = (600, 400, 300, 700)

CASES = {
    "all-linear": {"backbone": "tiny:0"},
    "notebook": {
        "backbone": "tiny:0",
        "lora_targets": ("q_proj", "k_proj", "v_proj"),
        "n_frozen_layers": 2,
    },
    "llama": {"backbone": "tiny-llama:0", "n_frozen_layers": 0},
    "full": {"backbone": "tiny:0", "tuning": "full", "n_frozen_layers": 0},
    "encoder": {"backbone": "tiny-bert:0", "lengths": (300, 200, 400)},
    "nf4": {"backbone": "tiny:0", "quantization": "nf4"},
    "bfloat16": {"backbone": "tiny:0", "dtype": "bfloat16"},
    "responses": {"backbone": "tiny:0", "head": "responses"},
    "responses, frozen": {"backbone": "tiny:0", "head": "responses", "n_frozen_layers": 2},
}

WITH_IDLE_POOLER = {"backbone": "tiny-bert:0", "tuning": "full", "head": "responses"}


def measure_peak(classifier, rows):
    """Return the most bytes that tensors of a training step have at one time."""
    batch = collate(
        rows, range(len(rows)), layout="packed" if classifier.can_pack else "padded", pad_id=0
    )
    classifier(batch).sum().backward()  # allocates the gradients
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        classifier(batch).sum().backward()
    events = record.profiler.kineto_results.events()
    changes = sorted(
        (event.start_ns(), event.nbytes()) for event in events if event.name() == "[memory]"
    )
    peak = current = 0
    for _, size in changes:
        current += size
        peak = max(peak, current)
    return peak


@pytest.mark.parametrize("mode", ["none", "trainable"])
@pytest.mark.parametrize("case", CASES)
def test_estimates_match_measurements(case, mode, cache_dir):
    """Activations and working memory are estimated at 90 % to 170 % of the measured peak."""
    fields = {"dtype": "float32", "cache_dir": cache_dir} | CASES[case]
    lengths = fields.pop("lengths", LENGTHS)
    classifier = build_tiny(**fields, checkpointing=mode)
    n_tokens = sum(lengths) if classifier.can_pack else len(lengths) * max(lengths)
    estimate = estimate_memory(classifier, n_tokens=n_tokens, longest=max(lengths), mode=mode)
    slot = classifier.slot if classifier.model_config.head == "responses" else None
    measured = measure_peak(classifier, make_rows(lengths, slot=slot))
    ratio = (estimate.activations + estimate.working) / measured
    assert 0.9 < ratio < 1.7


def test_weights_and_moments_are_counted(cache_dir):
    """AdamW has a gradient and two moments per trained number; in 8 bits a moment has one byte."""
    classifier = build_tiny("tiny:0", cache_dir, dtype="float32")
    options = {"n_tokens": 100, "longest": 100, "mode": "none"}
    wide = estimate_memory(classifier, **options)
    narrow = estimate_memory(classifier, **options, optimizer="paged_adamw_8bit")
    n_trained = classifier.trainable_summary()["n_trainable"]
    assert wide.training == 12 * n_trained
    assert narrow.training == 6 * n_trained
    assert wide.weights >= sum(part.nbytes for part in classifier.parameters())
    assert wide.total == wide.weights + wide.training + wide.activations + wide.working


def test_estimates_change_no_state(cache_dir):
    """An estimate leaves gradients, random state, modes and checkpointing unchanged."""
    classifier = build_tiny("tiny:0", cache_dir, checkpointing="trainable", lora_dropout=0.5)
    classifier.eval()
    state = torch.get_rng_state()
    estimate_memory(classifier, n_tokens=1000, longest=100, mode="none")
    assert torch.equal(torch.get_rng_state(), state)
    assert classifier.checkpointing == "trainable"
    assert not classifier.training
    assert all(part.grad is None for part in classifier.parameters())
    assert classifier.layers[2].gradient_checkpointing


@pytest.mark.parametrize("mode", ["none", "trainable"])
@pytest.mark.parametrize(
    "case",
    [*(CASES[name] for name in ("all-linear", "full", "encoder", "nf4")), WITH_IDLE_POOLER],
    ids=["all-linear", "full", "encoder", "nf4", "idle pooler"],
)
def test_estimates_release_models(case, mode, cache_dir):
    """After an estimate the model can be freed: the next fold needs the memory.

    An encoder with the response head has a pooler without a backward pass.
    """
    fields = {"dtype": "float32", "n_frozen_layers": 0, "cache_dir": cache_dir} | case
    fields.pop("lengths", None)
    classifier = build_tiny(**fields)
    references = [weakref.ref(part) for part in (*classifier.layers, *classifier.parameters())]
    estimate_memory(classifier, n_tokens=64, longest=16, mode=mode)
    del classifier
    gc.collect()
    assert [part() for part in references] == [None] * len(references)


def test_checkpointing_depends_on_memory(cache_dir):
    """With enough memory nothing is recomputed; otherwise the trainable layers are."""
    classifier = build_tiny("tiny:0", cache_dir)
    options = {"n_tokens": 2000, "longest": 500, "optimizer": "adamw_torch"}
    assert choose_checkpointing(classifier, **options)[0] == "none"
    estimate = estimate_memory(classifier, n_tokens=2000, longest=500, mode="none")
    needed = estimate.total - estimate.weights
    mode, reason = choose_checkpointing(classifier, **options, free=needed)
    assert mode == "trainable"
    size = f"{needed / 2**20:.0f} MiB"
    assert reason == f"to keep all activations takes {size} of {size} free"
    assert choose_checkpointing(classifier, **options, free=2 * needed)[0] == "none"


def test_free_memory_respects_control_groups(monkeypatch, tmp_path):
    """Free memory is positive, and at most the rest that the control group allows."""
    free = free_memory(torch.device("cpu"))
    assert free > 2**20
    for name, value in (("memory.max", "3000"), ("memory.current", "1000")):
        (tmp_path / name).write_text(f"{value}\n")
    monkeypatch.setattr(memory, "_CONTROL_GROUP", tmp_path)
    assert free_memory(torch.device("cpu")) == 2000
    (tmp_path / "memory.max").write_text("max\n")
    assert free_memory(torch.device("cpu")) > 2**20
    monkeypatch.setattr(memory, "_MEMORY_INFO", tmp_path / "none")
    assert free_memory(torch.device("cpu")) > 2**20


def test_sizes_have_readable_units():
    """Small sizes are in MiB, large ones in GiB."""
    estimate = memory.MemoryEstimate(5 * 2**30, 2**20, 300 * 2**20, 0)
    assert str(estimate) == (
        "5.3 GiB (weights 5.0 GiB, training 1 MiB, activations 300 MiB, working 0 MiB)"
    )


def test_tenth_of_free_memory_stays_free(cache_dir):
    """Activations are kept where they need at most 90 % of the memory that is free."""
    classifier = build_tiny("tiny:0", cache_dir)
    options = {"n_tokens": 2000, "longest": 500, "optimizer": "adamw_torch"}
    estimate = estimate_memory(classifier, n_tokens=2000, longest=500, mode="none")
    needed = estimate.total - estimate.weights
    for free, mode in ((needed / 0.9 * 1.001, "none"), (needed / 0.9 * 0.999, "trainable")):
        assert choose_checkpointing(classifier, **options, free=int(free))[0] == mode


def test_checkpoints_have_known_moments(cache_dir):
    """Adam saves two moments of each trained number; of other optimisers none is counted."""
    classifier = build_tiny("tiny:0", cache_dir, dtype="float32")
    n_trained = classifier.trainable_summary()["n_trainable"]
    sizes = [
        memory.checkpoint_size(classifier, optimizer=name)
        for name in ("adamw_torch", "adamw_8bit", "sgd")
    ]
    assert sizes == [12 * n_trained, 6 * n_trained, 4 * n_trained]
