"""Features of many responses, made of what was counted in each (`text_counts`).

Counts become logarithms and shares, so that long and short texts can be compared; every value is
finite, also for an empty text.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tiewise.features.text_counts import COUNT_NAMES

FloatArray = npt.NDArray[np.float64]

_BYTES = {
    "lines": b"\n",
    "ticks": b"`",
    "pipes": b"|",
    "code_marks": b"{}[]();=<>_\\",
    "digits": b"0123456789",
    "asks": b"?",
    "exclaims": b"!",
    "commas": b",",
    "colons": b":",
    "brackets": b"(",
    "quotes": b'"',
    "capitals": b"ABCDEFGHIJKLMNOPQRSTUVWXYZ",
    "foreign": bytes(range(128, 256)),
}


def describe_texts(
    counts: FloatArray, byte_counts: FloatArray, n_prompt: FloatArray, n_prompt_content: FloatArray
) -> dict[str, FloatArray]:
    """Turn counts into features.

    Parameters
    ----------
    counts
        Shape (n, len(COUNT_NAMES)).
    byte_counts
        Shape (n, 256).
    n_prompt, n_prompt_content
        Shape (n,): distinct words of the prompt, and those with content.

    Returns
    -------
    dict of float64 arrays of shape (n,), finite
    """
    c = dict(zip(COUNT_NAMES, counts.T, strict=True))
    c |= {name: byte_counts[:, list(marks)].sum(axis=1) for name, marks in _BYTES.items()}
    return (
        _size_features(c)
        | _layout_features(c)
        | _style_features(c)
        | _repetition_features(c)
        | _overlap_features(c, n_prompt, n_prompt_content)
    )


def _size_features(c: dict[str, FloatArray]) -> dict[str, FloatArray]:
    return {
        "log_chars": np.log1p(c["chars"]),
        "root_chars": np.sqrt(np.minimum(c["chars"], 8000)) / 10,
        "kilo_chars": np.minimum(c["chars"], 8000) / 1000,
        "is_empty": (c["words"] == 0).astype(np.float64),
        "log_words": np.log1p(c["words"]),
        "log_sentences": np.log1p(c["sentences"]),
        "words_per_sentence": np.minimum(c["words"] / (c["sentences"] + 1), 60) / 10,
        "chars_per_word": np.minimum((c["word_chars"] + 22) / (c["words"] + 5), 12),
    }


def _layout_features(c: dict[str, FloatArray]) -> dict[str, FloatArray]:
    lists = c["bullets"] + c["numbers"]
    return {
        "log_lines": np.log1p(c["lines"]),
        "log_paragraphs": np.log1p(c["paragraphs"]),
        "log_bullets": np.log1p(c["bullets"]),
        "log_numbers": np.log1p(c["numbers"]),
        "log_headings": np.log1p(c["headings"]),
        "has_list": (lists > 0).astype(np.float64),
        "list_share": lists / (c["lines"] + 1),
        "fences": np.minimum(c["fences"], 6) / 2,
        "open_fence": c["fences"] % 2,
        "log_ticks": np.log1p(np.maximum(c["ticks"] - 3 * c["fences"], 0)),
        "log_bolds": np.log1p(c["bolds"]),
        "log_pipes": np.log1p(c["pipes"]),
        "log_links": np.log1p(c["links"]),
        "log_tags": np.log1p(c["tags"]),
        "code_share": np.log1p(100 * c["code_marks"] / (c["read"] + 50)),
    }


def _style_features(c: dict[str, FloatArray]) -> dict[str, FloatArray]:
    rates = {name: c[name] / (c["words"] + 10) for name in ("stops", "commas", "hedges", "first")}
    logs = ("asks", "exclaims", "colons", "brackets", "quotes", "digits", "hedges", "first")
    flags = ("early_refusal", "opener", "ends_clean", "ends_asking", "starts_upper", "starts_space")
    return (
        {f"{name}_rate": rate for name, rate in rates.items()}
        | {f"log_{name}": np.log1p(c[name]) for name in (*logs, "second", "connectives")}
        | {name: c[name] for name in flags}
        | {
            "refusals": np.minimum(c["refusals"], 4),
            "dialogue": np.log1p(c["dialogue"]),
            "digit_share": c["digits"] / (c["read"] + 20),
            "capital_share": c["capitals"] / (c["read"] + 20),
            "foreign_share": c["foreign"] / (c["read"] + 20),
        }
    )


def _repetition_features(c: dict[str, FloatArray]) -> dict[str, FloatArray]:
    n_pairs, n_fours = np.maximum(c["words"] - 1, 0), np.maximum(c["words"] - 3, 0)
    return {
        "distinct_share": c["distinct_words"] / (c["words"] + 1),
        "distinct_root": c["distinct_words"] / np.sqrt(c["words"] + 1),
        "repeated_pairs": (n_pairs - c["bigrams"]) / (n_pairs + 5),
        "repeated_fours": (n_fours - c["fourgrams"]) / (n_fours + 5),
        "repeated_sentences": (c["sentences"] - c["distinct_sentences"]) / (c["sentences"] + 1),
        "packed_share": c["packed"] / (c["read"] + 20),
    }


def _overlap_features(
    c: dict[str, FloatArray], n_prompt: FloatArray, n_prompt_content: FloatArray
) -> dict[str, FloatArray]:
    new_words = c["content"] - c["shared_content"]
    return {
        "prompt_covered": c["shared"] / (n_prompt + 1),
        "prompt_content_covered": c["shared_content"] / (n_prompt_content + 1),
        "from_prompt": c["shared"] / (c["distinct_words"] + 1),
        "content_from_prompt": c["shared_content"] / (c["content"] + 1),
        "echo": c["echoed"] / (c["bigrams"] + 3),
        "log_new_words": np.log1p(new_words),
    }
