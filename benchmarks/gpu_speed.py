"""Speed and memory of training steps and of scoring, at the shapes of Gemma 2 with random weights.

The weights are made on the device layer by layer, and quantized as they are made, so nothing is
downloaded. Both ways have the same weights and rows; they run one after the other, because not
every device has room for two models.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import gc
import statistics
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import bitsandbytes
import numpy as np
import torch
from peft import get_peft_model
from torch import Tensor, nn
from transformers import Gemma2ForSequenceClassification
from transformers.models.gemma2.modeling_gemma2 import Gemma2DecoderLayer

from benchmarks import predict, train
from benchmarks.midsize import VOCABULARY, add_noise, make_settings, prepare_theirs
from benchmarks.rounds import guarded, read_peak, start_peak, timed
from tiewise.config import ModelConfig, RunConfig, load_preset, override
from tiewise.doctor import measure_rate, operations_per_token
from tiewise.models.attention import register_attention
from tiewise.models.build import adapt_network
from tiewise.models.loading import prepare_network, quiet_transformers
from tiewise.models.model import PairClassifier
from tiewise.models.scoring import score_rows
from tiewise.tokens.batches import plan_step
from tiewise.tokens.rows import TokenRows
from tiewise.training.memory import choose_checkpointing, estimate_memory

SHAPES: dict[str, dict[str, int]] = {
    "9b": {
        "vocab_size": 256_000, "hidden_size": 3584, "intermediate_size": 14_336, "head_dim": 256,
        "num_hidden_layers": 42, "num_attention_heads": 16, "num_key_value_heads": 8,
    },
    "2b": {
        "vocab_size": 256_000, "hidden_size": 2304, "intermediate_size": 9216, "head_dim": 256,
        "num_hidden_layers": 26, "num_attention_heads": 8, "num_key_value_heads": 4,
    },
    "small": {
        "vocab_size": VOCABULARY, "hidden_size": 128, "intermediate_size": 256, "head_dim": 64,
        "num_hidden_layers": 3, "num_attention_heads": 2, "num_key_value_heads": 1,
    },
}  # fmt: skip
STEPS = {
    "full": (("notebook", "9b"), ("gemma2-9b", "9b"), ("gemma2-9b", "2b")),
    "small": (("notebook", "small"), ("gemma2-9b", "small")),
}
N_STEPS = {"full": 3, "small": 1}
"""Timed steps, after one that compiles."""
N_PAIRS = {"full": 64, "small": 2}
LARGEST_ERROR = {"float32": 1e-3, "float16": 0.5, "bfloat16": 0.5}
"""Largest difference of the gradients of both ways, relative to their norm. In 16 bits it only
notices what is wrong or scaled, since rounding adds up over 42 random layers."""
LARGEST_PROBABILITY_ERROR = {"float32": 5e-3, "bfloat16": 0.1}


# ---- training steps -----------------------------------------------------------------------


def step(device: str, size: str) -> Iterator[dict[str, Any]]:
    """Time optimiser steps of both ways, with their peak memory and ours as estimated."""
    rate = measure_rate(torch, device)
    yield {"case": "matrix product", "is_ok": True, "tflops": rate / 1e12}
    for preset, shape in STEPS[size]:
        name = f"{preset}, {shape}"
        yield from guarded(name, time_preset, name, configure(preset, shape), shape, device, rate)
        release(device)


def time_preset(
    name: str, config: RunConfig, shape: str, device: str, rate: float
) -> Iterator[dict[str, Any]]:
    """Time the steps of one preset, ours first."""
    max_length = 64 if shape == "small" else config.template.max_length
    n_steps = N_STEPS["small" if shape == "small" else "full"] + 1
    steps = train.draw_steps(n_steps, max_length=max_length)
    ours = add_noise(make_ours(shape, config.model, device)).train()
    sizes = largest_batch(steps, config)
    chosen, _ = choose_checkpointing(ours, **sizes)
    modes = ("none", "trainable")[chosen == "trainable" :]  # without those that do not fit
    found = {mode: run_ours(ours, steps, config, mode, sizes) for mode in modes}
    theirs, autocast = make_theirs(shape, config.model, device, ours)
    del ours
    release(device)
    run = functools.partial(train.step_theirs, theirs, autocast=autocast)
    found["notebook's way"] = run_steps(theirs, steps, run, device)
    yield from describe_steps(name, found, steps, config, shape, rate)


def configure(preset: str, shape: str) -> RunConfig:
    """Return a preset; for the small shape with fewer frozen layers, and float32 for a CPU."""
    # Without dropout, the gradients of both ways can be compared.
    config = override(load_preset(preset), lora_dropout=0.0)
    if shape != "small":
        return config
    n_frozen = min(1, config.model.n_frozen_layers)
    return override(config, n_frozen_layers=n_frozen, dtype="float32", lora_r=4)


def largest_batch(steps: list[TokenRows], config: RunConfig) -> dict[str, Any]:
    """Return what the estimate of memory needs to know of the steps."""
    budget = config.train.micro_batch_tokens
    plans = [
        rows.lengths[part]
        for rows in steps
        for part in plan_step(rows.lengths, micro_batch_tokens=budget, layout="packed")[0]
    ]
    return {
        "n_tokens": max(int(lengths.sum()) for lengths in plans),
        "longest": max(int(lengths.max()) for lengths in plans),
        "optimizer": config.train.optimizer,
    }


def run_ours(
    classifier: PairClassifier,
    steps: list[TokenRows],
    config: RunConfig,
    mode: Any,
    sizes: dict[str, Any],
) -> dict[str, Any]:
    """Run the steps with one mode of checkpointing, after estimating their memory."""
    estimate = estimate_memory(classifier, mode=mode, **sizes)
    classifier.checkpoint(mode)
    budget = config.train.micro_batch_tokens
    run = functools.partial(train.step_ours, classifier, micro_batch_tokens=budget)
    found = run_steps(classifier, steps, run, classifier.device.type)
    return found | {"estimated_gib": (estimate.total - estimate.weights) / 2**30}


def run_steps(
    model: nn.Module, steps: list[TokenRows], run: Callable[[TokenRows], None], device: str
) -> dict[str, Any]:
    """Time optimiser steps; the first one compiles, and its gradients are kept.

    The learning rate is 0, so that both ways have the same weights.
    """
    trained = [part for part in model.parameters() if part.requires_grad]
    optimizer = bitsandbytes.optim.AdamW8bit(trained, lr=0.0)

    def update(rows: TokenRows) -> None:
        optimizer.zero_grad(set_to_none=True)
        run(rows)
        nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()

    model.zero_grad(set_to_none=True)
    before = start_peak(device)
    first, _ = timed(device, lambda: run(steps[0]))
    grads = {name: part.cpu() for name, part in train.gradients(model)}
    seconds = [timed(device, functools.partial(update, rows))[0] for rows in steps[1:]]
    model.zero_grad(set_to_none=True)
    peak = (read_peak(device) - before) / 2**30
    return {"seconds": seconds, "first": first, "grads": grads, "peak_gib": peak}


def describe_steps(
    name: str,
    found: dict[str, dict[str, Any]],
    steps: list[TokenRows],
    config: RunConfig,
    shape: str,
    rate: float,
) -> Iterator[dict[str, Any]]:
    """Yield a row for each way: tokens a second, share of the peak, memory, and the gradient."""
    theirs = found["notebook's way"]
    useful = useful_operations(SHAPES[shape], config.model.n_frozen_layers)
    total = operations_per_token(config) if shape == "9b" else None
    limit = LARGEST_ERROR[config.model.dtype]
    for way, numbers in found.items():
        speeds = [
            int(rows.lengths.sum()) / seconds
            for rows, seconds in zip(steps[1:], numbers["seconds"], strict=True)
        ]
        speed = statistics.median(speeds)
        error = relative_error(numbers["grads"], theirs["grads"])
        row = {"case": f"{name}, {way}", "is_ok": error <= limit, "tokens_per_s": speed}
        row |= {"ratio": sum(theirs["seconds"]) / sum(numbers["seconds"])}
        row |= {"mfu": speed * useful / rate, "peak_gib": numbers["peak_gib"]}
        if way != "notebook's way":
            row |= {"estimated_gib": numbers["estimated_gib"], "gradient_error": error}
        if total is not None and way == "trainable":
            row["share_for_doctor"] = speed * total / rate
        yield row | {"first_step_s": numbers["first"]}


def useful_operations(sizes: dict[str, int], n_frozen: int) -> float:
    """Return the operations per token without recomputation: forward, and backward to adapters.

    Only the linear maps of the layers count; a weight takes a multiplication and an addition.
    """
    hidden, n_layers = sizes["hidden_size"], sizes["num_hidden_layers"]
    heads = sizes["num_attention_heads"] + sizes["num_key_value_heads"]
    weights = hidden * (2 * heads * sizes["head_dim"] + 3 * sizes["intermediate_size"])
    return 2.0 * weights * (2 * n_layers - n_frozen)


def relative_error(first: dict[str, Tensor], second: dict[str, Tensor]) -> float:
    """Return the norm of the difference of all gradients, relative to that of the second."""
    first = {name.removeprefix("network."): part for name, part in first.items()}
    assert first.keys() == second.keys()
    difference = sum(float((first[name] - part).square().sum()) for name, part in second.items())
    return float(np.sqrt(difference / sum(float(part.square().sum()) for part in second.values())))


# ---- scoring ------------------------------------------------------------------------------


def scoring(device: str, size: str) -> Iterator[dict[str, Any]]:
    """Time scoring of pairs in both orders; the notebook's way has padded batches of eight."""
    for shape in ("9b", "2b") if size == "full" else ("small",):
        yield from guarded(shape, time_scoring, shape, device, N_PAIRS[size])
        release(device)


def time_scoring(shape: str, device: str, n_pairs: int) -> dict[str, Any]:
    """Score the same pairs in both ways, each after a pair that compiles."""
    rows, few = predict.make_both_orders(n_pairs), predict.make_both_orders(1)
    config = configure("gemma2-9b", shape)
    ours = add_noise(make_ours(shape, config.model, device)).eval()
    score_rows(ours, few)
    before = start_peak(device)
    seconds, logits = timed(device, functools.partial(score_rows, ours, rows))
    peak = (read_peak(device) - before) / 2**30
    theirs, autocast = make_theirs(shape, config.model, device, ours)
    del ours
    release(device)
    theirs.eval()
    with autocast():
        predict.evaluate(theirs, few)
        run = functools.partial(predict.evaluate, theirs, rows)
        their_seconds, their_logits = timed(device, run)
    error = float(np.abs(softmax(logits) - softmax(their_logits)).max())
    is_ok = error <= LARGEST_PROBABILITY_ERROR[config.model.dtype]
    return {"case": f"both orders, {shape}", "is_ok": is_ok, "pairs_per_s": n_pairs / seconds} | {
        "ratio": their_seconds / seconds,
        "peak_gib": peak,
        "probability_error": error,
    }


def softmax(logits: np.ndarray) -> np.ndarray:
    """Return the probabilities of logits, `(n, 3)`."""
    return torch.from_numpy(logits).softmax(1).numpy()


# ---- models -------------------------------------------------------------------------------


def make_ours(shape: str, config: ModelConfig, device: str) -> PairClassifier:
    """Make our classifier with random weights; the same arguments give the same weights."""
    network = make_network(shape, config, device, register_attention())
    network = prepare_network(network, config, ["score"], device=device, seed=0)
    return adapt_network(network, config, Path(shape), seed=0)


def make_theirs(
    shape: str, config: ModelConfig, device: str, ours: PairClassifier
) -> tuple[Any, Callable[[], Any]]:
    """Make the notebook's model with the weights of ours, and the context of its forward pass."""
    network: Any = ours.network
    adapter, trained = network.peft_config["default"], dict(ours.trainable_parameters())
    theirs = make_network(shape, config, device, "eager")
    prepare_theirs(theirs)
    theirs = get_peft_model(theirs, dataclasses.replace(adapter)).train()
    targets = dict(theirs.named_parameters())
    with torch.no_grad():
        for name, part in trained.items():
            targets[name.removeprefix("network.")].copy_(part)
    context = ours.autocast()
    return theirs, lambda: context


def make_network(shape: str, config: ModelConfig, device: str, attention: str) -> Any:
    """Make a Gemma 2 classifier on the device, one layer after the other, quantized to nf4."""
    settings = make_settings(**SHAPES[shape], attn_implementation=attention, num_labels=3)
    n_layers, settings.num_hidden_layers = settings.num_hidden_layers, 0
    dtype = getattr(torch, config.dtype)
    with torch.random.fork_rng(), quiet_transformers():
        torch.manual_seed(0)
        with making(device, dtype):
            network: Any = Gemma2ForSequenceClassification(settings)
        for index in range(n_layers):
            with making(device, dtype):
                layer = Gemma2DecoderLayer(settings, index)
            network.model.layers.append(quantize(layer, dtype))
    settings.num_hidden_layers = n_layers
    network.is_loaded_in_4bit = True  # peft looks for it
    return network


@contextlib.contextmanager
def making(device: str, dtype: torch.dtype) -> Iterator[None]:
    """Make new tensors on a device and in a dtype."""
    default = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            yield
    finally:
        torch.set_default_dtype(default)


def quantize(layer: nn.Module, dtype: torch.dtype) -> nn.Module:
    """Replace the linear maps of a layer by quantized ones, with the settings of a fit."""
    for name, part in list(layer.named_modules()):
        if isinstance(part, nn.Linear):
            new = bitsandbytes.nn.Linear4bit(
                part.in_features, part.out_features, bias=False, compute_dtype=dtype,
                compress_statistics=True, quant_type="nf4", device="meta",
            )  # fmt: skip
            new.weight = bitsandbytes.nn.Params4bit(
                part.weight.detach(), requires_grad=False, compress_statistics=True,
                quant_type="nf4", module=new,
            ).to(part.weight.device)  # fmt: skip
            layer.set_submodule(name, new)
    return layer


def release(device: str) -> None:
    """Return freed memory to the device."""
    gc.collect()
    if device == "cuda":
        torch.cuda.empty_cache()
