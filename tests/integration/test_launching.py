"""The configuration files for several GPUs are what accelerate understands."""

from contextlib import nullcontext

import pytest
from accelerate.utils import FullyShardedDataParallelPlugin

from tiewise.errors import ConfigError
from tiewise.training.trainer import check_fsdp
from tiny_models import build_tiny
from torchrun import CONFIGURATIONS, FSDP, read_environment


@pytest.fixture
def said(request, monkeypatch):
    """Give what a file says to the processes, and say it to this one."""
    variables = read_environment(request.param)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return variables


@pytest.mark.parametrize("said", CONFIGURATIONS, indirect=True, ids=lambda path: path.stem)
def test_a_configuration_is_loaded(said):
    """The dtype is ours to choose, in every one of them."""
    assert said["ACCELERATE_MIXED_PRECISION"] == "no"


@pytest.mark.parametrize("said", [FSDP], indirect=True, ids=["fsdp"])
@pytest.mark.parametrize("backbone", ["tiny:0", "tiny-llama:0", "tiny-bert:0"])
def test_fsdp_finds_the_layers_of_any_backbone(said, backbone, cache_dir):
    """Each layer is sharded by itself, whatever the name of its class."""
    plugin = FullyShardedDataParallelPlugin()
    classifier = build_tiny(backbone, cache_dir)
    plugin.set_auto_wrap_policy(classifier)
    assert (plugin.fsdp_version, plugin.mixed_precision_policy) == (2, None)
    assert plugin.auto_wrap_policy.keywords["transformer_layer_cls"] == {
        type(layer) for layer in classifier.layers
    }


@pytest.mark.parametrize("said", [FSDP], indirect=True, ids=["fsdp"])
@pytest.mark.parametrize(("version", "is_scaled"), [(2, False), (1, False), (2, True)])
def test_fsdp_that_would_change_weights_is_refused(said, version, is_scaled):
    """As shipped it passes; the first version and float16 are met with what to write instead."""
    plugin = FullyShardedDataParallelPlugin()
    plugin.fsdp_version = version
    is_right = (version, is_scaled) == (2, False)
    refused = pytest.raises(ConfigError, match="fsdp_version: 2")
    with nullcontext() if is_right else refused:
        check_fsdp(plugin, is_scaled=is_scaled)
