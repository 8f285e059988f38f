"""These tests need a GPU; without one they fail at once and say so."""

import pytest
import torch


@pytest.fixture(autouse=True, scope="session")
def _cuda():
    assert torch.cuda.is_available(), "tests/gpu needs CUDA, and torch finds no CUDA device."


@pytest.fixture(scope="session")
def cache_dir(tmp_path_factory):
    """One cache for all: the backbones in it are built once."""
    return tmp_path_factory.mktemp("cache")
