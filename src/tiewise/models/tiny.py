"""Small Gemma 2 with random weights, generated bit for bit from a seed without torch.

The weights come from the raw bits of PCG64, which numpy keeps stable, not from functions that each
maths library rounds in its own way. The tokenizer's merges come from a list of words.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from tiewise.files import write_json

Shapes = dict[str, tuple[int, ...]]
FORMAT = 1
"""Version of the generated files; increase it when a seed gives other files."""

_TOKENS = {
    **dict.fromkeys(("<pad>", "<eos>", "<bos>", "<unk>"), True),
    **dict.fromkeys(("<mask>", *(f"<unused{index}>" for index in range(8))), False),
    **dict.fromkeys(("<start_of_turn>", "<end_of_turn>"), False),
}
"""Added tokens of the vocabulary, and whether they are special."""
_WORDS = """
the and that with this from have which what when your answer question because there about
would could their other right wrong better please explain number write list step first one
two three is are was in on of to for it you not can be as at or an
""".split()  # noqa: SIM905


def write_tiny_backbone(seed: int, folder: Path) -> None:
    """Write ``config.json``, ``model.safetensors`` and the tokenizer into an existing folder."""
    names = {"bos_token": "<bos>", "eos_token": "<eos>"}
    n_tokens = write_tokenizer(folder, _TOKENS, names)
    write_weights(folder, *_gemma2(n_tokens), seed=seed)


def write_tokenizer(folder: Path, added: dict[str, bool], names: dict[str, str]) -> int:
    """Write a byte-level BPE tokenizer that merges the letters of common words; return its size.

    The first added token is the padding token.
    """
    vocabulary = {name: index for index, name in enumerate(added)}
    for symbol in sorted(pre_tokenizers.ByteLevel.alphabet()):
        vocabulary[symbol] = len(vocabulary)
    merges = []
    for word in [*_WORDS, *(f"Ġ{word}" for word in _WORDS)]:
        for end in range(1, len(word)):
            pair = (word[:end], word[end])
            if "".join(pair) not in vocabulary:
                merges.append(pair)
                vocabulary["".join(pair)] = len(vocabulary)
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_tokens(
        [AddedToken(name, special=flag, normalized=False) for name, flag in added.items()]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"pad_token": next(iter(added)), "tokenizer_class": "PreTrainedTokenizerFast"}
    write_json(folder / "tokenizer_config.json", names | settings)
    return tokenizer.get_vocab_size()


def write_weights(folder: Path, config: dict[str, Any], shapes: Shapes, *, seed: int) -> None:
    """Write a configuration and random float32 tensors of the given shapes."""
    write_json(folder / "config.json", config)
    weights = {name: _draw(name, shape, seed) for name, shape in sorted(shapes.items())}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def _draw(name: str, shape: tuple[int, ...], seed: int) -> NDArray[np.float32]:
    """Draw one tensor. Seeds are per tensor, so the order of creation does not matter."""
    stream = np.random.SeedSequence([seed, *name.encode()])
    bits = np.random.PCG64(stream).random_raw(math.prod(shape))
    uniform = (bits >> np.uint64(11)).astype(np.float64) * 2.0**-52 - 1.0
    if name.endswith("bias"):
        return (uniform * 0.05).astype(np.float32).reshape(shape)
    if len(shape) == 1:
        centre = 0.0 if "gemma" in name else 1.0
        return (centre + uniform * 0.2).astype(np.float32).reshape(shape)
    scale = 0.2 if "embed" in name else math.sqrt(3.0 / shape[-1])
    return (uniform * scale).astype(np.float32).reshape(shape)


def decoder_config(vocabulary_size: int) -> dict[str, Any]:
    """Return the sizes of a small decoder, as transformers names them."""
    return {
        "vocab_size": vocabulary_size,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "max_position_embeddings": 8192,
        "attention_bias": False,
        "attention_dropout": 0.0,
        "rms_norm_eps": 1e-6,
        "pad_token_id": 0,
        "dtype": "float32",
        "tie_word_embeddings": True,
    }


def _gemma2(vocabulary_size: int) -> tuple[dict[str, Any], Shapes]:
    config = decoder_config(vocabulary_size) | {
        "architectures": ["Gemma2ForCausalLM"],
        "model_type": "gemma2",
        "hidden_activation": "gelu_pytorch_tanh",
        "query_pre_attn_scalar": 16,
        "attn_logit_softcapping": 5.0,
        "final_logit_softcapping": 30.0,
        "sliding_window": 32,
        "layer_types": ["sliding_attention", "full_attention"] * 2,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
        "bos_token_id": 2,
        "eos_token_id": 1,
    }
    norms = ("post_attention_layernorm", "pre_feedforward_layernorm", "post_feedforward_layernorm")
    return config, decoder_shapes(config, ("input_layernorm", *norms))


def decoder_shapes(config: dict[str, Any], norms: tuple[str, ...]) -> Shapes:
    """Return name and shape of each tensor of a decoder with the given norms in each layer."""
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    queries = config["num_attention_heads"] * config["head_dim"]
    keys = config["num_key_value_heads"] * config["head_dim"]
    layer: Shapes = dict.fromkeys(norms, (hidden,))
    layer |= {f"self_attn.{name}_proj": (keys, hidden) for name in ("k", "v")}
    layer |= {"self_attn.q_proj": (queries, hidden), "self_attn.o_proj": (hidden, queries)}
    layer |= {f"mlp.{name}_proj": (inner, hidden) for name in ("gate", "up")}
    layer |= {"mlp.down_proj": (hidden, inner)}
    shapes: Shapes = {
        f"model.layers.{index}.{name}.weight": shape
        for index in range(config["num_hidden_layers"])
        for name, shape in layer.items()
    }
    embedding = {"model.embed_tokens.weight": (config["vocab_size"], hidden)}
    return shapes | embedding | {"model.norm.weight": (hidden,)}
