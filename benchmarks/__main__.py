"""Run benchmarks and print how many times faster or smaller tiewise is than the notebook's way.

``python -m benchmarks tokens train predict --quick --json ratios.json``. A ratio is the median over
rounds in which both ways alternate, in one process and on one thread, with the lowest and highest
round; ``equal to`` is the largest difference between the numbers that the two ways computed.
``gpu`` is run alone: it measures what a GPU runs, and exits with the parts that failed.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path
from typing import Any

from tiewise.files import write_json

NAMES = ("tokens", "train", "rounding", "predict", "scale", "serve")
Row = dict[str, Any]


def main() -> None:
    """Parse the arguments, run the named benchmarks, print and write their rows."""
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)}; all; or gpu"
    )
    parser.add_argument(
        "--quick", action="store_true", help="fewer rounds; under five minutes each"
    )
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    arguments = parser.parse_args()
    if arguments.names == ["gpu"]:
        gpu = importlib.import_module("benchmarks.gpu")
        sys.exit(gpu.run(arguments.json, is_quick=arguments.quick))
    unknown = set(arguments.names) - set(NAMES)
    if unknown:
        parser.error(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(NAMES)}")
    results: dict[str, list[Row]] = {}
    for name in arguments.names or NAMES:
        module = importlib.import_module(f"benchmarks.{name}")
        results[name] = module.run(is_quick=arguments.quick)
        print(render(results[name]), flush=True)
    if arguments.json:
        write_json(arguments.json, results)


def render(rows: list[Row]) -> str:
    """Return the rows as a table of fixed width."""
    names = "".join(f"{name:>8}" for name in ("ratio", "low", "high"))
    lines = [f"{'case':<26}{names}{'ours':>13}{'notebook':>13}  unit (equal to)"]
    for row in rows:
        equal_to = "-" if row["equal_to"] is None else f"{row['equal_to']:.1e}"
        numbers = "".join(f"{row[name]:>8.2f}" for name in ("ratio", "low", "high"))
        times = "".join(f"{row[name]:>13.4g}" for name in ("ours", "notebook"))
        lines.append(f"{row['case']:<26}{numbers}{times}  {row['unit']} ({equal_to})")
        lines += [f"    {row['notes']}"] if "notes" in row else []
    return "\n".join(lines)


if __name__ == "__main__":
    main()
