"""Small tokenizers of three families, trained when a test needs them."""

from __future__ import annotations

import functools

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers
from tokenizers.trainers import BpeTrainer, WordPieceTrainer

from tiewise.tokens.tokenizer import TextTokenizer

CORPUS = [
    "Which of two answers does a person prefer, and how sure is that?",
    "The first answer is right. The second answer is longer, but wrong.",
    "def prefer(a, b):\n    return a if len(a) < len(b) else b\n",
    "Prompt Response A Response B turn end start of null eos pad user model",
] * 4


def byte_level() -> TextTokenizer:
    """ChatML, padding and end in one token, as SmolLM2's files declare it."""
    special = {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "pad_token": "<|im_end|>"}
    return TextTokenizer(_byte_level(), special)


def word_piece() -> TextTokenizer:
    """BERT, with truncation and padding in the file, as in that of all-MiniLM-L6-v2."""
    special = {"cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]"}
    return TextTokenizer(_word_piece(), special)


def gemma_like() -> TextTokenizer:
    """Sentence pieces with byte fallback; added tokens of which some are not flagged special."""
    special = {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>"}
    return TextTokenizer(_gemma_like(), special)


FAMILIES = (byte_level, word_piece, gemma_like)


@functools.cache
def _byte_level() -> str:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    names = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<repo_name>", "<empty_output>"]
    trainer = BpeTrainer(
        vocab_size=400,
        special_tokens=names,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return str(tokenizer.to_str())


@functools.cache
def _word_piece() -> str:
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    names = ["[PAD]", *(f"[unused{i}]" for i in range(4)), "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    trainer = WordPieceTrainer(vocab_size=300, special_tokens=names, show_progress=False)
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.enable_truncation(8)
    tokenizer.enable_padding(length=8)
    return str(tokenizer.to_str())


@functools.cache
def _gemma_like() -> str:
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    names = ["<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>"]
    bytes_ = [f"<0x{value:02X}>" for value in range(256)]
    trainer = BpeTrainer(
        vocab_size=500, special_tokens=names + bytes_, max_token_length=6, show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    content = tokenizer.to_str()
    # Byte tokens are not added tokens: a text that spells one must not become it.
    rebuilt = Tokenizer.from_str(_without_added(content, set(bytes_)))
    rebuilt.add_tokens([AddedToken(f"<unused{i}>", normalized=False) for i in range(3)])
    return str(rebuilt.to_str())


def _without_added(state: str, names: set[str]) -> str:
    import json

    content = json.loads(state)
    content["added_tokens"] = [
        token for token in content["added_tokens"] if token["content"] not in names
    ]
    return json.dumps(content)
