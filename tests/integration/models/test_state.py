"""Nested states survive a file bit for bit; weights are copied only where they fit."""

import errno

import pytest
import torch
from safetensors import SafetensorError

from tiewise.errors import ModelError, RunError
from tiewise.models import state

TREE = {
    "optimizer": {"state": {0: {"step": torch.tensor(3.0), "exp_avg": torch.randn(2, 3)}}},
    "betas": (0.9, 0.999),
    "losses": [0.1 + 0.2, float("inf")],
    "flags": [True, None, "text", 2**60],
    "half": torch.randn(4).bfloat16(),
}


def test_trees_read_back_exactly(tmp_path):
    """Tensors, integer keys, tuples and floats keep their type and every bit."""
    state.save_tree(tmp_path / "state", TREE)
    found = state.load_tree(tmp_path / "state")
    assert {path.suffix for path in tmp_path.iterdir()} == {".json", ".safetensors"}
    moments, expected = found["optimizer"]["state"][0], TREE["optimizer"]["state"][0]
    assert torch.equal(moments["step"], expected["step"])
    assert torch.equal(moments["exp_avg"], expected["exp_avg"])
    assert torch.equal(found["half"], TREE["half"])
    assert found["half"].dtype == torch.bfloat16
    for name in ("betas", "losses", "flags"):
        assert found[name] == TREE[name]
        assert type(found[name]) is type(TREE[name])


def test_other_objects_are_refused(tmp_path):
    """A value that only pickle could store is refused."""
    with pytest.raises(TypeError, match="cannot save a set without pickle"):
        state.save_tree(tmp_path / "state", {"a": {1}})


@pytest.mark.parametrize("suffix", [".json", ".safetensors"])
def test_damaged_trees_are_refused(suffix, tmp_path):
    """A truncated or missing file raises RunError with the path."""
    state.save_tree(tmp_path / "state", TREE)
    path = (tmp_path / "state").with_suffix(suffix)
    path.write_bytes(path.read_bytes()[:10])
    with pytest.raises(RunError, match="state cannot be read"):
        state.load_tree(tmp_path / "state")
    path.unlink()
    with pytest.raises(RunError, match="state cannot be read"):
        state.load_tree(tmp_path / "state")


def test_full_disk_keeps_its_number(tmp_path, monkeypatch):
    """Safetensors reports a full disk as text; the error number is restored from it."""

    def full(*_, **__):
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(state.safetensors.torch, "save_file", full)
    with pytest.raises(OSError, match="No space left") as caught:
        state.write_tensors(tmp_path / "a.safetensors", {"a": torch.zeros(1)})
    assert caught.value.errno == errno.ENOSPC


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda weights: weights.pop("bias"), r"bias is missing; expected \(3,\)"),
        (lambda weights: weights.update(more=torch.zeros(1)), r"more is \(1,\); expected no such"),
        (lambda weights: weights.update(bias=torch.zeros(2)), r"bias is \(2,\); expected \(3,\)"),
    ],
)
def test_unfitting_weights_are_refused(change, message):
    """A missing, additional or misshaped tensor is named, and nothing is copied."""
    model = torch.nn.Linear(2, 3)
    before = {name: part.clone() for name, part in state.trainable_weights(model).items()}
    weights = {name: torch.zeros_like(part) for name, part in before.items()}
    change(weights)
    with pytest.raises(ModelError, match=message):
        state.load_trainable_weights(model, weights)
    assert all(torch.equal(part, before[name]) for name, part in model.named_parameters())


def test_frozen_tensors_are_no_weights():
    """Only tensors that require a gradient are listed and loaded."""
    model = torch.nn.Linear(2, 3)
    model.bias.requires_grad_(requires_grad=False)
    assert set(state.trainable_weights(model)) == {"weight"}
    state.load_trainable_weights(model, {"weight": torch.ones(3, 2)})
    assert torch.equal(model.weight, torch.ones(3, 2))
    assert not state.is_sharded(model)
