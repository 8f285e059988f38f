"""A backbone's tokenizer, for text that strangers wrote.

`TextTokenizer` works on a private copy of the caller's tokenizer, made from its serialised state
without truncation and padding; using or changing the caller's object changes nothing here. In the
copy every control token is left unparsed, also those that the vocabulary adds without calling them
special (Gemma's ``<unused0>``): a text that spells ``<eos>`` stays text.
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
from tiewise.files import digest_bytes

# Added tokens that delimit, mask or wait for a use, though not flagged special. Others that are
# not flagged (runs of blanks, HTML tags) are ordinary pieces of text that pretraining knew.
_CONTROL = re.compile(
    r"<\|.*\|>|<(unused|reserved|extra_id|special)[-_ ]?\w*>|\[(unused|control)[-_]?\d+\]"
    r"|<mask>|\[MASK\]|<2mass>|\[@BOS@\]"
)


class TextTokenizer:
    """Turns into ids, with no text able to produce a control id.

    Parameters
    ----------
    state
        The text of a ``tokenizer.json``.
    special
        Role -> token, such as ``{"eos_token": "<eos>"}``, as ``tokenizer_config.json`` has them.
    """

    def __init__(self, state: str, special: Mapping[str, str] | None = None) -> None:
        content = json.loads(state)
        if not (isinstance(content, dict) and isinstance(content.get("model"), dict)):
            message = "This is not the state of a tokenizer: it has no model."
            raise ModelError(message)
        content["truncation"] = content["padding"] = None
        self._content: dict[str, Any] = content
        self.special = dict(special or {})
        self.digest = digest_bytes(json.dumps(content, sort_keys=True).encode())

    @classmethod
    def from_tokenizer(
        cls, tokenizer: Tokenizer, special: Mapping[str, str] | None = None
    ) -> TextTokenizer:
        """Copy a `tokenizers.Tokenizer` (of a fast transformers one, its ``backend_tokenizer``)."""
        return cls(tokenizer.to_str(), special)

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
        added = [token["content"] for token in self._added if _is_control(token)]
        unused = [token for token in self.vocabulary if re.fullmatch(r"\[unused\d+\]", token)]
        tokens = [token for token in dict.fromkeys([*added, *unused]) if token != unknown]
        return {token: self.vocabulary[token] for token in tokens if not self._is_spelt(token)}

    def encode(self, text: str) -> list[int]:
        """Return the ids of one text; see `encode_turns`."""
        return self.encode_turns([text])[0]

    def encode_turns(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the ids of each text, nothing added, control tokens in it read as text."""
        encodings = self._plain.encode_batch_fast(list(texts), add_special_tokens=False)
        return [encoding.ids for encoding in encodings]

    def encode_strings(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the ids of each text as the notebook had them: control tokens are parsed."""
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
        added = [{**token, "special": _is_control(token)} for token in self._added]
        plain = _build({**self._content, "added_tokens": added})
        plain.encode_special_tokens = True
        return plain

    def _is_spelt(self, token: str) -> bool:
        spellings = self.encode_turns([token, f" {token} ", f"a{token}b"])
        return any(self.vocabulary[token] in ids for ids in spellings)


def load_tokenizer(backbone_dir: Path | str) -> TextTokenizer:
    """Read the tokenizer of a backbone; unchanged files are read and hashed once per process.

    Parameters
    ----------
    backbone_dir
        A folder with ``tokenizer.json`` and, where there is one, ``tokenizer_config.json``.

    Raises
    ------
    ModelError
        When there is no ``tokenizer.json`` or it cannot be read.
    """
    path = Path(backbone_dir) / "tokenizer.json"
    if not path.is_file():
        message = (
            f"{path} is missing. A backbone needs its fast tokenizer: write it once with "
            "transformers' AutoTokenizer.from_pretrained(...).save_pretrained(folder)."
        )
        raise ModelError(message)
    stat = path.stat()
    return _load(path, stat.st_mtime_ns, stat.st_size)


@functools.lru_cache(maxsize=4)
def _load(path: Path, modified: int, size: int) -> TextTokenizer:
    del modified, size  # part of the key: another file, another tokenizer
    try:
        return TextTokenizer(path.read_text(encoding="utf-8"), _read_special(path.parent))
    except ValueError as error:
        message = f"{path} is not a tokenizer: {error}. Write it anew, or fetch it again."
        raise ModelError(message) from error


def _build(content: Mapping[str, Any]) -> Tokenizer:
    try:
        return Tokenizer.from_str(json.dumps(content))
    except Exception as error:  # the library raises nothing more precise
        message = f"This is not the state of a tokenizer: {error}. Fetch tokenizer.json again."
        raise ModelError(message) from error


def _read_special(folder: Path) -> dict[str, str]:
    special: dict[str, str] = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        path = folder / name
        if path.is_file():
            special |= _token_roles(json.loads(path.read_text(encoding="utf-8")))
    return special


def _token_roles(config: Mapping[str, Any]) -> dict[str, str]:
    roles = {role: value for role, value in config.items() if role.endswith("_token")}
    contents = {
        role: value.get("content") if isinstance(value, dict) else value
        for role, value in roles.items()
    }
    return {role: token for role, token in contents.items() if isinstance(token, str)}


def _is_control(token: Mapping[str, Any]) -> bool:
    return bool(token["special"]) or _CONTROL.fullmatch(token["content"]) is not None
