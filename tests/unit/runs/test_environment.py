"""Tests of the environment of a run."""

import json
import platform

import pytest

from tiewise.runs.environment import describe_environment, is_first_process, own_cuda, uses_fsdp


@pytest.mark.parametrize(("rank", "is_first"), [(None, True), ("0", True), ("3", False)])
def test_first_process_writes(monkeypatch, rank, is_first):
    """A process without a launcher is the first; else the rank decides."""
    monkeypatch.delenv("RANK", raising=False)
    if rank is not None:
        monkeypatch.setenv("RANK", rank)
    assert is_first_process() == is_first


def test_gpu_follows_local_rank(monkeypatch):
    """On the second machine of a launch, process 5 of 8 may have GPU 1."""
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    assert own_cuda() == "cuda:0"
    monkeypatch.setenv("RANK", "5")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert own_cuda() == "cuda:1"


def test_fsdp_follows_accelerate(monkeypatch):
    """Accelerate's launcher sets the variable."""
    monkeypatch.delenv("ACCELERATE_USE_FSDP", raising=False)
    assert not uses_fsdp()
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "True")
    assert uses_fsdp()


def test_environment_is_json(monkeypatch):
    """The description survives JSON; a package that is not installed has no version."""
    monkeypatch.setattr("sys.argv", ["/usr/bin/tiewise", "fit", "--fold", "0"])
    monkeypatch.setattr("tiewise.runs.environment.PACKAGES", ("numpy", "no-such-package"))
    described = json.loads(json.dumps(describe_environment()))
    assert described["python"] == platform.python_version()
    assert described["command"] == ["tiewise", "fit", "--fold", "0"]
    assert described["packages"]["numpy"]
    assert described["packages"]["no-such-package"] is None
