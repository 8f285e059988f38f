"""How long the CPU-class model takes to fit many rows of real lengths.

    python benchmarks/baseline_scale.py --rows 50000 --out benchmarks/baseline_scale.md

Lengths are drawn from ``lengths.csv`` (characters: 4.4 a token), texts are words of the embedded
sample, ten rows a prompt; a longer answer wins more often, so that there is something to learn.
Time is given on the clock and in CPU seconds: on a machine with other work the clock says little,
and CPU seconds over the number of cores are what an idle one would take at best.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

from tiewise.data.schema import build_pairs
from tiewise.data.simulation.simulate import simulate
from tiewise.features.feature_model import (
    extract_table_features,
    fit_feature_model,
    load_feature_model,
)
from tiewise.files import write_bytes

LENGTHS = Path(__file__).with_name("lengths.csv")
CHARS_PER_TOKEN = 4.4


def main() -> None:
    """Parse the arguments, time every step, print and write the table."""
    parser = argparse.ArgumentParser(prog="baseline_scale", description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    pairs = write_rows(arguments.rows)
    lines = [*describe(pairs), *time_steps(pairs)]
    print("\n".join(lines))
    if arguments.out:
        command = f"    python benchmarks/baseline_scale.py --rows {arguments.rows} --out {{}}"
        head = [
            "# Fitting many rows on a CPU",
            "",
            command.format(f"benchmarks/{arguments.out.name}"),
        ]
        write_bytes(arguments.out, ("\n".join([*head, "", *lines]) + "\n").encode())


def write_rows(n_rows: int) -> pd.DataFrame:
    """Make pairs of real lengths whose winner leans towards the longer answer."""
    generator = np.random.default_rng(0)
    tokens = pd.read_csv(LENGTHS).to_numpy()
    chars = (tokens[generator.integers(0, len(tokens), n_rows)] * CHARS_PER_TOKEN).astype(int)
    words = " ".join(turn or "" for turns in simulate(400)["response_a"] for turn in turns)
    text = words * (1 + 4 * int(chars.max()) // len(words))
    starts = generator.integers(0, len(text) - int(chars.max()), chars.shape)
    cut = [
        [text[s : s + n] for s, n in zip(*row, strict=True)]
        for row in zip(starts, chars, strict=True)
    ]
    lead = np.log1p(chars[:, 1]) - np.log1p(chars[:, 2]) + generator.logistic(0, 1, n_rows)
    labels = np.where(np.abs(lead) < 0.6, 2, (lead < 0).astype(int))
    return build_pairs(
        {
            "id": range(n_rows),
            "prompt": [[f"{row // 10} {texts[0]}"] for row, texts in enumerate(cut)],
            "response_a": [[texts[1]] for texts in cut],
            "response_b": [[texts[2]] for texts in cut],
            "label": labels,
        }
    ).assign(group=[f"g{row // 10}" for row in range(n_rows)])


def describe(pairs: pd.DataFrame) -> list[str]:
    """Say what is fitted, and where."""
    chars = sum(pairs[f"response_{side}"].map(lambda turns: len(turns[0])) for side in "ab")
    threads = os.environ.get("OMP_NUM_THREADS", "all")
    return [
        f"{len(pairs):,} rows in {pairs['group'].nunique():,} groups; answers of a row together "
        f"{int(chars.median()):,} characters in the median. {os.cpu_count()} cores, threads: "
        f"{threads}, load at the start {os.getloadavg()[0]:.1f}.",
        "",
        "| step | seconds on the clock | CPU seconds |",
        "| --- | ---: | ---: |",
    ]


def time_steps(pairs: pd.DataFrame) -> list[str]:
    """Time counting, fitting, saving and predicting; return lines of the table."""
    lines = []

    def timed(name, step):
        clock, cpu = time.perf_counter(), time.process_time()
        value = step()
        spent = time.perf_counter() - clock, time.process_time() - cpu
        lines.append(f"| {name} | {spent[0]:.0f} | {spent[1]:.0f} |")
        return spent, value

    counting, features = timed("features", lambda: extract_table_features(pairs))
    fitting, model = timed("fit", lambda: fit_feature_model(pairs, features=features))
    with tempfile.TemporaryDirectory() as folder:
        model.save(folder)
        loaded = load_feature_model(folder)
    timed("predict, features known", lambda: loaded.predict_features(features))
    both = [one + other for one, other in zip(counting, fitting, strict=True)]
    return [*lines, f"| features and fit | {both[0]:.0f} | {both[1]:.0f} |"]


if __name__ == "__main__":
    main()
