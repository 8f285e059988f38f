"""accelerate loads the configuration files for several GPUs in docs/accelerate."""

from contextlib import nullcontext

import pytest
from accelerate.utils import FullyShardedDataParallelPlugin

from tiewise.errors import ConfigError
from tiewise.training.trainer import check_fsdp
from tiny_models import build_tiny
from torchrun import CONFIGURATIONS, FSDP, read_environment


@pytest.fixture
def environment(request, monkeypatch):
    """Set the environment variables of a configuration file, and return them."""
    variables = read_environment(request.param)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return variables


@pytest.mark.parametrize("environment", CONFIGURATIONS, indirect=True, ids=lambda path: path.stem)
def test_configuration_leaves_dtype_alone(environment):
    """No file sets mixed precision: tiewise chooses the dtype."""
    assert environment["ACCELERATE_MIXED_PRECISION"] == "no"


@pytest.mark.parametrize("environment", [FSDP], indirect=True, ids=["fsdp"])
@pytest.mark.parametrize("backbone", ["tiny:0", "tiny-llama:0", "tiny-bert:0"])
def test_fsdp_finds_backbone_layers(environment, backbone, cache_dir):
    """Each layer is sharded by itself, for any class of layers."""
    plugin = FullyShardedDataParallelPlugin()
    classifier = build_tiny(backbone, cache_dir)
    plugin.set_auto_wrap_policy(classifier)
    assert (plugin.fsdp_version, plugin.mixed_precision_policy) == (2, None)
    assert plugin.auto_wrap_policy.keywords["transformer_layer_cls"] == {
        type(layer) for layer in classifier.layers
    }


@pytest.mark.parametrize("environment", [FSDP], indirect=True, ids=["fsdp"])
@pytest.mark.parametrize(("version", "is_scaled"), [(2, False), (1, False), (2, True)])
def test_unsupported_fsdp_is_refused(environment, version, is_scaled):
    """The shipped file passes; FSDP 1 and float16 scaling are refused with the right setting."""
    plugin = FullyShardedDataParallelPlugin()
    plugin.fsdp_version = version
    is_supported = (version, is_scaled) == (2, False)
    refused = pytest.raises(ConfigError, match="fsdp_version: 2")
    with nullcontext() if is_supported else refused:
        check_fsdp(plugin, is_scaled=is_scaled)
