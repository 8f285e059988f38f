"""An exported model on a real server of vLLM; `nox -s vllm` installs it and runs these tests.

TIEWISE_VLLM is the Python of an environment with vLLM, which has other versions of some packages.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import time
from contextlib import contextmanager

import numpy as np
import pytest
import urllib3

import tiewise as tw
from loaded_runs import open_backbone
from tiewise.data.simulation.simulate import simulate
from tiewise.errors import ModelError
from tiewise.judges.judge import Judge
from tiewise.serving.export import export_adapter
from tiny_models import write_family

PYTHON = os.environ.get("TIEWISE_VLLM", "")
ON_CPU = "--enforce-eager --kv-cache-memory-bytes 67108864 --max-model-len 512"
HTTP = urllib3.PoolManager(retries=False, timeout=60)
pytestmark = [
    pytest.mark.skipif(not PYTHON, reason="TIEWISE_VLLM is not set"),
    pytest.mark.timeout(900),
]


def export(family, dtype, cache_dir, folder):
    """Export a small decoder; vLLM's attention on a CPU needs heads of 32 numbers or more."""
    backbone = write_family(family, folder / "backbone", cache_dir, head_dim=32, vocab_size=4096)
    (backbone / "tokenizer_config.json").write_text(
        json.dumps({"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>"})
    )
    opened = open_backbone(str(backbone), str(backbone), cache_dir, dtype=dtype)
    export_adapter(opened.save(folder / "adapter"), backbone, folder / "export")
    return folder / "export"


def find_port():
    """Return a port that is free now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@contextmanager
def serving(export_dir, *, options="", without=()):
    """Run the command of the export's card on a free port; yield the address."""
    card = (export_dir / "README.md").read_text("utf-8")
    line = re.search(r"^vllm serve DIR (.*)$", card, re.MULTILINE)[1]
    words = [word for word in shlex.split(line) if word not in without]
    words = [word.replace("DIR", str(export_dir)) for word in words]
    port = find_port()
    program = [PYTHON, "-m", "vllm.entrypoints.openai.api_server", "--model", str(export_dir)]
    own = {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", "HF_HUB_OFFLINE": "1"}
    own |= {"VLLM_CACHE_ROOT": str(export_dir.parent / "vllm"), "VLLM_CPU_KVCACHE_SPACE": "1"}
    command = [*program, *words, *shlex.split(ON_CPU), *shlex.split(options)]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    log_path = export_dir.parent / f"vllm-{port}.log"
    log = log_path.open("w")
    process = subprocess.Popen(
        command, env=os.environ | own, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
    )
    try:
        address = f"http://127.0.0.1:{port}"
        wait_until_ready(process, address, log_path)
        yield address
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(60)
        log.close()


def wait_until_ready(process, address, log_path):
    """Wait up to ten minutes for the server, and fail with the end of its log."""
    deadline = time.monotonic() + 600
    while process.poll() is None and time.monotonic() < deadline:
        try:
            if HTTP.request("GET", f"{address}/health", timeout=5).status == 200:
                return
        except urllib3.exceptions.HTTPError:
            time.sleep(2)
    pytest.fail(f"vLLM did not start:\n{log_path.read_text('utf-8')[-3000:]}")


@pytest.mark.parametrize("family", ["gemma2", "llama"])
def test_served_probabilities_equal_the_export(cache_dir, tmp_path, family):
    """In float32 every probability agrees within 1e-5, in both orders; text is refused."""
    export_dir = export(family, "float32", cache_dir, tmp_path)
    pairs = simulate(30, seed=3)
    local = Judge.from_pretrained(export_dir, device="cpu")
    expected = local.predict_proba(pairs)
    assert np.ptp(expected, axis=0).max() > 0.05, "the rows must differ"
    with serving(export_dir) as address:
        judge = Judge.from_pretrained(f"vllm:{address}", template_from=export_dir)
        np.testing.assert_allclose(judge.predict_proba(pairs), expected, rtol=0, atol=1e-5)
        found = tw.predict(pairs, run=judge, swap=True)[["prob_a", "prob_b", "prob_tie"]]
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
        ask = "What is 2 + 2?", ["4", "5", "I can't say."]
        assert tw.rank(*ask, run=judge).order.tolist() == local.rank(*ask).order.tolist()
        text = HTTP.request("POST", f"{address}/classify", json={"input": "What is 2 + 2?"})
        assert text.status >= 400


def test_half_precision_is_close(cache_dir, tmp_path):
    """An export in bfloat16 is served within 0.02."""
    export_dir = export("gemma2", "bfloat16", cache_dir, tmp_path)
    pairs = simulate(30, seed=3)
    expected = Judge.from_pretrained(export_dir, device="cpu").predict_proba(pairs)
    with serving(export_dir) as address:
        judge = Judge.from_pretrained(f"vllm:{address}", template_from=export_dir)
        np.testing.assert_allclose(judge.predict_proba(pairs), expected, rtol=0, atol=0.02)


def test_wrong_servers_are_refused(cache_dir, tmp_path):
    """Weights rounded to 16 bits and a backbone without soft-capping are noticed and named."""
    export_dir = export("gemma2", "float32", cache_dir, tmp_path)
    with serving(export_dir, without=("--dtype", "float32")) as address:
        judge = Judge.from_pretrained(f"vllm:{address}", template_from=export_dir)
        with pytest.raises(ModelError, match="start it with --dtype float32"):
            judge.predict(simulate(3, seed=0))
    options = """--hf-overrides '{"attn_logit_softcapping": null}'"""
    with serving(export_dir, options=options) as address:
        judge = Judge.from_pretrained(f"vllm:{address}", template_from=export_dir)
        with pytest.raises(ModelError, match="soft-capping"):
            judge.predict(simulate(3, seed=0))
