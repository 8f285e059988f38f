"""Runs the jobs whose results version 0.1 froze, and collects their numbers.

``python tests/frozen.py FILE`` writes the numbers of the installed version to FILE; the committed
file `frozen_0_1.json` was written by version 0.1.0. The test compares the two.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

PROBS = ["prob_a", "prob_b", "prob_tie"]
LENGTHS = Path(__file__).parents[1] / "benchmarks" / "lengths.csv"
WORDS = [
    "the",
    "a",
    "model",
    "answer",
    "question",
    "water",
    "light",
    "number",
    "quick",
    "because",
    "table",
    "river",
    "code",
    "prints",
    "list",
    "perhaps",
    "never",
    "seven",
    "reason",
    "first",
    "colour",
    "return",
    "value",
    "north",
    "simple",
    "because",
    "however",
]
ODDITIES = [None, "", "null", "\U0001f600 emoji", "naïve – café", "line\nbreak\ttab", '"quoted"']
ROW_BY_ROW = "--preset tiny --micro-batch-tokens 1"
"""Steps in parts of one row, as in that preset of version 0.1."""
JOBS = {
    "simulate": "simulate --n 300 --seed 0 --out train.csv",
    "audit": "audit train.csv --json",
    "audit shaped": "audit shaped.csv --json",
    "fit baseline": "fit --preset baseline --data train.csv --folds all --run counted",
    "fit other": "fit --preset baseline --data train.csv --folds all --run other --seed 1",
    "fit shaped baseline": "fit --preset baseline --data shaped.csv --folds all --run sbaseline",
    "fit tiny": f"fit {ROW_BY_ROW} --data train.csv --limit 80 --fold 0 --run small",
    "fit shaped": f"fit {ROW_BY_ROW} --data shaped.csv --fold 0 --run shaped",
    "fit quickstart": (
        "fit --preset quickstart --both-orders --n-epochs 1 --data train.csv --limit 60 --fold 0 "
        "--run quick"
    ),
    "evaluate baseline": "evaluate counted --json",
    "evaluate tiny": "evaluate small --json",
    "compare": "compare counted other --json",
    "predict tiny": "predict --run shaped --data train.csv --out tiny.csv",
    "predict swap": "predict --run shaped --data train.csv --out swap.csv --swap",
    "predict baseline": "predict --run counted --data shaped.csv --out counted.csv",
}
SLOW_JOBS = ("fit shaped", "fit quickstart", "predict tiny", "predict swap")
"""Jobs of a minute together; only the full campaign runs them."""
SLOW_RESULTS = ("oof shaped", "oof quick", "predicted tiny", "predicted swap")
"""Names of the numbers that the slow jobs give."""
RUNS = ["counted", "other", "sbaseline", "small", "shaped", "quick"]
PREDICTIONS = ["tiny", "swap", "counted"]


def write_shaped(path: Path, *, n: int = 200) -> None:
    """Write pairs in Kaggle's columns whose lengths are those of real rows, with odd turns."""
    rng = np.random.default_rng(7)
    lengths = pd.read_csv(LENGTHS).iloc[: 3 * n : 3].to_numpy()
    rows = []
    for position, (n_prompt, n_a, n_b) in enumerate(lengths):
        n_turns = int(rng.integers(1, 4))
        fields = [
            [_text(rng, length // n_turns) for _ in range(n_turns)]
            for length in (n_prompt, n_a, n_b)
        ]
        if position % 8 == 0:
            fields[1 + position // 8 % 2][-1] = ODDITIES[position // 8 % len(ODDITIES)]
        label = int(rng.choice(3, p=[0.4, 0.35, 0.25]))
        cells = [json.dumps(field, ensure_ascii=position % 2 == 0) for field in fields]
        rows.append([1000 + 7 * position, *cells, *(int(label == k) for k in range(3))])
    columns = ["id", "prompt", "response_a", "response_b"]
    columns += ["winner_model_a", "winner_model_b", "winner_tie"]
    pd.DataFrame(rows, columns=columns).to_csv(path, index=False)


def collect(*, with_slow: bool = True) -> dict[str, Any]:
    """Run the jobs in the current folder and return their numbers, by name."""
    from tiewise.cli import main

    write_shaped(Path("shaped.csv"))
    found: dict[str, Any] = {"machine": digest_arithmetic()}
    jobs = {name: line for name, line in JOBS.items() if with_slow or name not in SLOW_JOBS}
    for name, line in jobs.items():
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            status = main(line.split())
        assert status == 0, f"{line}: exit status {status}"
        if "--json" in line:
            found[name] = json.loads(printed.getvalue())
    found["train.csv"] = digest(Path("train.csv").read_bytes())
    left_out = () if with_slow else SLOW_RESULTS
    for run in (run for run in RUNS if f"oof {run}" not in left_out):
        fold_or_run = Path("artifacts", "runs", run)
        paths = [fold_or_run / "oof.parquet", fold_or_run / "fold0" / "oof.parquet"]
        table = pd.read_parquet(next(path for path in paths if path.is_file()))
        found[f"oof {run}"] = table.sort_values("id")[PROBS].to_numpy().round(15).tolist()
    for name in (name for name in PREDICTIONS if f"predicted {name}" not in left_out):
        found[f"predicted {name}"] = pd.read_csv(f"{name}.csv")[PROBS].to_numpy().tolist()
    return found | token_ids()


def token_ids() -> dict[str, Any]:
    """Return digests of the rows of tokens under both templates, and the first rows' ids."""
    from tiewise import read_pairs

    pairs = read_pairs("shaped.csv")
    found: dict[str, Any] = {}
    for name, truncation in [("fields", "balanced"), ("notebook", "right")]:
        rows = tokenize(pairs, name, truncation)
        ids = [rows.row(position) for position in range(len(rows))]
        found[f"ids {name}"] = digest(np.concatenate(ids).astype("<i4").tobytes())
        found[f"lengths {name}"] = [len(row) for row in ids]
        found[f"first ids {name}"] = ids[0].tolist()
    return found


def tokenize(pairs: pd.DataFrame, name: str, truncation: str) -> Any:
    """Return the pairs' rows of tokens under a template, 256 tokens each, tiny's tokenizer."""
    from tiewise.models.backbones import resolve_backbone
    from tiewise.tokens.rows import token_rows
    from tiewise.tokens.template import build_template
    from tiewise.tokens.tokenizer import load_tokenizer

    tokenizer = load_tokenizer(resolve_backbone("tiny:0", cache_dir=Path("artifacts/cache")))
    template = build_template(tokenizer, name=name, max_length=256, truncation=truncation)
    return token_rows(pairs, tokenizer, template, cache_dir=None)


def _text(rng: np.random.Generator, n_tokens: int) -> str:
    return " ".join(rng.choice(WORDS, size=max(n_tokens, 1)))


def digest(content: bytes) -> str:
    """Return the SHA-256 of some bytes."""
    return hashlib.sha256(content).hexdigest()


def digest_arithmetic() -> str:
    """Return a digest that is equal on machines whose float32 products round alike."""
    import torch

    generator = torch.Generator().manual_seed(0)
    product = torch.randn(64, 257, generator=generator) @ torch.randn(257, 48, generator=generator)
    return digest(product.exp().sum(1).log().numpy().tobytes()) + f" torch {torch.__version__}"


if __name__ == "__main__":
    target = Path(sys.argv[1]).resolve()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        target.write_text(json.dumps(collect(), indent=None, sort_keys=True) + "\n")
