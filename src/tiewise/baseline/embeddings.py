"""Features from sentence embeddings, for whoever has an embedder at hand.

The embedder is a function from texts to vectors; this module knows no more about it, so the
package's CPU-class model can use a neural network without this module importing one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from tiewise.baseline.features import PairFeatures, Turns
from tiewise.baseline.text_counts import join_turns, shorten

FloatArray = npt.NDArray[np.float64]
Embedder = Callable[[list[str]], npt.NDArray[np.floating]]
DIRECTION = "direction_"


def add_embeddings(
    features: PairFeatures,
    prompts: Sequence[Turns],
    responses_a: Sequence[Turns],
    responses_b: Sequence[Turns],
    embed: Embedder,
) -> PairFeatures:
    """Add how near the responses are to the prompt and to each other, and how they differ.

    Parameters
    ----------
    features
        Of n pairs.
    prompts, responses_a, responses_b
        Length n, lists of turns.
    embed
        Gives a vector for each text: shape (n_texts, n_dimensions). Each distinct text is embedded
        once, both ends of a very long one.

    Returns
    -------
    PairFeatures
        With one signed column for nearness to the prompt, one for each dimension of A minus B
        (named `DIRECTION` and a number), and one shared column for nearness to each other.

    Examples
    --------
    >>> from tiewise.baseline.features import extract_features
    >>> texts = [["2+2?"]], [["4"]], [["four"]]
    >>> with_lengths = lambda texts: np.array([[len(text), 1.0] for text in texts])
    >>> add_embeddings(extract_features(*texts), *texts, with_lengths).signed_names[-3:]
    ('nearer_prompt', 'direction_0', 'direction_1')
    """
    fields = [
        [shorten(join_turns(turns)) for turns in field]
        for field in (prompts, responses_a, responses_b)
    ]
    prompt, a, b = _embed_fields(fields, embed)
    difference = a - b
    signed = np.column_stack([_dot(prompt, a) - _dot(prompt, b), difference])
    names = [f"{DIRECTION}{number}" for number in range(difference.shape[1])]
    return PairFeatures(
        np.concatenate([features.signed, signed], axis=1),
        np.column_stack([features.shared, _dot(a, b)]),
        (*features.signed_names, "nearer_prompt", *names),
        (*features.shared_names, "nearness"),
    )


def without_directions(features: PairFeatures) -> PairFeatures:
    """Return the features without the many columns of the difference, which trees would overfit."""
    is_kept = np.array([not name.startswith(DIRECTION) for name in features.signed_names])
    names = tuple(np.array(features.signed_names)[is_kept].tolist())
    return PairFeatures(features.signed[:, is_kept], features.shared, names, features.shared_names)


def _embed_fields(fields: list[list[str]], embed: Embedder) -> list[FloatArray]:
    """Embed each distinct text once; return unit vectors, one array for each field."""
    distinct = sorted({text for field in fields for text in field})
    vectors = np.asarray(embed(distinct), dtype=np.float64)
    vectors = vectors / np.maximum(np.sqrt((vectors**2).sum(axis=1, keepdims=True)), 1e-12)
    position = {text: number for number, text in enumerate(distinct)}
    return [vectors[[position[text] for text in field]] for field in fields]


def _dot(first: FloatArray, second: FloatArray) -> FloatArray:
    product: FloatArray = (first * second).sum(axis=1)
    return product
