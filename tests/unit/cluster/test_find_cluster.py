"""Requests for a cluster that cannot be met are refused before anything is computed."""

import sys
from dataclasses import replace

import pytest

import tiewise as tw
from tiewise.cluster.prediction import choose_executor
from tiewise.cluster.scoring import find_cluster
from tiewise.config import load_preset
from tiewise.errors import ConfigError, DeviceError
from tiewise.judges.blending import Mixture
from tiewise.runs.folder import start_run


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


@pytest.mark.parametrize(("device", "n_gpus"), [("cuda", 1), ("cpu", 0)])
def test_blend_gets_gpus_of_members(tmp_path, device, n_gpus):
    """A worker gets a GPU by default if a member of the blend was fitted on one."""
    pytest.importorskip("ray")
    tiny = load_preset("tiny")
    start_run(tmp_path, load_preset("baseline"), name="features")
    start_run(tmp_path, replace(tiny, train=replace(tiny.train, device=device)), name="model")
    blend = replace(tiny, model=replace(tiny.model, backbone="blend"))
    run = start_run(tmp_path, replace(blend, train=replace(tiny.train, device="cpu")), name="both")
    Mixture(("features", "model"), (0.5, 0.5)).save(run.mixture_path)
    execute = choose_executor(run, "local", None, None, device=None)
    assert execute.args[0].worker_gpus == n_gpus
    assert choose_executor(run, "local", None, 0.0, device=None).args[0].worker_gpus == 0


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
