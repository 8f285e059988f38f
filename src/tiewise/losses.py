"""The loss of rows against their targets (:mod:`tiewise.targets`). A leaf: imports torch."""

from __future__ import annotations

from torch import Tensor


def row_losses(
    logits: Tensor,
    probs: Tensor,
    *,
    decisive: Tensor,
    floors: Tensor,
    label_smoothing: float = 0.0,
) -> Tensor:
    """Return each row's loss, shape (n,).

    Parameters
    ----------
    logits
        Of A, B, tie: shape (n, 3).
    probs, decisive, floors
        The parts of :class:`tiewise.targets.Targets`, as tensors of the logits' type. In the share
        `decisive` of a row the loss is renormalised over A and B: the tie's logit gets no gradient.
    label_smoothing
        Share of the target spread evenly over the classes that the row is about.

    Examples
    --------
    >>> import torch
    >>> logits, sure = torch.tensor([[0.0, 0.0, 9.0]]), torch.tensor([[1.0, 0.0, 0.0]])
    >>> row_losses(logits, sure, decisive=torch.ones(1), floors=torch.zeros(1))
    tensor([0.6931])
    """
    share = decisive[:, None]
    even = (1 - share) * logits.new_tensor([1 / 3] * 3) + share * logits.new_tensor([0.5, 0.5, 0.0])
    goal = (1 - label_smoothing) * probs + label_smoothing * even
    shifted = logits - logits.amax(dim=1, keepdim=True).detach()
    total = (1 - decisive) * shifted.logsumexp(1) + decisive * shifted[:, :2].logsumexp(1)
    return total - (goal * shifted).sum(1) - floors
