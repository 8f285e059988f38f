"""Packed attention on a device, compared with textbook attention in float64 on the same device."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from benchmarks.rounds import guarded, read_peak, start_peak, timed
from tiewise.models.kernels import (
    Rows,
    Scoring,
    attend,
    attend_flash,
    attend_flex,
    can_use_flash,
    flex_mask,
)

LENGTHS = {"full": (4096, 1, 1000, 528, 5, 300), "small": (70, 1, 33, 130, 5)}
WINDOW = {"full": 512, "small": 32}
TOLERANCE = {torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 3e-2}
"""Largest error relative to the largest value of the tensor; bfloat16 rounds by 4e-3."""
HALF, WHOLE = torch.bfloat16, torch.float32
CASES = (
    (256, 5.0, "window", False, (HALF, WHOLE, torch.float16)),
    (256, 5.0, None, False, (HALF,)),
    (256, 5.0, None, True, (HALF,)),
    (128, None, None, False, (HALF, WHOLE)),
    (64, None, "window", False, (HALF, WHOLE)),
)
"""Head size, soft cap, window, whether only the last token of each row is a query, and dtypes. The
first three are the layers of Gemma 2."""
N_MASKED = {"full": 16_384, "small": 256}
"""Tokens of a block mask: as many as are scored in one batch."""

Kernel = Callable[[Tensor, Tensor, Tensor, Rows, Scoring], Tensor]


def attention(device: str, size: str) -> Iterator[dict[str, Any]]:
    """Compare outputs and gradients of each kernel, and time its compilation."""
    for *case, dtypes in CASES:
        for dtype in dtypes:
            for name, kernel in find_kernels(device, dtype).items():
                title = f"{name} {describe(case, dtype)}"
                yield from guarded(title, compare, title, kernel, case, dtype, device, size)
    if device == "cuda" and not can_use_flash(torch.bfloat16):
        yield {"case": "flash-attention", "is_ok": True, "notes": "not installed"}
    yield from guarded("block mask", measure_mask, device, N_MASKED[size])
    n_variants = torch._dynamo.utils.counters["stats"]["unique_graphs"]  # noqa: SLF001 - torch 2.13 has no public count
    yield {"case": "compiled variants", "is_ok": True, "n": n_variants}


def measure_mask(device: str, n_tokens: int) -> dict[str, Any]:
    """Return a row with the time and memory of the block mask of flex attention."""
    lengths = (n_tokens // 4,) * 4
    flex_mask(Rows((1,), (1,)), None, torch.device(device))  # loads what it needs
    before = start_peak(device)
    seconds, _ = timed(
        device, lambda: flex_mask(Rows(lengths, lengths), None, torch.device(device))
    )
    peak = (read_peak(device) - before) / 2**30
    case = f"block mask of {n_tokens:,} tokens"
    return {"case": case, "is_ok": True, "ms": 1e3 * seconds, "peak_gib": peak}


def find_kernels(device: str, dtype: torch.dtype) -> dict[str, Kernel]:
    """Return the kernels that run on a device in a dtype."""
    if device == "cpu":
        return {"rows": attend}
    return {"flex": attend_flex} | ({"flash": attend_flash} if can_use_flash(dtype) else {})


def describe(case: list[Any], dtype: torch.dtype) -> str:
    """Name a case, such as `256 capped window bfloat16`."""
    head_dim, cap, window, is_pooled = case
    words = [str(head_dim), "capped" if cap else "", window or "", "pooled" if is_pooled else ""]
    return " ".join([*filter(None, words), str(dtype).removeprefix("torch.")])


def compare(
    name: str, kernel: Kernel, case: list[Any], dtype: torch.dtype, device: str, size: str
) -> dict[str, Any]:
    """Return a row with the largest error of output and gradients, and the times of two calls.

    The first call compiles.
    """
    head_dim, cap, window, is_pooled = case
    lengths = LENGTHS[size]
    rows = Rows((1,) * len(lengths) if is_pooled else lengths, lengths)
    scoring = Scoring(head_dim**-0.5, cap, WINDOW[size] if window else None)
    tensors = draw(rows, head_dim, dtype, device)
    first, values = timed(device, lambda: differentiate(kernel, tensors, rows, scoring))
    second, _ = timed(device, lambda: differentiate(kernel, tensors, rows, scoring))
    exact = [part.double() for part in tensors]
    expected = differentiate(textbook_attention, exact, rows, scoring)
    error = max(
        float((own.double() - other).abs().max() / other.abs().max())
        for own, other in zip(values, expected, strict=True)
    )
    tolerance = TOLERANCE[dtype]
    times = {"first_s": first, "ms": 1e3 * second}
    row = {"case": name, "is_ok": error <= tolerance, "error": error, "tolerance": tolerance}
    return row | times


def draw(rows: Rows, head_dim: int, dtype: torch.dtype, device: str) -> list[Tensor]:
    """Draw queries, keys and values; four heads of queries share two of keys."""
    generator = torch.Generator().manual_seed(0)
    n_queries, n_keys = sum(rows.query_lengths), sum(rows.key_lengths)
    shapes = [(n_queries, 4, head_dim), (n_keys, 2, head_dim), (n_keys, 2, head_dim)]
    # Scores of a spread of 3 make the soft cap matter.
    return [
        (3**0.5 * torch.randn(shape, generator=generator)).to(device, dtype) for shape in shapes
    ]


def differentiate(
    kernel: Kernel, tensors: list[Tensor], rows: Rows, scoring: Scoring
) -> list[Tensor]:
    """Return the output, and the gradients of a weighted sum of it."""
    parts = [part.detach().requires_grad_() for part in tensors]
    out = kernel(*parts, rows, scoring)
    weights = torch.linspace(-1, 1, out.numel(), device=out.device, dtype=torch.float64)
    total = (out.double() * weights.view_as(out)).sum()
    return [out.detach(), *torch.autograd.grad(total, parts)]


def textbook_attention(
    query: Tensor, key: Tensor, value: Tensor, rows: Rows, scoring: Scoring
) -> Tensor:
    """Compute attention row by row with a mask and repeated keys."""
    outputs, query_start, key_start = [], 0, 0
    for n_queries, n_keys in zip(rows.query_lengths, rows.key_lengths, strict=True):
        own = query[query_start : query_start + n_queries].transpose(0, 1)
        group = query.shape[1] // key.shape[1]
        keys, values = (
            part[key_start : key_start + n_keys].transpose(0, 1).repeat_interleave(group, 0)
            for part in (key, value)
        )
        scores = own @ keys.mT * scoring.scale
        if scoring.softcap is not None:
            scores = scoring.softcap * torch.tanh(scores / scoring.softcap)
        positions = torch.arange(n_keys, device=query.device)
        distance = positions[n_keys - n_queries :, None] - positions
        hidden = distance < 0
        if scoring.window is not None:
            hidden |= distance >= scoring.window
        weights = torch.softmax(scores.masked_fill(hidden, -torch.inf), -1)
        outputs.append((weights @ values).transpose(0, 1))
        query_start, key_start = query_start + n_queries, key_start + n_keys
    return torch.cat(outputs)
