"""Time and memory to plan the units of many files, and to find their parts in an output folder.

    python -m benchmarks.units [--quick]

10**8 rows in 1,000 parquet files of 100 row groups, so 10**5 units; with ``--quick`` 10**7 rows in
100 files. The rows hold one letter in each column: a plan reads footers only. Each step runs in a
process of its own and prints the seconds of the clock and its peak of resident memory.

`plan`
    Find the files of a folder, read their footers, and cut their row groups into units.
`list`
    Plan, list the parts of a finished output folder, and find each unit's record in its manifest:
    a second call of ``tiewise predict`` until it knows that nothing is left to do.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tiewise.cluster.output import Output, Record
from tiewise.cluster.units import Unit, find_inputs, plan_units
from tiewise.files import write_json

GROUP_ROWS, N_GROUPS = 1_000, 100
NAMES = ("id", "prompt", "response_a", "response_b")


def main(*, is_quick: bool) -> None:
    """Plan and list in processes of their own."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        write_data(home / "in", 100 if is_quick else 1_000)
        write_output(home)
        for step in ("plan", "list"):
            command = [sys.executable, "-m", "benchmarks.units", step, folder]
            print(
                subprocess.run(command, check=True, capture_output=True, text=True).stdout, end=""
            )


def write_data(folder: Path, n_files: int) -> None:
    """Write numbered files with the same bytes."""
    folder.mkdir()
    table = pa.table({name: ["a"] * (GROUP_ROWS * N_GROUPS) for name in NAMES})
    pq.write_table(table, folder / "part-00000.parquet", row_group_size=GROUP_ROWS)
    data = (folder / "part-00000.parquet").read_bytes()
    for number in range(1, n_files):
        (folder / f"part-{number:05d}.parquet").write_bytes(data)


def write_output(home: Path) -> None:
    """Write an output folder whose parts are empty files, and its manifest."""
    (home / "out").mkdir()
    write_json(home / "out" / "identity.json", {"run": "none", "archive": ""})
    output = Output(home / "out")
    records = [
        Record(unit, f"{unit.key}-0.parquet", 0, GROUP_ROWS, False, {}) for unit in plan(home)
    ]
    for record in records:
        path = Path(output.part_path(record.part))
        path.parent.mkdir(exist_ok=True)
        path.touch()
    output.commit(records)


def plan(home: Path) -> list[Unit]:
    """Return the units of the data."""
    fs, paths = find_inputs(str(home / "in"))
    return plan_units(paths, fs)


def measure(step: str, home: Path) -> str:
    """Run a step in this process; return its seconds and the peak of resident memory."""
    began = time.perf_counter()
    units = plan(home)
    if step == "list":
        assert len(Output(home / "out").find_records(units)) == len(units)
    seconds = time.perf_counter() - began
    # Unlike ru_maxrss, without the memory of the process that started this one.
    [peak] = re.findall(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())
    n_rows = sum(unit.n_rows for unit in units)
    return (
        f"{step}: {n_rows:,} rows, {len(units):,} units: {seconds:.1f} s, {int(peak) / 1000:.0f} MB"
    )


if __name__ == "__main__":
    if sys.argv[1:2] in ([], ["--quick"]):
        main(is_quick=bool(sys.argv[1:]))
    else:
        print(measure(sys.argv[1], Path(sys.argv[2])))
