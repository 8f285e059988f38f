"""A second head that guesses which models answered; it exists while a fit goes on.

It reads what the head reads, so its gradient reaches the adapters by the same way. It is no part of
what is saved, and nothing is computed for it but in training.

This module is a leaf: it imports torch, and nothing below imports it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from tiewise.pairs.model_names import UNKNOWN


class NamesHead(nn.Module):
    """Logits of A's and of B's model.

    Attributes
    ----------
    logits
        Of the last forward pass in training, shape (n, 2, n_models); None before.
    """

    def __init__(self, head: nn.Module, n_models: int, *, seed: int) -> None:
        super().__init__()
        first = next(part for part in head.modules() if isinstance(part, nn.Linear))
        generator = torch.Generator().manual_seed(seed)
        weight = torch.randn(2 * n_models, first.in_features, generator=generator) * 0.02
        self.weight = nn.Parameter(weight.to(first.weight))
        self.bias = nn.Parameter(torch.zeros(2 * n_models).to(first.weight))
        self.logits: Tensor | None = None
        head.register_forward_pre_hook(self._look)

    def _look(self, head: Any, inputs: tuple[Tensor, ...]) -> None:
        """Guess from what the head is about to read."""
        if not self.training:
            return
        states = inputs[0] if inputs[0].ndim == 2 else inputs[0][:, 0]  # an encoder's first token
        with torch.autocast(states.device.type, enabled=False):  # in the head's own precision
            scores = nn.functional.linear(states.to(self.weight.dtype), self.weight, self.bias)
        self.logits = scores.reshape(len(scores), 2, -1)


def names_losses(logits: Tensor, codes: Tensor) -> Tensor:
    """Return each row's loss of guessing its models, shape (n,).

    Parameters
    ----------
    logits
        Shape (n, 2, n_models).
    codes
        int64, shape (n, 2): numbers of A's and B's model; what is unknown costs nothing.

    Examples
    --------
    >>> names_losses(torch.zeros(2, 2, 4), torch.tensor([[0, 3], [1, -1]]))
    tensor([1.3863, 0.6931])
    """
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    losses = nn.functional.cross_entropy(
        logits.flatten(0, 1), codes.flatten(), reduction="none", ignore_index=UNKNOWN
    )
    mean: Tensor = losses.reshape(-1, 2).mean(dim=1)
    return mean
