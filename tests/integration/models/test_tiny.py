"""Small backbones are generated bit for bit from a seed."""

import json

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from tokenizers import Tokenizer
from transformers import AutoModel, AutoTokenizer

from tiewise.files import digest_file
from tiewise.models.loading import quiet_transformers
from tiny_families import write_tiny

DIGESTS = {
    "tiny": "6bb8990ef6bde3f0fc21010595bed8704fb09259740dc414c4d249c335677ad8",
    "tiny-llama": "7e8a8dda9be1adad38e6b3819f208674a75febab7d7c488bf5391d65408734b5",
    "tiny-bert": "df2c85807c96f571b4661d721e2784b2716346145321a3589cb8026961926390",
}


@pytest.fixture
def write(tmp_path):
    """Return a function that writes a backbone into a new folder."""

    def write_one(kind, seed):
        folder = tmp_path / f"{kind}-{seed}-{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        write_tiny(kind, seed, folder)
        return folder

    return write_one


def digests(folder):
    """Return the digest of each file in a folder."""
    return {path.name: digest_file(path) for path in folder.iterdir()}


@pytest.mark.parametrize("kind", DIGESTS)
def test_seeds_give_fixed_bytes(kind, write):
    """Equal seeds give equal files with a fixed digest; another seed changes only the weights."""
    first = digests(write(kind, 0))
    assert first == digests(write(kind, 0))
    assert first["model.safetensors"] == DIGESTS[kind]
    other = digests(write(kind, 1))
    assert {name for name in first if first[name] != other[name]} == {"model.safetensors"}


@pytest.mark.parametrize("kind", DIGESTS)
def test_transformers_needs_every_weight(kind, write):
    """No tensor is missing or unexpected, and none is constant."""
    folder = write(kind, 0)
    with quiet_transformers():
        network, report = AutoModel.from_pretrained(folder, output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    for name, tensor in load_file(folder / "model.safetensors").items():
        assert tensor.dtype == np.float32
        assert tensor.std() > 0, name
    with torch.no_grad():
        states = network(input_ids=torch.arange(20, 60)[None]).last_hidden_state
    assert states.isfinite().all()
    assert states.std() > 0.1


@pytest.mark.parametrize("kind", DIGESTS)
def test_tokenizer_reads_alike_everywhere(kind, write):
    """Transformers and tokenizers give the same ids, and text survives the round trip."""
    folder = write(kind, 0)
    text = "Which answer is better?\n  The first — 日本語 😀, because 12 > 9."
    own = Tokenizer.from_file(str(folder / "tokenizer.json"))
    theirs = AutoTokenizer.from_pretrained(folder)
    ids = own.encode(text, add_special_tokens=False).ids
    assert ids == theirs(text, add_special_tokens=False).input_ids
    assert own.decode(ids) == text
    assert len(ids) < len(text.encode())
    assert max(ids) < json.loads((folder / "config.json").read_text())["vocab_size"]
    assert theirs.pad_token_id == 0


def test_special_tokens_match_gemma(write):
    """<pad>, <eos>, <bos>, <unk> are 0 to 3; the unused tokens are added but not special."""
    tokenizer = Tokenizer.from_file(str(write("tiny", 0) / "tokenizer.json"))
    names = ("<pad>", "<eos>", "<bos>", "<unk>")
    assert [tokenizer.token_to_id(name) for name in names] == [0, 1, 2, 3]
    added = tokenizer.get_added_tokens_decoder()
    special = {token.content: token.special for token in added.values()}
    assert special["<bos>"]
    assert special["<start_of_turn>"] is False
    assert special["<unused0>"] is False


def test_window_and_cap_change_states(write):
    """Without the sliding window or the soft cap the hidden states of 128 tokens differ."""
    folder = write("tiny", 0)
    path = folder / "config.json"
    config = json.loads(path.read_text())
    states = []
    for change in ({}, {"sliding_window": 4096}, {"attn_logit_softcapping": None}):
        path.write_text(json.dumps(config | change))
        with quiet_transformers(), torch.no_grad():
            network = AutoModel.from_pretrained(folder, attn_implementation="eager")
            states.append(network(input_ids=torch.arange(20, 148)[None]).last_hidden_state)
    for other in states[1:]:
        assert (states[0] - other).abs().max() > 1e-2
