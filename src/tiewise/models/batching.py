"""Which rows share a forward pass, and the pass itself. A leaf: imports torch.

How rows are laid out follows from the rows alone, never from the order they came in
(:mod:`tiewise.models.dedup`), so two calls with the same rows make the same passes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
import torch

from tiewise.errors import ConfigError
from tiewise.models.attention import collate
from tiewise.models.model import PairClassifier
from tiewise.tokens.batches import plan_batches
from tiewise.tokens.rows import TokenRows

Layout = Literal["auto", "padded", "sorted", "packed"]
Floats = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


def choose_layout(classifier: PairClassifier, layout: Layout) -> Layout:
    """Return the layout to score rows in; see :func:`tiewise.models.scoring.score_rows`.

    Raises
    ------
    ConfigError
        When the layout is not known.
    """
    if layout not in get_args(Layout):
        raise ConfigError(f"Layout {layout!r} is not one of {', '.join(get_args(Layout))}.")
    if layout != "auto":
        return layout
    return "packed" if classifier.can_pack else "sorted"


def plan_passes(rows: TokenRows, layout: Layout, batch_tokens: int) -> list[IntArray]:
    """Return which rows go together, each exactly once; `batch_tokens` bounds their tokens."""
    assert layout != "auto"  # noqa: S101 - chosen before
    return plan_batches(rows.lengths, max_tokens=batch_tokens, layout=layout)


def score_batch(
    classifier: PairClassifier, rows: TokenRows, batch: IntArray, layout: Layout
) -> Iterator[tuple[IntArray, Floats]]:
    """Yield rows and their logits; a batch that does not fit into memory is halved."""
    try:
        logits = _forward(classifier, rows, batch, layout)
    except torch.OutOfMemoryError:
        if len(batch) == 1:
            raise
    else:
        yield batch, logits
        return
    for half in np.array_split(batch, 2):
        yield from score_batch(classifier, rows, half, layout)


def _forward(
    classifier: PairClassifier, rows: TokenRows, batch: IntArray, layout: Layout
) -> Floats:
    assert layout != "auto"  # noqa: S101 - chosen before
    # The padding id is arbitrary: padding is masked.
    inputs = collate(rows, batch, layout=layout, pad_id=0, device=classifier.device)
    scored: Floats = classifier(inputs).double().cpu().numpy()
    return scored


@contextlib.contextmanager
def evaluating(classifier: PairClassifier) -> Iterator[None]:
    """Put a classifier into evaluation mode without gradients, and back."""
    was_training = classifier.training
    classifier.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        classifier.train(was_training)
