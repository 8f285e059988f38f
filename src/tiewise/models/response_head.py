"""Each response by itself: the mean of its tokens, after all layers have read the whole row.

A small encoder's first token must learn from nothing to hold two answers against each other, which
takes more pairs than most people have. The mean over a response's tokens already says what the
response is like, since that is what such encoders were trained for, so a head on the *difference*
of the two means can tell them apart from the first step on.

This module is a leaf: it imports torch, and nothing below imports it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tiewise.errors import ModelError


def compare_responses(states: Tensor, batch: dict[str, Tensor]) -> Tensor:
    """Return what sets the two responses of each row apart.

    Parameters
    ----------
    states
        Hidden states, `(n_rows, width, hidden)`.
    batch
        Collated rows, padded, whose last token closes response B and stands also between the
        slots, as the templates of encoders have it.

    Returns
    -------
    Tensor
        `(n_rows, 2 * hidden)`: the difference of the responses' means, and its absolute value.

    Raises
    ------
    ModelError
        When a row does not have three slots closed by one and the same token.
    """
    ids, lengths = batch["input_ids"], batch["lengths"].to(states.device)
    position = torch.arange(ids.shape[1], device=states.device)
    last = ids.gather(1, lengths[:, None] - 1)
    closes = (ids == last) & (position < lengths[:, None])
    if not bool((closes.sum(1) == 3).all()):
        raise ModelError("--head responses needs an encoder whose slots end in one separator.")
    slot = closes.cumsum(1) - closes.long()
    a, b = (_mean(states, (slot == number) & (position < lengths[:, None])) for number in (1, 2))
    return torch.cat([a - b, (a - b).abs()], dim=1)


def _mean(states: Tensor, chosen: Tensor) -> Tensor:
    total: Tensor = torch.einsum("nwh,nw->nh", states, chosen.to(states.dtype))
    return total / chosen.sum(1, keepdim=True)
