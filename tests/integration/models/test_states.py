"""Responses are read by a frozen backbone: which tokens, which layers, and once each."""

import json
import pickle
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModel

from tiewise.config import ModelConfig
from tiewise.data.pairs import build_pairs, swap_pairs
from tiewise.data.simulation.simulate import simulate
from tiewise.errors import ModelError, NumericsError
from tiewise.models import states as states_module
from tiewise.models.backbones import resolve_backbone
from tiewise.models.loading import quiet_transformers
from tiewise.models.states import MAX_LENGTH, StateReader, find_response
from tiewise.tokens.rows import token_rows
from tiewise.tokens.template import build_template
from tiewise.tokens.tokenizer import load_tokenizer
from tiny_families import find_tiny
from tiny_models import write_family

PAIRS = simulate(12, seed=2)


def make_reader(name, cache_dir, states_dir, **fields):
    """Return a reader of a tiny backbone that caches in a folder of its own."""
    config = ModelConfig(backbone="baseline", states=find_tiny(name, cache_dir), **fields)
    reader = StateReader(config, cache_dir=cache_dir)
    reader.states_dir = states_dir
    return reader


def as_pairs(prompt, response_a, response_b):
    texts = {"prompt": [prompt], "response_a": [response_a], "response_b": [response_b]}
    return build_pairs({"id": [0], **texts, "group": ["one"]})


@pytest.mark.parametrize("name", ["tiny:0", "tiny-llama:0", "tiny-bert:0"])
def test_states_are_means_over_the_response(name, cache_dir, tmp_path):
    """They are those of transformers' whole model after 1, 2 and 3 of its 4 layers."""
    reader = make_reader(name, cache_dir, tmp_path)
    found = reader.read(PAIRS)
    network = AutoModel.from_pretrained(reader.path, attn_implementation="eager").eval()
    n_layers = network.config.num_hidden_layers
    depths = [max(1, round(share * n_layers)) for share in (0.25, 0.5, 0.75)]
    tokenizer = load_tokenizer(reader.path)
    template = build_template(tokenizer, max_length=MAX_LENGTH)
    assert found.shape == (12, 2, 3, network.config.hidden_size)
    for row, pair in PAIRS.head(3).iterrows():
        alone = as_pairs(pair["prompt"], pair["response_b"], [""])
        rows = token_rows(alone, tokenizer, template, cache_dir=None)
        inputs = {"input_ids": torch.tensor(rows.values[None].astype(np.int64))}
        if rows.type_ids is not None:
            inputs["token_type_ids"] = torch.tensor(rows.type_ids[None].astype(np.int64))
        with torch.no_grad():
            hidden = network(**inputs, output_hidden_states=True).hidden_states
        span = find_response(rows.values, template)
        expected = [hidden[depth][0, span].mean(0).numpy() for depth in depths]
        np.testing.assert_allclose(found[row, 1], expected, atol=1e-4)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    prompt=st.lists(st.text(max_size=30), min_size=1, max_size=2),
    response=st.lists(st.none() | st.text(max_size=30), min_size=1, max_size=2),
)
@pytest.mark.parametrize("name", ["tiny:0", "tiny-bert:0"])
def test_span_is_the_response(name, cache_dir, prompt, response):
    """The span has the last token of the label, and the response's own tokens."""
    tokenizer = load_tokenizer(resolve_backbone(find_tiny(name, cache_dir), cache_dir=cache_dir))
    template = build_template(tokenizer, max_length=MAX_LENGTH)
    pair = pd.DataFrame({"prompt": [prompt], "response_a": [response], "response_b": [[""]]})
    ids = token_rows(pair, tokenizer, template, cache_dir=None).values
    special = template.special_tokens
    turns = [list(special.missing) if turn is None else tokenizer.encode(turn) for turn in response]
    own = turns[0] + [token for turn in turns[1:] for token in (*special.turn, *turn)]
    assert ids[find_response(ids, template)].tolist() == [special.response_a[-1], *own]


def test_states_do_not_depend_on_other_rows(cache_dir, tmp_path):
    """Swapped, shuffled and repeated rows have the same states, bit for bit."""
    reader = make_reader("tiny:0", cache_dir, tmp_path)
    found = reader.read(PAIRS)
    fresh = make_reader("tiny:0", cache_dir, tmp_path / "other")
    order = [5, 1, 1, 9]
    swapped = swap_pairs(PAIRS).iloc[order].reset_index(drop=True)
    np.testing.assert_array_equal(fresh.read(swapped), found[order, ::-1])


def test_cached_states_need_no_backbone(cache_dir, tmp_path, monkeypatch):
    """A later process reads the states from the cache; another dtype has states of its own."""
    found = make_reader("tiny:0", cache_dir, tmp_path).read(PAIRS)
    monkeypatch.setattr(states_module, "load_body", lambda *_, **__: pytest.fail("was loaded"))
    np.testing.assert_array_equal(make_reader("tiny:0", cache_dir, tmp_path).read(PAIRS), found)
    other = make_reader("tiny:0", cache_dir, tmp_path, dtype="bfloat16")
    assert other.digest != make_reader("tiny:0", cache_dir, tmp_path).digest
    with pytest.raises(pytest.fail.Exception, match="was loaded"):
        other.read(PAIRS)


@pytest.mark.parametrize("response", [[""], [None], [], ["x" * 20_000]])
def test_odd_responses_have_states(response, cache_dir, tmp_path):
    """Empty, missing and very long responses have finite states of their own."""
    found = make_reader("tiny:0", cache_dir, tmp_path).read(as_pairs(["p"], response, ["q"]))
    assert np.isfinite(found).all()
    assert (found[0, 0] != found[0, 1]).any()


def test_cached_states_keep_no_file_open(cache_dir, tmp_path):
    """A response from the cache is copied: thousands of open files would stop a fit."""
    reader = make_reader("tiny:0", cache_dir, tmp_path)
    found = reader.read(PAIRS)
    before = len(list(Path("/proc/self/fd").iterdir()))
    again = reader.read(PAIRS)
    assert len(list(Path("/proc/self/fd").iterdir())) <= before
    np.testing.assert_array_equal(found, again)


def test_threads_read_the_same_states(cache_dir):
    """One reader that several threads use gives each its own states."""
    config = ModelConfig(backbone="baseline", states="tiny:0")
    reader = StateReader(config, cache_dir=cache_dir, keeps_states=False)
    expected = reader.read(PAIRS)
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(lambda _: reader.read(PAIRS), range(8)):
            np.testing.assert_array_equal(found, expected)


def test_copy_of_a_reader_reads_the_same(cache_dir):
    """A pickled reader has no weights, and reads the same states."""
    config = ModelConfig(backbone="baseline", states="tiny:0")
    reader = StateReader(config, cache_dir=cache_dir, keeps_states=False)
    expected = reader.read(PAIRS)
    stored = pickle.dumps(reader)
    assert len(stored) < 400_000
    np.testing.assert_array_equal(pickle.loads(stored).read(PAIRS), expected)


def rename_tensors(folder):
    """Give every tensor of a backbone another name."""
    path = folder / "model.safetensors"
    save_file({f"x.{name}": part for name, part in load_file(path).items()}, path)


def widen(folder):
    """Let the configuration have another width than the tensors."""
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"intermediate_size": 96}))


@pytest.mark.parametrize("damage", [rename_tensors, widen])
def test_incomplete_weights_are_refused(damage, cache_dir, tmp_path):
    """Tensors that the files lack would be random numbers, others at each start."""
    folder = tmp_path / "backbone"
    shutil.copytree(resolve_backbone("tiny:0", cache_dir=cache_dir), folder)
    damage(folder)
    with pytest.raises(ModelError, match=r"tensors, such as .*, are missing"):
        make_reader(str(folder), cache_dir, tmp_path / "states").read(PAIRS)


def write_network(folder, cache_dir, tokenizer, family, **fields):
    """Write a backbone with random weights and the tokenizer of a tiny one."""
    shutil.copytree(resolve_backbone(find_tiny(tokenizer, cache_dir), cache_dir=cache_dir), folder)
    (folder / "config.json").unlink()
    with torch.random.fork_rng(), quiet_transformers():
        torch.manual_seed(0)
        AutoModel.from_config(AutoConfig.for_model(family, **fields)).save_pretrained(folder)
    return str(folder)


def test_decoders_get_no_token_types(cache_dir, tmp_path):
    """GPT-2 with the tokenizer of an encoder would add the embedding of token 0 or 1 to each."""
    sizes = {"vocab_size": 1024, "n_embd": 32, "n_layer": 4, "n_head": 4}
    name = write_network(tmp_path / "backbone", cache_dir, "tiny-bert:0", "gpt2", **sizes)
    reader = make_reader(name, cache_dir, tmp_path / "states")
    found = reader.read(PAIRS.head(1))[0, 0]
    body = AutoModel.from_pretrained(name).eval()
    template = build_template(load_tokenizer(reader.path), max_length=MAX_LENGTH)
    pair = as_pairs(PAIRS["prompt"][0], PAIRS["response_a"][0], [""])
    rows = token_rows(pair, load_tokenizer(reader.path), template, cache_dir=None)
    with torch.no_grad():
        ids = torch.tensor(rows.values[None].astype(np.int64))
        hidden = body(ids, output_hidden_states=True).hidden_states
    span = find_response(rows.values, template)
    np.testing.assert_allclose(found[0], hidden[1][0, span].mean(0), atol=1e-4)


@pytest.mark.parametrize(
    ("family", "fields"),
    [
        ("xlm", {"emb_dim": 32, "n_layers": 4, "n_heads": 4}),
        ("gpt_neo", {"hidden_size": 32, "num_layers": 4, "num_heads": 4,
                     "attention_types": [[["global", "local"], 2]]}),
        ("longformer", {"hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 4,
                        "intermediate_size": 64, "attention_window": [8] * 4}),
        ("openai-gpt", {"n_embd": 32, "n_layer": 4, "n_head": 4}),
        ("xlnet", {"d_model": 32, "n_layer": 4, "n_head": 4, "d_inner": 64}),
    ],
)  # fmt: skip
def test_unusual_layers_are_refused(family, fields, cache_dir, tmp_path):
    """Layers that cannot be cut, or that return no states of the tokens, give no wrong numbers."""
    fields = {"vocab_size": 1024, **fields}
    name = write_network(tmp_path / "backbone", cache_dir, "tiny:0", family, **fields)
    reader = make_reader(name, cache_dir, tmp_path / "states")
    with pytest.raises(ModelError, match=r"transformers cannot load|expected one list|its layers"):
        reader.read(PAIRS.head(1))


def test_version_of_transformers_is_no_setting(cache_dir, tmp_path):
    """A package's backbone is converted on each machine, by its own version of transformers."""
    folder = tmp_path / "backbone"
    shutil.copytree(resolve_backbone("tiny:0", cache_dir=cache_dir), folder)
    before = make_reader(str(folder), cache_dir, tmp_path / "states").digest
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"transformers_version": "5.99"}))
    assert make_reader(str(folder), cache_dir, tmp_path / "states").digest == before
    (folder / "config.json").write_text(json.dumps(config | {"rms_norm_eps": 1e-2}))
    assert make_reader(str(folder), cache_dir, tmp_path / "states").digest != before


def test_encoder_decoders_are_refused(cache_dir, tmp_path):
    """T5 has no single stack of layers."""
    folder = tmp_path / "backbone"
    shutil.copytree(resolve_backbone("tiny:0", cache_dir=cache_dir), folder)
    (folder / "config.json").write_text(json.dumps({"model_type": "t5"}))
    with pytest.raises(ModelError, match="t5, which has no single stack of layers"):
        make_reader(str(folder), cache_dir, tmp_path / "states").read(PAIRS)


def test_short_tables_of_positions_are_kept(cache_dir, tmp_path):
    """A backbone with few positions reads as many tokens as it has."""
    folder = tmp_path / "backbone"
    write_family("gpt2", folder, cache_dir)
    reader = make_reader(str(folder), cache_dir, tmp_path / "states")
    long = as_pairs(["p"], ["word " * 3000], ["q"])
    assert np.isfinite(reader.read(long)).all()


def test_states_that_are_not_finite_are_refused(cache_dir, tmp_path, monkeypatch):
    """The message names the response and the dtype."""
    load = states_module.load_body

    def spoil(*arguments, **options):
        body, n_layers = load(*arguments, **options)
        with torch.no_grad():
            next(iter(body.parameters())).fill_(float("nan"))
        return body, n_layers

    monkeypatch.setattr(states_module, "load_body", spoil)
    with pytest.raises(NumericsError, match="not finite in float32 for the response"):
        make_reader("tiny:0", cache_dir, tmp_path).read(PAIRS)
