"""Configurations from presets, from TOML files, and from what a run folder holds."""

from __future__ import annotations

import dataclasses
import tomllib
from importlib import resources
from pathlib import Path
from typing import Any

from tiewise.config.checks import check_config
from tiewise.config.run_config import RunConfig
from tiewise.errors import ConfigError

PRESETS = ("quickstart", "smollm2-135m", "gemma2-9b", "notebook", "tiny", "baseline")


def load_preset(name: str) -> RunConfig:
    """Return a preset by its name, or the configuration in a TOML file by its path.

    Raises
    ------
    ConfigError
        When there is no such preset or file, or the file names an unknown field or a wrong type.

    Examples
    --------
    >>> load_preset("notebook").model.lora_alpha
    32.0
    """
    if name in PRESETS:
        text = (resources.files("tiewise.config") / "presets" / f"{name}.toml").read_text("utf-8")
    elif name.endswith(".toml") and Path(name).is_file():
        text = _read_text(Path(name))
    else:
        raise ConfigError(_unknown_preset(name))
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{name}: not TOML: {error}.") from error
    return config_from_dict(values, source=f"preset {name}")


def config_from_dict(values: dict[str, Any], *, source: str = "configuration") -> RunConfig:
    """Build a configuration from nested dictionaries; every field is checked, none is ignored.

    Raises
    ------
    ConfigError
        When a section or field is unknown, has the wrong type, or contradicts another.
    """
    import pydantic

    try:
        config = pydantic.TypeAdapter(RunConfig).validate_python(values)
        _refuse_unknown(values)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"{source}: {place}: {first['msg']}, not {first['input']!r}.") from error
    except KeyError as error:
        raise ConfigError(f"{source}: there is no field {error.args[0]}.") from error
    check_config(config)
    return config


def override(config: RunConfig, **fields: Any) -> RunConfig:
    """Return a configuration with some fields replaced, each in whatever section holds it.

    Raises
    ------
    ConfigError
        If no section has a field of that name, or its value is invalid.

    Examples
    --------
    >>> override(load_preset("tiny"), n_epochs=3).train.n_epochs
    3
    """
    values = config.to_dict()
    for name, value in fields.items():
        sections = [section for section in values.values() if name in section]
        if not sections:
            raise ConfigError(f"the configuration has no field {name}.")
        sections[0][name] = value
    return config_from_dict(values)


def _read_text(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8: {error}. TOML files are UTF-8.") from error


def _refuse_unknown(values: dict[str, Any]) -> None:
    sections = {part.name: part.default_factory for part in dataclasses.fields(RunConfig)}
    for section, content in values.items():
        known = {part.name for part in dataclasses.fields(sections[section])}  # type: ignore[arg-type]
        for name in content:
            if name not in known:
                raise KeyError(f"{section}.{name}")


def _unknown_preset(name: str) -> str:
    import difflib

    close = difflib.get_close_matches(name, PRESETS, n=1)
    hint = f" Did you mean {close[0]}?" if close else ""
    return f"There is no preset {name!r}; presets are {', '.join(PRESETS)}.{hint}"
