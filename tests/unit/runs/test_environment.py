"""Tests of the environment of a run."""

import json
import os
import platform

import pytest

from tiewise.errors import ConfigError
from tiewise.runs.environment import (
    Launch,
    describe_environment,
    is_first_process,
    own_cuda,
    read_launch,
    uses_fsdp,
)

LAUNCH = ("RANK", "WORLD_SIZE", "LOCAL_RANK")


@pytest.fixture(autouse=True)
def without_launcher(monkeypatch):
    for name in LAUNCH:
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("empty", [set(LAUNCH), {"WORLD_SIZE"}, {"RANK", "LOCAL_RANK"}])
@pytest.mark.parametrize("value", ["", " "])
def test_empty_variables_are_not_set(monkeypatch, empty, value):
    """Empty variables mean no launcher, and torch does not see them."""
    for name in empty:
        monkeypatch.setenv(name, value)
    assert read_launch() == Launch(0, 1, 0)
    assert not set(LAUNCH) & set(os.environ)


def test_empty_local_rank_is_zero(monkeypatch):
    """A launcher may leave out the local rank."""
    for name, value in zip(LAUNCH, ("1", "2", ""), strict=True):
        monkeypatch.setenv(name, value)
    assert read_launch() == Launch(1, 2, 0)


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"RANK": "0"}, "RANK is set and WORLD_SIZE is not"),
        ({"RANK": "1", "WORLD_SIZE": ""}, "RANK is set and WORLD_SIZE is not"),
        ({"WORLD_SIZE": "2"}, "WORLD_SIZE is set and RANK is not"),
        ({"LOCAL_RANK": "1"}, "LOCAL_RANK is set and RANK, WORLD_SIZE is not"),
        ({"RANK": "one", "WORLD_SIZE": "2"}, "RANK is 'one'; expected a whole number"),
        ({"RANK": "0", "WORLD_SIZE": "-1"}, "WORLD_SIZE is '-1'"),
        ({"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0.5"}, "LOCAL_RANK is '0.5'"),
        ({"RANK": "2", "WORLD_SIZE": "2"}, "RANK is 2 and WORLD_SIZE is 2"),
        ({"RANK": "0", "WORLD_SIZE": "0"}, "RANK is 0 and WORLD_SIZE is 0"),
    ],
)
def test_half_a_launcher_is_refused(monkeypatch, variables, message):
    """A process without its number or their total would leave out rows or wait for ever."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=message):
        read_launch()


@pytest.mark.parametrize(("rank", "is_first"), [(None, True), ("0", True), ("3", False)])
def test_first_process_writes(monkeypatch, rank, is_first):
    """A process without a launcher is the first; else the rank decides."""
    if rank is not None:
        monkeypatch.setenv("RANK", rank)
        monkeypatch.setenv("WORLD_SIZE", "4")
    assert is_first_process() == is_first


def test_gpu_follows_local_rank(monkeypatch):
    """On the second machine of a launch, process 5 of 8 may have GPU 1."""
    assert own_cuda() == "cuda:0"
    monkeypatch.setenv("RANK", "5")
    monkeypatch.setenv("WORLD_SIZE", "8")
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
