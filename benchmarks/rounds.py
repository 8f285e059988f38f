"""Timing and peak memory; ratios are taken per round, so that other load affects both ways."""

from __future__ import annotations

import statistics
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

Way = Callable[[], Any]


def alternate(
    ours: Way, notebook: Way, *, n_rounds: int, prepare: Way = lambda: None
) -> tuple[list[float], list[float]]:
    """Return the CPU seconds of each round, of our way and of the notebook's.

    The way that goes first changes from round to round; `prepare` runs before each and is not
    timed.
    """
    seconds: dict[Way, list[float]] = {ours: [], notebook: []}
    for number in range(n_rounds):
        ways = [ours, notebook] if number % 2 == 0 else [notebook, ours]
        for way in ways:
            prepare()
            start = time.process_time()
            way()
            seconds[way].append(time.process_time() - start)
    return seconds[ours], seconds[notebook]


def timed(device: str, way: Way) -> tuple[float, Any]:
    """Return the seconds until the device has finished, and the result."""
    import torch

    wait = torch.cuda.synchronize if device == "cuda" else lambda: None
    wait()
    start = time.perf_counter()
    result = way()
    wait()
    return time.perf_counter() - start, result


def guarded(case: str, measure: Callable[..., Any], *arguments: Any) -> Iterator[dict[str, Any]]:
    """Yield the row or the rows of one case; one that says why, if it fails."""
    try:
        found = measure(*arguments)
        yield from [found] if isinstance(found, dict) else found
    except Exception as error:
        text = "".join(traceback.format_exception(error))
        yield {"case": case, "is_ok": False, "error": text[-2000:]}


def start_peak(device: str) -> float:
    """Forget the peak of memory, and return the bytes in use."""
    if device == "cuda":
        import torch

        torch.cuda.reset_peak_memory_stats()
        return float(torch.cuda.memory_allocated())
    refs = Path("/proc/self/clear_refs")
    if refs.exists():
        refs.write_text("5")
    return 2**20 * resident("VmRSS")


def read_peak(device: str) -> float:
    """Return the largest number of bytes in use since :func:`start_peak`."""
    if device == "cuda":
        import torch

        return float(torch.cuda.max_memory_allocated())
    return 2**20 * resident("VmHWM")


def resident(field: str) -> float:
    """Return this process's resident memory (`VmRSS`) or its peak (`VmHWM`) in MiB; 0 off Linux."""
    status = Path("/proc/self/status")
    if not status.is_file():
        return 0.0
    lines = status.read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{field}:"))


def compared(
    case: str, ours: list[float], notebook: list[float], *, unit: str, equal_to: float
) -> dict[str, Any]:
    """Return a row of the benchmark: the median, lowest and highest ratio of the rounds."""
    ratios = [theirs / own for own, theirs in zip(ours, notebook, strict=True)]
    return {
        "case": case,
        "ratio": statistics.median(ratios),
        "low": min(ratios),
        "high": max(ratios),
        "ours": statistics.median(ours),
        "notebook": statistics.median(notebook),
        "unit": unit,
        "equal_to": equal_to,
    }
