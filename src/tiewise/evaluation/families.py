"""What rows are cut by: for each family of slices, which slice a row falls into.

A family is a Series of slice names in the order to show them, missing where a row belongs to none.
A family whose column a table lacks is left out and named.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

MAX_MODEL_PAIRS = 20
"""Of the pairs of models, only the most frequent are told apart."""

_READ = 2000  # characters are plenty to guess a language from
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
_CODE = re.compile(
    r"```|^\s*(?:def |class |import |from \w+ import |#include|SELECT )", re.MULTILINE
)
_LETTER = re.compile(r"[^\W\d_]")


def cut_families(table: pd.DataFrame) -> tuple[dict[str, pd.Series], dict[str, str]]:
    """Cut a pairs table, joined with whatever is known of its rows, in every way it allows.

    Parameters
    ----------
    table
        Any of the columns of a pairs table and of ``oof.parquet``.

    Returns
    -------
    families
        By name, a categorical Series per row: turns, length gap, prompt length, null or empty,
        truncated, code, language, model pair, outcome, source.
    omitted
        For each family that could not be cut, which columns are missing.

    Examples
    --------
    >>> table = pd.DataFrame({"prompt": [["Hi"], ["Hi", "And?"]], "n_truncated": [0, 7]})
    >>> families, omitted = cut_families(table)
    >>> families["turns"].tolist(), families["truncated"].tolist()
    (['1', '2'], ['whole', 'truncated'])
    >>> omitted["code"]
    'no column response_a, response_b'
    """
    families, omitted = {}, {}
    for name, (columns, cut) in _CUTS.items():
        missing = [column for column in columns if column not in table]
        if missing:
            omitted[name] = f"no column {', '.join(missing)}"
            continue
        family = cut(*(table[column] for column in columns))
        if family.notna().any():
            families[name] = family
        else:
            omitted[name] = f"nothing is known in {', '.join(columns)}"
    return families, omitted


def guess_language(turns: Sequence[str | None]) -> str:
    """Guess the language of a conversation from its script, or from its commonest small words.

    Examples
    --------
    >>> [guess_language([text]) for text in ("Wie ist das Wetter?", "天气怎么样?", "42")]
    ['German', 'Chinese', 'no letters']
    """
    text = join_turns(turns)[:_READ]
    n_letters = len(_LETTER.findall(text))
    if not n_letters:
        return "no letters"
    for script, pattern in _SCRIPTS.items():
        if len(pattern.findall(text)) > 0.2 * n_letters:
            return script
    words = [word.lower() for word in _WORD.findall(text)]
    hits = {language: sum(w in known for w in words) for language, known in _WORDS_OF.items()}
    best = max(hits, key=lambda language: hits[language])
    return best if hits[best] else "other Latin script"


def join_turns(turns: Sequence[str | None]) -> str:
    """Join turns by line breaks, missing ones as nothing.

    Examples
    --------
    >>> join_turns(["a", None, "b"]).splitlines()
    ['a', '', 'b']
    """
    return "\n".join(turn or "" for turn in turns)


def count_characters(turns: Sequence[str | None]) -> int:
    """Count the characters of all turns.

    Examples
    --------
    >>> count_characters(["ab", None, "c"])
    3
    """
    return sum(len(turn or "") for turn in turns)


def is_blank(turns: Sequence[str | None]) -> bool:
    """Whether there is no turn, or one of them is missing or nothing but space.

    Examples
    --------
    >>> is_blank(["a", " "]), is_blank([]), is_blank(["a"])
    (True, True, False)
    """
    return not turns or any(turn is None or not turn.strip() for turn in turns)


def _categories(values: Iterable[Any], order: Sequence[str], index: pd.Index) -> pd.Series:
    return pd.Series(pd.Categorical(list(values), categories=list(order)), index=index)


def _cut_numbers(
    numbers: npt.ArrayLike, edges: Sequence[float], names: Sequence[str], index: pd.Index
) -> pd.Series:
    """Name the bin of each number; `edges` are the lower ends of all bins but the first."""
    places = np.searchsorted(edges, np.asarray(numbers, dtype=np.float64), side="right")
    return _categories((names[place] for place in places), names, index)


def _turns(prompts: pd.Series) -> pd.Series:
    return _cut_numbers(prompts.map(len), [2, 3, 4], ["1", "2", "3", "4 or more"], prompts.index)


def _length_gap(response_a: pd.Series, response_b: pd.Series) -> pd.Series:
    a, b = (responses.map(count_characters) for responses in (response_a, response_b))
    factor = np.exp(np.abs(np.log1p(a) - np.log1p(b)))
    names = ["less than 1.1 times", "1.1 to 1.5 times", "1.5 to 3 times", "3 times or more"]
    return _cut_numbers(factor, [1.1, 1.5, 3], names, response_a.index)


def _prompt_length(prompts: pd.Series) -> pd.Series:
    names = ["under 100 characters", "100 to 499", "500 to 1,999", "2,000 or more"]
    lengths = prompts.map(count_characters)
    return _cut_numbers(lengths, [100, 500, 2000], names, prompts.index)


def _blank(response_a: pd.Series, response_b: pd.Series) -> pd.Series:
    either = response_a.map(is_blank) | response_b.map(is_blank)
    return _either(either, "a response null or empty", "both complete")


def _truncated(n_truncated: pd.Series) -> pd.Series:
    return _either(n_truncated > 0, "truncated", "whole")


def _code(prompts: pd.Series, response_a: pd.Series, response_b: pd.Series) -> pd.Series:
    fields = (prompts, response_a, response_b)
    has_code = [any(_CODE.search(join_turns(t)) for t in row) for row in zip(*fields, strict=True)]
    return _either(pd.Series(has_code, index=prompts.index), "code", "no code")


def _either(flags: pd.Series, yes: str, no: str) -> pd.Series:
    return _categories(np.where(flags.to_numpy(bool), yes, no), [yes, no], flags.index)


def _language(prompts: pd.Series) -> pd.Series:
    return _by_frequency(prompts.map(guess_language))


def _model_pair(model_a: pd.Series, model_b: pd.Series) -> pd.Series:
    both = model_a.notna() & model_b.notna()
    names = [" / ".join(sorted(pair)) for pair in zip(model_a[both], model_b[both], strict=True)]
    pairs = pd.Series(names, index=model_a.index[both], dtype=object).reindex(model_a.index)
    named = _by_frequency(pairs).cat
    return pd.Series(named.set_categories(named.categories[:MAX_MODEL_PAIRS]))


def _outcome(winners: pd.Series) -> pd.Series:
    words = {"model_a": "A or B won", "model_b": "A or B won", "tie": "tie"}
    names = ["A or B won", "tie", "tie, both bad"]
    known = winners.dropna().map(lambda word: words.get(word, "tie, both bad"))
    return _categories(known.reindex(winners.index), names, winners.index)


def _by_frequency(names: pd.Series) -> pd.Series:
    """Order slices from the most frequent to the least, equals by name."""
    counts = names.dropna().astype(str).value_counts()
    order = sorted(counts.index, key=lambda name: (-counts[name], name))
    return _categories(names, order, names.index)


_CUTS: dict[str, tuple[list[str], Callable[..., pd.Series]]] = {
    "turns": (["prompt"], _turns),
    "length gap": (["response_a", "response_b"], _length_gap),
    "prompt length": (["prompt"], _prompt_length),
    "null or empty": (["response_a", "response_b"], _blank),
    "truncated": (["n_truncated"], _truncated),
    "code": (["prompt", "response_a", "response_b"], _code),
    "language": (["prompt"], _language),
    "model pair": (["model_a", "model_b"], _model_pair),
    "outcome": (["winner"], _outcome),
    "source": (["source"], _by_frequency),
}
