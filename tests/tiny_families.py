"""Small Llama and BERT with random weights, made from a seed like the package's small Gemma 2."""

from pathlib import Path

from tiewise.models.backbones import make_once
from tiewise.models.tiny import (
    Shapes,
    decoder_config,
    decoder_shapes,
    write_tiny_backbone,
    write_tokenizer,
    write_weights,
)

_BERT_TOKENS = dict.fromkeys(("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"), True)
_CHATML_TOKENS = dict.fromkeys(("<pad>", "<|endoftext|>", "<|im_start|>", "<|im_end|>"), True)


def find_tiny(name, cache_dir):
    """Return the name of a backbone; for `tiny-llama:SEED` and `tiny-bert:SEED` its folder."""
    kind, _, seed = name.partition(":")
    if kind not in ("tiny-llama", "tiny-bert"):
        return name
    target = Path(cache_dir) / "backbones" / f"{kind}-{seed}"
    return str(make_once(target, lambda folder: write_tiny(kind, int(seed), folder)))


def write_tiny(kind, seed, folder):
    """Write a small backbone, `tiny`, `tiny-llama` or `tiny-bert`, into an existing folder."""
    if kind == "tiny":
        write_tiny_backbone(seed, folder)
    elif kind == "tiny-llama":
        names = {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>"}
        n_tokens = write_tokenizer(folder, _CHATML_TOKENS, names)
        write_weights(folder, *_llama(n_tokens), seed=seed)
    else:
        names = {"cls_token": "[CLS]", "sep_token": "[SEP]"}
        n_tokens = write_tokenizer(folder, _BERT_TOKENS, names)
        write_weights(folder, *_bert(n_tokens), seed=seed)


def _llama(vocabulary_size):
    config = decoder_config(vocabulary_size) | {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_act": "silu",
        "mlp_bias": False,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
        "bos_token_id": 2,
        "eos_token_id": 3,
    }
    return config, decoder_shapes(config, ("input_layernorm", "post_attention_layernorm"))


def _bert(vocabulary_size):
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
    layer: Shapes = {
        f"attention.self.{name}": (hidden, hidden) for name in ("query", "key", "value")
    }
    layer |= {"attention.output.dense": (hidden, hidden)}
    layer |= {"intermediate.dense": (inner, hidden), "output.dense": (hidden, inner)}
    layer |= {f"{name}.LayerNorm": (hidden,) for name in ("attention.output", "output")}
    parts = {f"encoder.layer.{k}.{name}": shape for k in range(3) for name, shape in layer.items()}
    parts |= {"embeddings.LayerNorm": (hidden,), "pooler.dense": (hidden, hidden)}
    shapes: Shapes = {f"{name}.weight": shape for name, shape in parts.items()}
    shapes |= {f"{name}.bias": shape[:1] for name, shape in parts.items()}
    tables = {"word": vocabulary_size, "position": 512, "token_type": 2}
    shapes |= {f"embeddings.{name}_embeddings.weight": (n, hidden) for name, n in tables.items()}
    return config, shapes
