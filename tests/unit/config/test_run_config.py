"""What a run is: presets, checks, one rule of precedence."""

import contextlib
import dataclasses
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiewise.config.checks import check_config
from tiewise.config.loading import PRESETS, config_from_dict, load_preset
from tiewise.config.run_config import RunConfig
from tiewise.errors import ConfigError


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_valid_and_survives_json(name):
    """A preset passes its own checks, and reading what it writes gives it back."""
    config = load_preset(name)
    check_config(config)
    assert config_from_dict(config.to_dict()) == config


def test_field_names_are_unique_over_sections():
    """Flags have no prefix, so no two sections share a name."""
    names = [
        field.name
        for section in dataclasses.fields(RunConfig)
        for field in dataclasses.fields(section.default_factory)
    ]
    assert len(names) == len(set(names))


def test_the_notebook_preset_says_what_the_notebook_says():
    """The seed's settings, one by one."""
    config = load_preset("notebook")
    model, train = config.model, config.train
    assert (model.backbone, model.quantization) == ("google/gemma-2-9b-it", "nf4")
    assert (model.lora_r, model.lora_alpha, model.lora_dropout) == (16, 32.0, 0.05)
    assert model.lora_targets == ("q_proj", "k_proj", "v_proj")
    assert model.n_frozen_layers == 16
    assert (train.optimizer, train.learning_rate, train.n_warmup_steps) == ("adamw_8bit", 2e-4, 20)
    assert (train.n_epochs, train.batch_size, train.schedule) == (1, 8, "linear")
    assert (config.template.max_length, config.template.truncation) == (1024, "right")
    assert (config.data.fold_rule, config.data.n_splits) == ("position", 5)
    assert not config.predict.swap


def test_cpu_twins_differ_from_gemma_only_in_backbone_sizes_and_pace():
    """The tiny preset walks the path of the large one: same sections, same kinds of choices."""
    tiny, large = load_preset("tiny"), load_preset("gemma2-9b")
    assert tiny.model.tuning == large.model.tuning == "lora"
    assert tiny.model.lora_targets == large.model.lora_targets
    assert tiny.template.template == large.template.template
    assert tiny.data == large.data


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"train": {"batch_sise": 4}}, "train.batch_sise"),
        ({"trein": {}}, "trein"),
        ({"train": {"batch_size": "many"}}, "train.batch_size"),
        ({"train": {"batch_size": 0}}, "--batch-size"),
        ({"model": {"quantization": "int3"}}, "model.quantization"),
        ({"model": {"tuning": "full", "quantization": "nf4"}}, "--tuning full"),
        ({"template": {"template": "notebook"}}, "--truncation right"),
        ({"data": {"n_splits": 1}}, "--n-splits"),
        ({"data": {"data_seed": -1}}, "--data-seed"),
        ({"template": {"max_length": 0}}, "--max-length"),
        ({"model": {"n_layers": 0}}, "--n-layers"),
        ({"model": {"lora_alpha": float("nan")}}, "--lora-alpha"),
        ({"train": {"n_micro_batches": 0}}, "--n-micro-batches"),
        ({"train": {"learning_rate": float("inf")}}, "--learning-rate"),
        ({"train": {"learning_rate": float("nan")}}, "--learning-rate"),
        ({"train": {"head_learning_rate": -1e-3}}, "--head-learning-rate"),
        ({"train": {"max_grad_norm": -1.0}}, "--max-grad-norm"),
        ({"train": {"weight_decay": float("inf")}}, "--weight-decay"),
        ({"train": {"n_warmup_steps": -2}}, "--n-warmup-steps"),
        ({"train": {"seed": -1}}, "--seed"),
        ({"train": {"seed": 2**32}}, "--seed"),
        ({"data": {"data_seed": 2**32}}, "--data-seed"),
        ({"model": {"tuning": "full", "dtype": "bfloat16"}}, "--dtype float32"),
        ({"predict": {"score_batch_tokens": 0}}, "--score-batch-tokens"),
    ],
)
def test_a_wrong_field_is_named(values, message):
    """The message names the field or the flag that is wrong."""
    with pytest.raises(ConfigError, match=message):
        config_from_dict(values)


def test_a_misspelt_preset_gets_a_suggestion():
    """The nearest name is offered."""
    with pytest.raises(ConfigError, match="Did you mean quickstart"):
        load_preset("quikstart")


def test_a_preset_can_be_a_file(tmp_path):
    """A TOML file of one's own is a preset."""
    path = tmp_path / "mine.toml"
    path.write_text("[train]\nbatch_size = 3\n")
    assert load_preset(str(path)).train.batch_size == 3
    path.write_text("[train")
    with pytest.raises(ConfigError, match="not TOML"):
        load_preset(str(path))
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="not UTF-8"):
        load_preset(str(path))


@given(st.data())
def test_what_the_checks_let_through_can_be_written_down(data):
    """A configuration that passes its checks holds no NaN and no infinity."""
    config = load_preset("tiny")
    section = data.draw(st.sampled_from(dataclasses.fields(config))).name
    part = getattr(config, section)
    numbers = [f.name for f in dataclasses.fields(part) if isinstance(getattr(part, f.name), float)]
    if not numbers:
        return
    name, value = data.draw(st.sampled_from(numbers)), data.draw(st.floats())
    changed = replace(config, **{section: replace(part, **{name: value})})
    with contextlib.suppress(ConfigError):
        check_config(changed)
        changed.digest()


def test_equal_configurations_have_equal_digests():
    """The digest tells configurations apart and nothing else."""
    config = load_preset("tiny")
    other = dataclasses.replace(config, train=dataclasses.replace(config.train, seed=1))
    assert config.digest() == load_preset("tiny").digest() != other.digest()
