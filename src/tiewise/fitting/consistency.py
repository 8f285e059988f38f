"""How far the two orders of a pair disagree, as a term of the loss. A leaf: imports torch."""

from __future__ import annotations

import torch
from torch import Tensor


def order_divergence(logits: Tensor) -> Tensor:
    """Return for each row how far its pair's two orders disagree, in nats.

    Parameters
    ----------
    logits
        Of A, B, tie: shape (2n, 3). Row k and row n + k are the same pair, as given and swapped,
        each in its own A and B.

    Returns
    -------
    Tensor
        Shape (2n,), not negative: the mean of both Kullback-Leibler divergences between what the
        one order says and what the other says, put back to the first one's A and B. Both rows of a
        pair have the same; it is 0 exactly where the orders agree.

    References
    ----------
    Liang et al. (2021), R-Drop: the same term between two draws of dropout.

    Examples
    --------
    >>> agreeing = torch.tensor([[2.0, 0.0, 1.0], [0.0, 2.0, 1.0]])
    >>> order_divergence(agreeing)
    tensor([0., 0.])
    """
    log_probs = logits.log_softmax(dim=1)
    given, swapped = log_probs.chunk(2)
    put_back = swapped[:, [1, 0, 2]]
    divergence = ((given.exp() - put_back.exp()) * (given - put_back)).sum(dim=1) / 2
    return torch.cat([divergence, divergence])
