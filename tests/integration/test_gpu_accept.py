"""All that is measured on a GPU runs on a CPU at small sizes, and a failed part is named."""

from __future__ import annotations

import importlib
import json
import os
from pathlib import Path

import pytest
import torch

from benchmarks import gpu, gpu_attention, gpu_speed
from benchmarks.midsize import add_noise
from tiewise.models.attention import collate
from tiewise.models.build import build_classifier
from tiewise.models.kernels import attend
from tiny_models import make_rows

# transformers 5 renamed gradient checkpointing; the notebook and peft use the old name.
pytestmark = pytest.mark.filterwarnings("ignore:.*gradient_checkpointing:FutureWarning")


@pytest.mark.parametrize("name", gpu.PARTS)
def test_part_passes_on_cpu(name):
    """Each part ends at small sizes, and every row of it is right."""
    module, function = gpu.PARTS[name].function.split(":")
    rows = list(getattr(importlib.import_module(module), function)("cpu", "small"))
    assert [row["case"] for row in rows if not row["is_ok"]] == []
    assert len(gpu.render(rows).splitlines()) == len(rows) > 0
    json.dumps(rows)


@pytest.mark.parametrize("change", [{"window": None}, {"softcap": None}, {"scale": 0.1}])
def test_wrong_kernel_is_noticed(change):
    """A kernel without the window or the cap, or with another scale, fails even in bfloat16."""

    def wrong(query, key, value, rows, scoring):
        return attend(query, key, value, rows, scoring._replace(**change))

    case = (256, 5.0, "window", False)
    row = gpu_attention.compare("wrong", wrong, case, torch.bfloat16, "cpu", "small")
    assert not row["is_ok"]


def test_failed_case_is_named(monkeypatch):
    """A kernel that raises costs its own rows only, which say why."""

    def broken(*_):
        message = "no such kernel"
        raise RuntimeError(message)

    monkeypatch.setattr(
        gpu_attention, "find_kernels", lambda *_: {"broken": broken, "rows": attend}
    )
    rows = list(gpu_attention.attention("cpu", "small"))
    assert all(row["is_ok"] != row["case"].startswith("broken") for row in rows)
    errors = [row["error"] for row in rows if not row["is_ok"]]
    assert len(errors) == sum(len(dtypes) for *_, dtypes in gpu_attention.CASES)
    assert all("RuntimeError: no such kernel" in error for error in errors)


def test_scaled_gradient_is_noticed():
    """A gradient that is twice as large as the other, or has the other sign, is refused."""
    grads = {"a": torch.randn(30), "b": torch.randn(4, 4)}
    largest = max(gpu_speed.LARGEST_ERROR.values())
    for factor, is_near in ((1.01, True), (2.0, False), (-1.0, False), (0.25, False)):
        other = {f"network.{name}": factor * part for name, part in grads.items()}
        assert (gpu_speed.relative_error(other, grads) <= largest) == is_near


def test_failed_part_is_named(tmp_path, monkeypatch, capsys):
    """The other parts run, rows before the failure are kept, and the status names the parts."""
    tests, given = Path(__file__).parents[1], os.environ.get("PYTHONPATH", "")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tests), *filter(None, [given])]))
    limits = {"raising": 60, "dying": 60, "hanging": 5, "passing": 60}
    parts = {name: gpu.Part(f"gpu_parts:{name}", limit) for name, limit in limits.items()}
    monkeypatch.setattr(gpu, "PARTS", parts)
    monkeypatch.setattr(gpu, "CPU_FACTOR", 1)
    assert gpu.run(tmp_path / "gpu.json", is_quick=True) == 1 + 2 + 4
    assert "failed: raising, dying, hanging; exit status 7" in capsys.readouterr().out
    found = json.loads((tmp_path / "gpu.json").read_bytes())["parts"]
    row = {"case": "cpu small", "is_ok": True}
    assert found["passing"]["rows"] == [row]
    assert [found[name]["rows"][0] for name in ("raising", "hanging")] == [row, row]
    assert "RuntimeError: no kernel" in found["raising"]["rows"][2]["error"]
    assert found["raising"]["failed"] == ["no number", "error"]
    assert "exit status -9" in found["dying"]["rows"][0]["error"]
    assert "killed after 5 s" in found["hanging"]["rows"][1]["error"]


def test_made_weights_equal_loaded_ones(tmp_path, monkeypatch):
    """A model quantized layer by layer as it is made gives the logits of one that is loaded."""
    config = gpu_speed.configure("gemma2-9b", "small").model
    made = add_noise(gpu_speed.make_ours("small", config, "cpu")).eval()
    with monkeypatch.context() as patch:
        patch.setattr(gpu_speed, "quantize", lambda layer, dtype: layer)
        gpu_speed.make_network("small", config, "cpu", "eager").model.save_pretrained(tmp_path)
    loaded = add_noise(build_classifier(config, tmp_path, seed=0)).eval()
    batch = collate(make_rows((5, 40)), [0, 1], layout="packed", pad_id=0)
    with torch.no_grad():
        assert torch.equal(made(batch), loaded(batch))


def test_useful_operations_of_the_9b():
    """The layers of Gemma-2-9b have 198,180,864 weights each, as the documentation says."""
    assert gpu_speed.useful_operations(gpu_speed.SHAPES["9b"], 16) == 2 * 198_180_864 * (84 - 16)
