"""Loss of a row: cross-entropy or Kullback-Leibler divergence, with or without the tie."""

from __future__ import annotations

from torch import Tensor


def row_losses(
    logits: Tensor, probs: Tensor, *, binary_fraction: Tensor, target_entropy: Tensor
) -> Tensor:
    """Return the loss of each row in nats, shape (n,), for logits (n, 3) of A, B, tie.

    The other arguments are the parts of :class:`tiewise.data.targets.Targets` as tensors of the
    same dtype. In the share `binary_fraction` of a row the loss is normalised over A and B only,
    and the logit of the tie gets no gradient. `target_entropy` is subtracted.

    >>> import torch
    >>> logits, target = torch.tensor([[0.0, 0.0, 9.0]]), torch.tensor([[1.0, 0.0, 0.0]])
    >>> row_losses(logits, target, binary_fraction=torch.ones(1), target_entropy=torch.zeros(1))
    tensor([0.6931])
    """
    shifted = logits - logits.amax(dim=1, keepdim=True).detach()
    three_way, two_way = shifted.logsumexp(1), shifted[:, :2].logsumexp(1)
    total = (1 - binary_fraction) * three_way + binary_fraction * two_way
    return total - (probs * shifted).sum(1) - target_entropy
