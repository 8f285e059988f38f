"""Texts by strangers, made fit to be shown: shortened with a count, control characters visible.

Nothing here escapes HTML: the template does that to every value. What is done here is what
escaping cannot do: a text that turns the reading direction, hides characters or is a megabyte long
is harmless markup and still unreadable.
"""

from __future__ import annotations

import re
import unicodedata

# A colon, an at sign and the dot of www. are what makes a link of a bare address.
_MARKDOWN = re.compile(r"([\\`*_\[\]#|~$:@]|(?<=www)\.)", re.IGNORECASE)
_INVISIBLE = {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}
_KEPT = {"\n", "\t", "\u200d"}  # the joiner makes one emoji of several
_MAX_MARKS = 3
_MAX_LINES = 40


def shorten(text: str, limit: int) -> str:
    """Keep the beginning and the end of a text, and say how much between them is left out.

    Parameters
    ----------
    text
        Any text.
    limit
        Characters to keep, at least 1.

    Examples
    --------
    >>> shorten("a short text", 40)
    'a short text'
    >>> shorten("abcdefgh" * 100, 12)
    'abcdefgha [… 788 characters left out …] fgh'
    """
    if len(text) <= limit:
        return text
    n_tail = limit // 4
    head, tail = text[: limit - n_tail], text[len(text) - n_tail :]
    return f"{head} [… {len(text) - limit:,} characters left out …] {tail}"


def bound_lines(text: str, limit: int) -> str:
    r"""Keep the first lines of a text, and say how many are left out.

    Examples
    --------
    >>> bound_lines("a\nb\nc\nd", 2)
    'a\nb\n[… 2 lines left out …]'
    """
    lines = text.split("\n")
    if len(lines) <= limit:
        return text
    return "\n".join([*lines[:limit], f"[… {len(lines) - limit:,} lines left out …]"])


def show_controls(text: str) -> str:
    r"""Make visible what would act on its surroundings or hide: controls, direction marks, zalgo.

    Examples
    --------
    >>> show_controls("a\x00b\u202ec")
    'a␀b⟨U+202E⟩c'
    """
    shown, n_marks = [], 0
    for character in text.replace("\r\n", "\n"):
        is_mark = unicodedata.category(character).startswith("M")
        n_marks = n_marks + 1 if is_mark else 0
        if n_marks <= _MAX_MARKS:
            shown.append(_shown(character))
    return "".join(shown)


def excerpt(text: str, limit: int) -> str:
    """Shorten a text, by characters and by lines, and make what is invisible in it visible."""
    return bound_lines(show_controls(shorten(text, limit)), _MAX_LINES)


def label_text(value: object, limit: int = 60) -> str:
    r"""Return a name from data as one line of at most `limit` characters.

    Examples
    --------
    >>> label_text("a name\nof a model"), label_text("x" * 99, 5), label_text("")
    ('a name of a model', 'xxxx…', '(empty)')
    """
    line = " ".join(show_controls(str(value)[: 8 * limit]).split())
    if len(line) > limit:
        line = f"{line[: limit - 1]}…"
    return line or "(empty)"


def escape_markdown(text: str) -> str:
    r"""Put a backslash before what Markdown would read as markup; line breaks become spaces.

    Angle brackets and ampersands become entities, so HTML stays text as well.

    Examples
    --------
    >>> escape_markdown("[x](javascript:alert(1))")
    '\\[x\\](javascript\\:alert(1))'
    >>> escape_markdown("<b>")
    '&lt;b&gt;'
    """
    line = " ".join(show_controls(text).split())
    line = line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _MARKDOWN.sub(r"\\\1", line)


def _shown(character: str) -> str:
    if character in _KEPT or unicodedata.category(character) not in _INVISIBLE:
        return character
    code = ord(character)
    return chr(0x2400 + code) if code < 0x20 else f"⟨U+{code:04X}⟩"
