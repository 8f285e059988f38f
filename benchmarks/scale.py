"""Growth of time and memory with the number of rows, for a prediction from file to file.

    python -m benchmarks scale --quick

`scale.rows_exponent`
    Exponent of the number of rows in CPU seconds, from 2,000 over 10,000 to 50,000 rows: 1 is
    linear. The time to start cancels.
`scale.memory_growth`
    Peak resident memory with the most rows, divided by that with the fewest: 1 is flat.

Simulated pairs, cut at 48 tokens, in one order, through the tiny Gemma 2: a model so small that
the work around it is visible. Ours is the command ``tiewise predict``; the notebook's way reads the
file with `datasets`, maps its tokenizer over it, and lets the Trainer predict eight rows at a time.
Each prediction runs in its own process and reports its time and memory. `equal_to` is the largest
difference of a probability with the fewest rows.
"""

from __future__ import annotations

import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tiewise.data.labels import PROB_COLUMNS

MAX_LENGTH = 48
FIT = (
    "fit", "--preset", "tiny", "--run", "scale", "--fold", "0", "--limit", "60", "--n-epochs", "1",
    "--template", "notebook", "--truncation", "right", "--max-length", str(MAX_LENGTH), "--quiet",
)  # fmt: skip
PREDICT = ("predict", "--run", "scale", "--no-swap", "--overwrite", "--quiet")
Measured = dict[str, float]


def run(*, is_quick: bool) -> list[dict[str, Any]]:
    """Predict files of three sizes both ways; the rows of the benchmark."""
    sizes, n_rounds = ((2000, 4000, 8000), 1) if is_quick else ((2000, 10_000, 50_000), 3)
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        write_data(home, sizes)
        in_process(home, "ours", [*FIT, "--data", f"{sizes[0]}.csv"])
        rounds = [measure_round(home, sizes) for _ in range(n_rounds)]
        difference = largest_difference(home, sizes[0])
    return [
        as_row(
            "scale.rows_exponent", sizes, [find_exponents(sizes, r) for r in rounds], difference
        ),
        as_row("scale.memory_growth", sizes, [find_growths(r) for r in rounds], difference),
    ]


def write_data(home: Path, sizes: tuple[int, ...]) -> None:
    """Write the first pairs of one simulation for each size."""
    from tiewise.data.formats import write_pairs
    from tiewise.data.pairs import COLUMNS
    from tiewise.data.simulation.simulate import simulate

    pairs = simulate(max(sizes), seed=0)[list(COLUMNS)]
    for n in sizes:
        write_pairs(pairs[:n], home / f"{n}.csv")


def measure_round(home: Path, sizes: tuple[int, ...]) -> dict[str, list[Measured]]:
    """Predict each file once with each way."""
    measured: dict[str, list[Measured]] = {"ours": [], "notebook": []}
    for n in sizes:
        ours = [*PREDICT, "--data", f"{n}.csv", "--out", f"ours-{n}.csv"]
        measured["ours"].append(in_process(home, "ours", ours))
        measured["notebook"].append(in_process(home, "notebook", [f"{n}.csv", f"notebook-{n}.csv"]))
    return measured


def find_exponents(sizes: tuple[int, ...], measured: dict[str, list[Measured]]) -> Measured:
    """Return the exponent of the rows in the CPU seconds between the sizes, by way."""
    rows = math.log((sizes[2] - sizes[1]) / (sizes[1] - sizes[0]))
    seconds = {way: [one["seconds"] for one in found] for way, found in measured.items()}
    return {way: math.log((s[2] - s[1]) / (s[1] - s[0])) / rows for way, s in seconds.items()}


def find_growths(measured: dict[str, list[Measured]]) -> Measured:
    """Return the peak memory of the last file divided by that of the first, by way."""
    return {way: found[-1]["peak"] / found[0]["peak"] for way, found in measured.items()}


def as_row(
    case: str, sizes: tuple[int, ...], rounds: list[Measured], difference: float
) -> dict[str, Any]:
    """Return a row of the benchmark."""
    ratios = [found["notebook"] / found["ours"] for found in rounds]
    return {
        "case": case,
        "ratio": statistics.median(ratios),
        "low": min(ratios),
        "high": max(ratios),
        **{way: statistics.median(found[way] for found in rounds) for way in ("ours", "notebook")},
        "unit": f"{sizes[0]} to {sizes[-1]} rows",
        "equal_to": difference,
        "notes": "ours " + ", ".join(f"{found['ours']:.3f}" for found in rounds),
    }


def largest_difference(home: Path, n: int) -> float:
    """Return the largest difference between the probabilities that the two ways wrote."""
    ours, theirs = (
        pd.read_csv(home / f"{way}-{n}.csv")[PROB_COLUMNS] for way in ("ours", "notebook")
    )
    return float(np.abs(ours.to_numpy() - theirs.to_numpy()).max())


# ---- one process ------------------------------------------------------------------------------


def in_process(home: Path, way: str, words: list[str]) -> Measured:
    """Run one way in a fresh interpreter; return CPU seconds and peak resident memory in MiB."""
    code = "import sys; from benchmarks.scale import measure; measure(*sys.argv[1:])"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, way, *words],
        cwd=home, env=environment(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(done.stderr)
    measured: Measured = json.loads(done.stdout.splitlines()[-1])
    return measured


def environment() -> dict[str, str]:
    """Return the environment: one thread, no hub, and this folder on the path."""
    here = str(Path(__file__).resolve().parents[1])
    paths = os.pathsep.join(filter(None, [here, os.environ.get("PYTHONPATH")]))
    one_thread = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    return os.environ | one_thread | {"PYTHONPATH": paths, "HF_HUB_OFFLINE": "1"}


def measure(way: str, *words: str) -> None:
    """Run one way, and print the time and memory of this process."""
    if way == "notebook":
        predict_as_the_notebook(*words)
    else:
        from tiewise.cli import main

        if main(words):
            raise SystemExit(2)
    lines = Path("/proc/self/status").read_text().splitlines()
    peak = next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:"))
    print(json.dumps({"seconds": time.process_time(), "peak": peak}))


def predict_as_the_notebook(data: str, out: str) -> None:
    """Map, let the Trainer predict, and write a submission, as the notebook does."""
    import datasets
    from transformers import DataCollatorWithPadding, Trainer, TrainingArguments

    from benchmarks.midsize import load_theirs
    from benchmarks.tokens import NotebookEncoder, load_notebook_tokenizer
    from tiewise.models.backbones import resolve_backbone

    backbone_dir = resolve_backbone("tiny:0", cache_dir="artifacts/cache")
    tokenizer = load_notebook_tokenizer(backbone_dir)
    tokenizer.padding_side = "right"
    table = datasets.Dataset.from_csv(data, cache_dir="datasets", keep_in_memory=False)
    rows = table.map(NotebookEncoder(tokenizer, MAX_LENGTH), batched=True)
    trainer = Trainer(
        model=load_theirs(backbone_dir, Path("artifacts/runs/scale/fold0/adapter")),
        args=TrainingArguments(
            "trainer", per_device_eval_batch_size=8, use_cpu=True, report_to="none",
            disable_tqdm=True,
        ),
        data_collator=DataCollatorWithPadding(tokenizer),
    )  # fmt: skip
    logits = trainer.predict(rows.remove_columns(table.column_names)).predictions
    exponents = np.exp(logits - logits.max(axis=1, keepdims=True))
    probs = pd.DataFrame(exponents / exponents.sum(axis=1, keepdims=True), columns=PROB_COLUMNS)
    probs.assign(id=table["id"]).to_csv(out, index=False)
