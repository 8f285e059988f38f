"""Tokenizer wrapper that never emits special tokens from untrusted text.

A text that spells ``<eos>`` stays text; so do tokens that a vocabulary adds without marking them as
special, such as Gemma's ``<unused0>``. Truncation and padding of the original do not apply.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from tiewise.errors import ModelError
from tiewise.files import digest_json

# Added tokens that delimit, mask or are unused, but are not marked as special. Other added tokens
# without the mark (runs of blanks, HTML tags) are ordinary text that pretraining used.
_SPECIAL = re.compile(
    r"<\|.*\|>|<(unused|reserved|extra_id|special)[-_ ]?\w*>|\[(unused|control)[-_]?\d+\]"
    r"|<mask>|\[MASK\]|<2mass>|\[@BOS@\]"
)


TOKENIZER_FOLDER = "tokenizer"
"""Folder of the tokenizer in an exported folder."""


class TextTokenizer:
    """Encoder of texts that never returns a special token.

    `state` is the text of a ``tokenizer.json``, and `special` has its roles as
    ``tokenizer_config.json`` states them, such as ``{"eos_token": "<eos>"}``.
    """

    def __init__(self, state: str, special: Mapping[str, str] | None = None) -> None:
        content = json.loads(state)
        if not (isinstance(content, dict) and isinstance(content.get("model"), dict)):
            raise ModelError(
                "The tokenizer's state has no model; expected the text of a tokenizer.json."
            )
        content["truncation"] = content["padding"] = None
        self._content: dict[str, Any] = content
        self.special = dict(special or {})
        self.digest = digest_json(content)

    @property
    def state(self) -> str:
        """The text of a ``tokenizer.json`` without truncation and padding."""
        return json.dumps(self._content)

    @functools.cached_property
    def vocabulary(self) -> dict[str, int]:
        """Token -> id of every token, added ones included."""
        return self._plain.get_vocab(with_added_tokens=True)

    @functools.cached_property
    def reserved(self) -> dict[str, int]:
        """Token -> id of the tokens that no text can produce."""
        unknown = self._content["model"].get("unk_token")
        added = [token["content"] for token in self._added if _is_special(token)]
        unused = [token for token in self.vocabulary if re.fullmatch(r"\[unused\d+\]", token)]
        tokens = [token for token in dict.fromkeys([*added, *unused]) if token != unknown]
        return {token: self.vocabulary[token] for token in tokens if not self._can_be_typed(token)}

    def encode(self, text: str) -> list[int]:
        """Return the ids of one text; see `encode_turns`."""
        return self.encode_turns([text])[0]

    def encode_turns(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the ids of each text, without additions; special tokens in it are read as text."""
        encodings = self._plain.encode_batch_fast(list(texts), add_special_tokens=False)
        return [encoding.ids for encoding in encodings]

    def encode_strings(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the ids of each text as in the Kaggle notebook: its special tokens are parsed."""
        encodings = self._parsing.encode_batch_fast(list(texts), add_special_tokens=False)
        return [encoding.ids for encoding in encodings]

    @property
    def _added(self) -> list[dict[str, Any]]:
        added: list[dict[str, Any]] = self._content.get("added_tokens") or []
        return added

    @functools.cached_property
    def _parsing(self) -> Tokenizer:
        return _build(self._content)

    @functools.cached_property
    def _plain(self) -> Tokenizer:
        added = [{**token, "special": _is_special(token)} for token in self._added]
        plain = _build({**self._content, "added_tokens": added})
        plain.encode_special_tokens = True
        return plain

    def _can_be_typed(self, token: str) -> bool:
        spellings = self.encode_turns([token, f" {token} ", f"a{token}b"])
        return any(self.vocabulary[token] in ids for ids in spellings)


def load_tokenizer(backbone_dir: Path | str) -> TextTokenizer:
    """Read the tokenizer of a backbone, once per process while its ``tokenizer.json`` is unchanged.

    ``tokenizer_config.json`` and ``special_tokens_map.json`` are optional.
    """
    path = Path(backbone_dir) / "tokenizer.json"
    if not path.is_file():
        raise ModelError(
            f"{path} is missing; expected the backbone's fast tokenizer. Write it once with "
            "transformers' AutoTokenizer.from_pretrained(...).save_pretrained(folder)."
        )
    stat = path.stat()
    return _load(path, stat.st_mtime_ns, stat.st_size)


@functools.lru_cache(maxsize=4)
def _load(path: Path, modified: int, size: int) -> TextTokenizer:
    del modified, size  # only part of the cache key
    try:
        return TextTokenizer(path.read_text(encoding="utf-8"), _read_special(path.parent))
    except ValueError as error:
        raise ModelError(f"{path} is not a tokenizer: {error}. Download the file again.") from error


def _build(content: Mapping[str, Any]) -> Tokenizer:
    try:
        return Tokenizer.from_str(json.dumps(content))
    except Exception as error:  # tokenizers raises bare Exception
        raise ModelError(
            f"The tokenizer's state is damaged: {error}. Download tokenizer.json again."
        ) from error


def _read_special(folder: Path) -> dict[str, str]:
    special: dict[str, str] = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        path = folder / name
        if path.is_file():
            for role, value in json.loads(path.read_text(encoding="utf-8")).items():
                token = value.get("content") if isinstance(value, dict) else value
                if role.endswith("_token") and isinstance(token, str):
                    special[role] = token
    return special


def _is_special(token: Mapping[str, Any]) -> bool:
    return bool(token["special"]) or _SPECIAL.fullmatch(token["content"]) is not None
