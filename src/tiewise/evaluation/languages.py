"""Guess the language of a prompt from its letters and its most common words."""

from __future__ import annotations

import re
from collections.abc import Sequence

from tiewise.data.parse import join_turns

UNKNOWN_LANGUAGE = "other Latin script"
"""Guess for a prompt in Latin letters without common words of a known language."""

_MAX_READ = 2000  # characters; enough to guess a language
_SCRIPTS = {
    "Japanese": re.compile("[\u3040-\u30ff]"),
    "Korean": re.compile("[\uac00-\ud7af]"),
    "Chinese": re.compile("[\u4e00-\u9fff]"),
    "Cyrillic script": re.compile("[\u0400-\u04ff]"),
    "Arabic script": re.compile("[\u0600-\u06ff]"),
    "Hebrew": re.compile("[\u0590-\u05ff]"),
    "Greek": re.compile("[\u0370-\u03ff]"),
    "Indic scripts": re.compile("[\u0900-\u0dff]"),
    "Thai": re.compile("[\u0e00-\u0e7f]"),
}
_COMMON_WORDS = {
    "English": "the and of to is in what how you that for with write are this an can it",
    "German": "der die das und ist nicht ein eine wie was ich zu mit auf für von den bitte",
    "French": "le la les et est un une des que pour dans en je vous qui sur du comment",
    "Spanish": "el la los las y es un una que para en con por cómo del se qué como",
    "Portuguese": "o os as e é um uma que para em com não do da por como você se",
    "Italian": "il la gli e è un una che per di in con non del come sono scrivi",
}
_WORDS_OF = {language: frozenset(words.split()) for language, words in _COMMON_WORDS.items()}
_WORD = re.compile(r"[^\W\d_]+")
_LETTER = re.compile(r"[^\W\d_]")


def guess_language(turns: Sequence[str | None]) -> str:
    """Guess the language of a text from its script, or from its most common short words.

    >>> [guess_language([text]) for text in ("Wie ist das Wetter?", "天气怎么样?", "42")]
    ['German', 'Chinese', 'no letters']
    """
    text = join_turns(turns)[:_MAX_READ]
    n_letters = len(_LETTER.findall(text))
    if not n_letters:
        return "no letters"
    for script, pattern in _SCRIPTS.items():
        if len(pattern.findall(text)) > 0.2 * n_letters:
            return script
    words = [word.lower() for word in _WORD.findall(text)]
    hits = {language: sum(w in known for w in words) for language, known in _WORDS_OF.items()}
    best = max(hits, key=lambda language: hits[language])
    return best if hits[best] else UNKNOWN_LANGUAGE
