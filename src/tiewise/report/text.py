"""Texts and numbers as the report and the model card show them.

Texts from data files are untrusted. The templates escape HTML; this module shortens long texts and
makes control characters visible, because hidden characters and direction marks mislead a reader.
"""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Mapping
from typing import Any

from tiewise.evaluation.intervals import Interval

SHARES = {"accuracy", "decisive_accuracy", "share"}
"""Numbers that are shown in percent."""

SCORE_NAMES = {
    "log_loss": "log loss",
    "accuracy": "accuracy",
    "brier": "Brier score",
    "ece": "ECE (L1)",
    "rms_calibration_error": "ECE (RMS, debiased)",
    "decisive_accuracy": "decisive accuracy",
    "macro_f1": "macro F1",
    "auc": "area under the curve",
}
_MAX_LINES = 40
_MAX_MARKS = 3  # combining marks on one letter
_INVISIBLE = {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}
_KEPT = {"\n", "\t", "\u200d"}  # the zero-width joiner combines several emoji into one
# A colon, an at sign and the dot of www. turn a bare address into a link.
_MARKDOWN = re.compile(r"([\\`*_\[\]#|~$:@]|(?<=www)\.)", re.IGNORECASE)


def excerpt(text: str, limit: int) -> str:
    """Keep the beginning and the end of a text, `limit` characters and 40 lines at most.

    >>> excerpt("abcdefgh" * 100, 12)
    'abcdefgha [… 788 characters left out …] fgh'
    """
    if len(text) > limit:
        n_tail = limit // 4
        head, tail = text[: limit - n_tail], text[len(text) - n_tail :]
        text = f"{head} [… {len(text) - limit:,} characters left out …] {tail}"
    lines = show_controls(text).split("\n")
    if len(lines) > _MAX_LINES:
        lines[_MAX_LINES:] = [f"[… {len(lines) - _MAX_LINES:,} lines left out …]"]
    return "\n".join(lines)


def show_controls(text: str) -> str:
    r"""Make control characters and direction marks visible, and limit stacked accents.

    >>> show_controls("a\x00b\u202ec")
    'a␀b⟨U+202E⟩c'
    """
    shown, n_marks = [], 0
    for character in text.replace("\r\n", "\n"):
        category = unicodedata.category(character)
        n_marks = n_marks + 1 if category.startswith("M") else 0
        if category in _INVISIBLE and character not in _KEPT:
            code = ord(character)
            character = chr(0x2400 + code) if code < 0x20 else f"⟨U+{code:04X}⟩"  # noqa: PLW2901
        if n_marks <= _MAX_MARKS:
            shown.append(character)
    return "".join(shown)


def label_text(value: object, limit: int = 60) -> str:
    r"""Return a name from data as one line of at most `limit` characters.

    >>> label_text("a name\nof a model"), label_text("x" * 99, 5), label_text("")
    ('a name of a model', 'xxxx…', '(empty)')
    """
    line = " ".join(show_controls(str(value)[: 8 * limit]).split())
    if len(line) > limit:
        line = f"{line[: limit - 1]}…"
    return line or "(empty)"


def escape_markdown(text: str) -> str:
    r"""Escape everything that Markdown or HTML would read as markup; the result is one line.

    >>> escape_markdown("[x](javascript:alert(1))")
    '\\[x\\](javascript\\:alert(1))'
    """
    line = html.escape(" ".join(show_controls(text).split()), quote=False)
    return _MARKDOWN.sub(r"\\\1", line)


def show(interval: Interval, metric: str = "") -> str:
    """Return a number with its interval: shares in percent, others with three decimals.

    >>> show(Interval(0.5, 0.4, 0.6), "accuracy")
    '50.0% [40.0%, 60.0%]'
    """
    return format(interval, ".1%" if metric in SHARES else ".3f").replace("-", "−")


def show_difference(interval: Interval, metric: str = "") -> str:
    """Return a difference with its interval, all three with their signs.

    >>> show_difference(Interval(-0.25, -0.5, 0.0))
    '−0.250 [−0.500, +0.000]'
    """
    return format(interval, "+.1%" if metric in SHARES else "+.3f").replace("-", "−")


def words_of(name: str) -> str:
    """Return the words for an identifier, such as "ECE (L1)" for "ece"."""
    return {**SCORE_NAMES, "bayes": "Bayes"}.get(name, label_text(name.replace("_", " ")))


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Return nested values as one mapping from dotted names to short texts.

    >>> flatten({"a": {"b": 1}, "c": None, "d": ["x", "y"]})
    {'a.b': '1', 'c': 'none', 'd': 'x, y'}
    """
    flat: dict[str, str] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            text = ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else value
            is_empty = text is None or text == ""
            flat[label_text(f"{prefix}{name}")] = "none" if is_empty else label_text(text, 300)
    return flat
