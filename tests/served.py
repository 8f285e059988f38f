"""A server of ``tiewise serve`` in another process, and an export with spread for it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

from loaded_runs import open_tiny
from tiewise.serving.export import export_adapter

PROGRAM = """
import dataclasses, json, sys
from tiewise.judges.judge import Judge
from tiewise.serving.server import engine, run
name, limits = sys.argv[1], json.loads(sys.argv[2])
run.Limits = lambda: dataclasses.replace(engine.Limits(), **limits)
run.serve(Judge.from_pretrained(name), host="127.0.0.1", port=0, announce=lambda at: print(at, flush=True))
"""  # noqa: E501


def export_tiny(cache_dir: Path, folder: Path, **fields) -> Path:
    """Export a tiny Gemma 2 whose probabilities differ from row to row; return the folder."""
    opened = open_tiny("tiny", cache_dir, **({"dtype": "float32"} | fields))
    export_adapter(opened.save(folder / "adapter"), opened.backbone_dir, folder / "export")
    return folder / "export"


@contextmanager
def running(name: str | Path, *, token: str | None = None, **limits):
    """Serve a judge; yield the process and its address, and stop it at the end."""
    words = [sys.executable, "-c", PROGRAM, str(name), json.dumps(limits)]
    own = {"OMP_NUM_THREADS": "1"} | ({"TIEWISE_TOKEN": token} if token else {})
    options = {"stdout": subprocess.PIPE, "text": True, "env": os.environ | own}
    with subprocess.Popen(words, **options) as process:
        try:
            address = process.stdout.readline().strip()
            assert address.startswith("http://127.0.0.1:"), "the server did not start"
            yield process, address
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            process.wait(30)
