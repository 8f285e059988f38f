"""Configurations: presets, checks of fields, and the fields that define a result."""

import dataclasses

import pytest

from tiewise.config import (
    OPERATIONAL,
    PRESETS,
    RunConfig,
    check_config,
    config_from_dict,
    defining_fields,
    first_difference,
    load_preset,
    override,
)
from tiewise.errors import ConfigError

SECTIONS = {part.name: part.default_factory for part in dataclasses.fields(RunConfig)}
FIELDS = [
    (section, part.name, getattr(factory(), part.name))
    for section, factory in SECTIONS.items()
    for part in dataclasses.fields(factory)
]
FLOATS = [(section, name) for section, name, default in FIELDS if isinstance(default, float)]
FLOATS += [("train", "head_learning_rate")]


class TestPresets:
    """The presets of the package, and TOML files."""

    @pytest.mark.parametrize("name", PRESETS)
    def test_presets_survive_json(self, name):
        """A preset passes the checks, and its dictionary gives it back."""
        config = load_preset(name)
        check_config(config)
        assert config_from_dict(config.to_dict()) == config

    def test_notebook_settings(self):
        """The notebook preset has the settings of the notebook."""
        config = load_preset("notebook")
        model, train = config.model, config.train
        assert (model.backbone, model.quantization) == ("google/gemma-2-9b-it", "nf4")
        assert (model.lora_r, model.lora_alpha, model.lora_dropout) == (16, 32.0, 0.05)
        assert model.lora_targets == ("q_proj", "k_proj", "v_proj")
        assert model.n_frozen_layers == 16
        assert (train.optimizer, train.learning_rate) == ("adamw_8bit", 2e-4)
        assert (train.n_epochs, train.batch_size, train.n_warmup_steps) == (1, 8, 20)
        assert train.schedule == "linear"
        assert (config.template.max_length, config.template.truncation) == (1024, "right")
        assert (config.data.fold_rule, config.data.n_splits) == ("position", 5)
        assert not config.predict.swap

    def test_tiny_takes_the_same_path(self):
        """The tiny preset differs from the large one in sizes, not in kinds of choices."""
        tiny, large = load_preset("tiny"), load_preset("gemma2-9b")
        assert tiny.model.tuning == large.model.tuning == "lora"
        assert tiny.model.lora_targets == large.model.lora_targets
        assert tiny.template.template == large.template.template
        assert tiny.data == large.data

    def test_misspelt_preset(self):
        """The message suggests the closest name."""
        with pytest.raises(ConfigError, match="Did you mean quickstart"):
            load_preset("quikstart")

    def test_toml_file_as_preset(self, tmp_path):
        """A TOML file is a preset; a file that is not TOML in UTF-8 is refused."""
        path = tmp_path / "mine.toml"
        path.write_text("[train]\nbatch_size = 3\n")
        assert load_preset(str(path)).train.batch_size == 3
        for content in (b"[train", b"\xff\xfe"):
            path.write_bytes(content)
            with pytest.raises(ConfigError, match="not a TOML file"):
                load_preset(str(path))


class TestChecks:
    """Fields that are unknown, out of range or contradictory."""

    @pytest.mark.parametrize(
        ("values", "message"),
        [
            (
                {"train": {"batch_sise": 4}},
                "train.batch_sise is not a field of .* Did you mean train.batch_size",
            ),
            ({"n_epochs": 2}, "Did you mean train.n_epochs"),
            ({"model": {"max_lenght": 4}}, "Did you mean template.max_length"),
            ({"trein": {}}, "trein is not a field of .* Did you mean train"),
            ({"train": 3}, "train is 3; expected a dictionary"),
            ({"train": {"batch_size": "many"}}, "--batch-size is 'many'; expected a valid integer"),
            ({"train": {"batch_size": 0}}, "--batch-size is 0; expected a number greater than or"),
            ({"model": {"quantization": "int3"}}, "--quantization is 'int3'; expected 'none' or"),
            ({"model": {"tuning": "full", "quantization": "nf4"}}, "with --tuning full"),
            ({"model": {"tuning": "full", "dtype": "bfloat16"}}, "expected float32 or float64"),
            ({"template": {"template": "notebook"}}, "expected right with --template notebook"),
            ({"data": {"n_splits": 1}}, "--n-splits is 1"),
            ({"data": {"data_seed": -1}}, "--data-seed is -1"),
            ({"data": {"data_seed": 2**32}}, "--data-seed is 4294967296; expected a number less"),
            ({"data": {"limit": 0}}, "--limit is 0"),
            ({"template": {"max_length": 0}}, "--max-length"),
            ({"model": {"n_layers": 0}}, "--n-layers"),
            ({"model": {"n_frozen_layers": -1}}, "--n-frozen-layers"),
            ({"model": {"lora_dropout": 1.0}}, "--lora-dropout"),
            ({"train": {"n_micro_batches": 0}}, "--n-micro-batches"),
            ({"train": {"head_learning_rate": -1e-3}}, "--head-learning-rate"),
            ({"train": {"soft_weight": 1.5}}, "--soft-weight"),
            ({"train": {"n_warmup_steps": -2}}, "--n-warmup-steps"),
            ({"train": {"seed": 2**32}}, "--seed"),
            ({"predict": {"score_batch_tokens": 0}}, "--score-batch-tokens"),
        ],
    )
    def test_wrong_field_is_named(self, values, message):
        """The message names the field or its flag, the value and what is expected."""
        with pytest.raises(ConfigError, match=message):
            config_from_dict(values)

    @pytest.mark.parametrize(("section", "name"), FLOATS)
    @pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
    def test_numbers_must_be_finite(self, section, name, value):
        """NaN and infinity, which JSON cannot store, are refused in every field."""
        part = dataclasses.replace(SECTIONS[section](), **{name: value})
        with pytest.raises(ConfigError, match=f"--{name.replace('_', '-')} is -?(nan|inf)"):
            check_config(RunConfig(**{section: part}))

    def test_source_is_named(self):
        """The message begins with the origin of the values."""
        with pytest.raises(ConfigError, match=r"^run/config\.json: --seed is -1"):
            config_from_dict({"train": {"seed": -1}}, source="run/config.json")
        with pytest.raises(ConfigError, match=r"^run/config\.json: --truncation is balanced"):
            config_from_dict({"template": {"template": "notebook"}}, source="run/config.json")

    def test_override_with_one_name(self):
        """A single string counts as a list of one where the field is a list."""
        changed = override(load_preset("tiny"), extra_data="f.csv", report_to=["wandb"])
        assert changed.data.extra_data == ("f.csv",)
        assert changed.train.report_to == ("wandb",)

    def test_override_of_unknown_field(self):
        """Overriding names a field that no section has."""
        with pytest.raises(ConfigError, match="Did you mean n_epochs"):
            override(load_preset("tiny"), n_epoch=3)


def test_field_names_are_unique():
    """Flags have no prefix, so no two sections share a field name; there are at most 48."""
    names = [name for _, name, _ in FIELDS]
    assert len(names) == len(set(names)) <= 48


def test_operational_fields_exist():
    """Each operational field is a field of its section, and is not a defining field."""
    tiny = load_preset("tiny")
    for section, names in OPERATIONAL.items():
        assert names <= set(tiny.to_dict()[section])
        assert not names & set(defining_fields(tiny)[section])


def test_added_fields_are_differences():
    """A key that is missing on one side is a difference."""
    assert first_difference({"a": 1}, {"a": 1, "b": 2}) == ("b", None, 2)
    assert first_difference({"a": 1, "b": 2}, {"a": 1}) == ("b", 2, None)


def test_equal_configurations_have_equal_digests():
    """Equal fields give the same digest, and another seed another digest."""
    config = load_preset("tiny")
    other = override(config, seed=1)
    assert config.digest() == load_preset("tiny").digest() != other.digest()
