"""Requests for a cluster that cannot be met are refused before anything is computed."""

import sys

import pytest

import tiewise as tw
from tiewise.cluster.scoring import find_cluster
from tiewise.errors import ConfigError, DeviceError


@pytest.mark.parametrize("options", [(2, None), (None, 0.5)])
def test_workers_need_a_cluster(options):
    """A number of workers or GPUs without a cluster is refused; nothing is this process."""
    assert find_cluster(None, None, None, device="cuda") is None
    with pytest.raises(ConfigError, match="need --ray auto, local or HOST:PORT"):
        find_cluster(None, *options, device="cpu")


def test_impossible_shares_are_refused():
    """Ray takes whole GPUs, or a share of one that it can count."""
    pytest.importorskip("ray")
    for gpus in (-1.0, 1.5, 0.00001, float("nan"), float("inf")):
        with pytest.raises(ConfigError, match="a whole number, or a share of one GPU"):
            find_cluster("local", None, gpus, device="cpu")
    for gpus in (0.0, 0.0001, 0.5, 1.0, 2.0):
        assert find_cluster("local", None, gpus, device="cpu").worker_gpus == gpus


def test_missing_ray_is_named(monkeypatch):
    """Without Ray the message names the extra that installs it."""
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(sys.modules, "tiewise.cluster.ray_pool", raising=False)
    with pytest.raises(DeviceError, match=r"--ray needs ray, .* pip install 'tiewise\[ray\]'"):
        find_cluster("auto", None, None, device="cpu")


@pytest.mark.parametrize("options", [{"ray": "auto"}, {"workers": 2}, {"worker_gpus": 1.0}])
def test_table_is_predicted_here(options):
    """A cluster writes files, so `tw.predict` needs `out` for it."""
    with pytest.raises(ConfigError, match="need out, the file or folder to write"):
        tw.predict("pairs.parquet", **options)
