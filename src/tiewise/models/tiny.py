"""Small backbones with random weights, rebuilt bit for bit from a seed; no torch needed.

A folder made here looks like any downloaded one (``config.json``, ``model.safetensors``,
``tokenizer.json``), so tests walk the very paths that large models take. Weights come from the raw
bits of PCG64, which numpy never changes, and from nothing that a maths library rounds its own way;
merges of the tokenizer come from a list of words, not from training.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

KINDS = ("tiny", "tiny-llama", "tiny-bert")
FORMAT = 1
"""Raise when anything below changes what a seed stands for."""

_GEMMA_TOKENS = (
    ("<pad>", True),
    ("<eos>", True),
    ("<bos>", True),
    ("<unk>", True),
    ("<mask>", False),
    *((f"<unused{index}>", False) for index in range(8)),
    ("<start_of_turn>", False),
    ("<end_of_turn>", False),
)
_BERT_TOKENS = tuple((name, True) for name in ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"))
_CHATML_TOKENS = (
    ("<pad>", True),
    ("<|endoftext|>", True),
    ("<|im_start|>", True),
    ("<|im_end|>", True),
)
_WORDS = """
the and that with this from have which what when your answer question because there about
would could their other right wrong better please explain number write list step first one
two three is are was in on of to for it you not can be as at or an
""".split()  # noqa: SIM905


def write_tiny_backbone(kind: str, seed: int, folder: Path) -> None:
    """Write a small backbone and its tokenizer into an existing folder.

    Parameters
    ----------
    kind
        `tiny` (Gemma 2: soft-capping, sliding window of 32), `tiny-llama` or `tiny-bert`.
    seed
        Seed of the weights, at least 0.
    folder
        Where ``config.json``, ``model.safetensors`` and the tokenizer's files go.
    """
    build = {"tiny": _gemma2, "tiny-llama": _llama, "tiny-bert": _bert}[kind]
    tokens, names = {
        "tiny": (_GEMMA_TOKENS, {"bos_token": "<bos>", "eos_token": "<eos>"}),
        "tiny-llama": (_CHATML_TOKENS, {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>"}),
        "tiny-bert": (_BERT_TOKENS, {"cls_token": "[CLS]", "sep_token": "[SEP]"}),
    }[kind]
    tokenizer = _tokenizer(tokens)
    tokenizer.save(str(folder / "tokenizer.json"))
    names = names | {"pad_token": tokens[0][0], "tokenizer_class": "PreTrainedTokenizerFast"}
    _write_json(folder / "tokenizer_config.json", names)
    config, shapes = build(tokenizer.get_vocab_size())
    _write_json(folder / "config.json", config)
    weights = {name: _draw(name, shape, seed) for name, shape in sorted(shapes.items())}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def _tokenizer(special: tuple[tuple[str, bool], ...]) -> Tokenizer:
    vocabulary = {name: index for index, (name, _) in enumerate(special)}
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
        [AddedToken(name, special=flag, normalized=False) for name, flag in special]
    )
    return tokenizer


def _draw(name: str, shape: tuple[int, ...], seed: int) -> NDArray[np.float32]:
    """Draw one tensor; each has its own stream, so the order of tensors is of no account."""
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


def _decoder_config(vocabulary_size: int) -> dict[str, Any]:
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


def _gemma2(vocabulary_size: int) -> tuple[dict[str, Any], dict[str, tuple[int, ...]]]:
    config = _decoder_config(vocabulary_size) | {
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
    return config, _decoder_shapes(config, ("input_layernorm", *norms))


def _llama(vocabulary_size: int) -> tuple[dict[str, Any], dict[str, tuple[int, ...]]]:
    config = _decoder_config(vocabulary_size) | {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_act": "silu",
        "mlp_bias": False,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
        "bos_token_id": 2,
        "eos_token_id": 3,
    }
    return config, _decoder_shapes(config, ("input_layernorm", "post_attention_layernorm"))


def _decoder_shapes(config: dict[str, Any], norms: tuple[str, ...]) -> dict[str, tuple[int, ...]]:
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    queries = config["num_attention_heads"] * config["head_dim"]
    keys = config["num_key_value_heads"] * config["head_dim"]
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (config["vocab_size"], hidden),
        "model.norm.weight": (hidden,),
    }
    for index in range(config["num_hidden_layers"]):
        layer = f"model.layers.{index}"
        shapes |= {f"{layer}.{norm}.weight": (hidden,) for norm in norms}
        shapes |= {
            f"{layer}.self_attn.q_proj.weight": (queries, hidden),
            f"{layer}.self_attn.k_proj.weight": (keys, hidden),
            f"{layer}.self_attn.v_proj.weight": (keys, hidden),
            f"{layer}.self_attn.o_proj.weight": (hidden, queries),
            f"{layer}.mlp.gate_proj.weight": (inner, hidden),
            f"{layer}.mlp.up_proj.weight": (inner, hidden),
            f"{layer}.mlp.down_proj.weight": (hidden, inner),
        }
    return shapes


def _bert(vocabulary_size: int) -> tuple[dict[str, Any], dict[str, tuple[int, ...]]]:
    hidden, inner = 64, 128
    config = {
        "architectures": ["BertModel"],
        "model_type": "bert",
        "vocab_size": vocabulary_size,
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "max_position_embeddings": 512,
        "type_vocab_size": 2,
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "pad_token_id": 0,
        "dtype": "float32",
    }
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings.weight": (vocabulary_size, hidden),
        "embeddings.position_embeddings.weight": (512, hidden),
        "embeddings.token_type_embeddings.weight": (2, hidden),
        "pooler.dense.weight": (hidden, hidden),
        "pooler.dense.bias": (hidden,),
    }
    norms = ["embeddings.LayerNorm"]
    for index in range(3):
        layer = f"encoder.layer.{index}"
        linear = {f"attention.self.{name}": (hidden, hidden) for name in ("query", "key", "value")}
        linear |= {"attention.output.dense": (hidden, hidden)}
        linear |= {"intermediate.dense": (inner, hidden), "output.dense": (hidden, inner)}
        for name, shape in linear.items():
            shapes |= {f"{layer}.{name}.weight": shape, f"{layer}.{name}.bias": shape[:1]}
        norms += [f"{layer}.attention.output.LayerNorm", f"{layer}.output.LayerNorm"]
    for norm in norms:
        shapes |= {f"{norm}.weight": (hidden,), f"{norm}.bias": (hidden,)}
    return config, shapes


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
