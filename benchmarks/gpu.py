"""Settle the GPU path: measure every part that a GPU runs, and say what failed.

    python -m benchmarks gpu --json gpu.json

Nothing is downloaded. Without CUDA, or with ``--quick``, everything runs at small sizes. Each part
runs in a process of its own, because after an error of CUDA, or a lack of memory, a process cannot
go on, and because a kernel that hangs can only be killed. A part that fails or takes too long keeps
the rows that it has, and the others still run. The exit status is the sum of the numbers of the
parts that failed: 1, 2, 4, ... in their order.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tiewise.files import write_json
from tiewise.runs.environment import describe_environment

ROOT = Path(__file__).parents[1]
TOTAL_SECONDS = 365
"""Limit for all parts; the tests in tests/gpu need the rest of eight minutes."""
CPU_FACTOR = 5
"""A CPU may take so many times longer."""


@dataclass(frozen=True)
class Part:
    """A function `module:name` of (device, size) that yields rows, and its limit in seconds."""

    function: str
    seconds: int
    is_timed: bool = False


PARTS = {
    "attention": Part("benchmarks.gpu_attention:attention", 120, is_timed=True),
    "step": Part("benchmarks.gpu_speed:step", 150, is_timed=True),
    "scoring": Part("benchmarks.gpu_speed:scoring", 60, is_timed=True),
    "curves": Part("benchmarks.gpu_fits:curves", 90),
    "recovery": Part("benchmarks.gpu_fits:recovery", 90),
    "precision": Part("benchmarks.gpu_fits:precision", 90),
    "processes": Part("benchmarks.gpu_fits:processes", 90),
}


def run(json_path: Path | None, *, is_quick: bool) -> int:
    """Run every part, print the table, write the JSON; return the exit status."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    size = "small" if is_quick or device == "cpu" else "full"
    print(f"{describe(device)}, sizes: {size}\n", flush=True)
    started = time.monotonic()
    results = run_parts(PARTS, device, size)
    failed = [name for name, result in results.items() if result["failed"]]
    status = sum(2**position for position, name in enumerate(results) if name in failed)
    seconds = round(time.monotonic() - started, 1)
    summary = f"failed: {', '.join(failed)}; exit status {status}" if failed else "all parts passed"
    print(f"\n{seconds} s in all; {summary}")
    if json_path is not None:
        facts = {"device": describe(device), "size": size, "seconds": seconds, "failed": failed}
        write_json(json_path, facts | {"environment": describe_environment(), "parts": results})
    return status


def describe(device: str) -> str:
    """Name the device."""
    if device == "cpu":
        return "CPU (says nothing about a GPU)"
    import torch

    found = torch.cuda.get_device_properties(0)
    return f"{found.name}, {found.total_memory / 2**30:.0f} GiB, torch {torch.__version__}"


def run_parts(parts: dict[str, Part], device: str, size: str) -> dict[str, dict[str, Any]]:
    """Run the parts, and print each one's rows; return rows, seconds and failures.

    Timed parts run alone; the others share the time and the device.
    """
    factor = 1 if device == "cuda" else CPU_FACTOR
    end, results = time.monotonic() + factor * TOTAL_SECONDS, {}

    def measure(part: Part) -> dict[str, Any]:
        started = time.monotonic()
        rows = run_part(part, device, size, limit=min(factor * part.seconds, end - started))
        failed = [row["case"] for row in rows if not row["is_ok"]]
        return {"seconds": round(time.monotonic() - started, 1), "failed": failed, "rows": rows}

    for is_timed in (True, False):
        chosen = {name: part for name, part in parts.items() if part.is_timed == is_timed}
        with ThreadPoolExecutor(1 if is_timed else len(parts)) as pool:
            for name, result in zip(chosen, pool.map(measure, chosen.values()), strict=True):
                print(f"{name}, {result['seconds']} s\n{render(result['rows'])}", flush=True)
                results[name] = result
    return {name: results[name] for name in parts}


def run_part(part: Part, device: str, size: str, *, limit: float) -> list[dict[str, Any]]:
    """Run a part in another process; return its rows, and one more if the process failed."""
    if limit <= 0:
        return [{"case": "not run", "is_ok": False, "error": "the time is over"}]
    with tempfile.TemporaryDirectory() as folder:
        path, log = Path(folder) / "rows.jsonl", Path(folder) / "log"
        path.touch()
        command = [sys.executable, "-m", "benchmarks.gpu", part.function, device, size, str(path)]
        with log.open("wb") as file:
            # A session of its own, so that the processes that it starts are killed with it.
            process = subprocess.Popen(
                command, cwd=ROOT, stdout=file, stderr=file, start_new_session=True
            )
            error = wait(process, limit)
        lines = path.read_text().splitlines()
        # A file of JSON has no NaN, which a failed row may have.
        rows = [json.loads(line, parse_constant=str) for line in lines]
        if error is not None and not any(row["case"] == "error" for row in rows):
            last = log.read_text(errors="replace")[-500:]
            rows.append({"case": "error", "is_ok": False, "error": f"{error}: {last}"})
    return rows


def wait(process: subprocess.Popen[bytes], limit: float) -> str | None:
    """Wait for a process, kill its session when the time is over; describe what went wrong."""
    try:
        status = process.wait(limit)
    except subprocess.TimeoutExpired:
        status = None
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    if status is None:
        return f"killed after {limit:.0f} s"
    return None if status == 0 else f"exit status {status}"


def render(rows: list[dict[str, Any]]) -> str:
    """Return rows as lines: case, whether it is right, and all numbers with their names."""
    width = max((len(row["case"]) for row in rows), default=0)
    lines = []
    for row in rows:
        facts = [f"{key} {show(row[key])}" for key in row if key not in ("case", "is_ok")]
        state = "ok" if row["is_ok"] else "FAILED"
        lines.append(f"  {row['case']:<{width}}  {state:<6}  {', '.join(facts)}")
    return "\n".join(lines)


def show(value: object) -> str:
    """Return a number with three digits, or any other value as it is."""
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1e3 else f"{value:.3g}"
    return str(value)


def main(function: str, device: str, size: str, path: str) -> None:
    """Run one part in this process, and write its rows as they come."""
    module, name = function.split(":")
    with Path(path).open("a") as file:
        try:
            for row in getattr(importlib.import_module(module), name)(device, size):
                file.write(json.dumps(row) + "\n")
                file.flush()
        except Exception as error:
            text = "".join(traceback.format_exception(error))[-2000:]
            file.write(json.dumps({"case": "error", "is_ok": False, "error": text}) + "\n")
            raise


if __name__ == "__main__":
    main(*sys.argv[1:])
