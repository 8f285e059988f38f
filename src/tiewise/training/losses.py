"""What each row costs: against its target, and the terms beside. A leaf: imports torch."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from tiewise.models.attention import collate
from tiewise.models.model import PairClassifier
from tiewise.training.steps import StepDataset


def weighted_losses(
    model: nn.Module,
    classifier: PairClassifier,
    steps: StepDataset,
    rows: npt.NDArray[np.int64],
    device: torch.device,
) -> Tensor:
    """Run some rows forward; return what each costs times its weight, shape (n,).

    Parameters
    ----------
    model
        The classifier, or what several processes wrapped around it.
    classifier
        Itself.
    steps
        Whose examples the rows are and how they are laid out.
    rows
        Rows of one micro-batch.
    device
        Where it is computed.
    """
    logits = _logits(model, classifier, steps, rows, device)
    targets = {
        name: torch.from_numpy(part[rows]).to(device, logits.dtype)
        for name, part in vars(steps.examples.targets).items()
    }
    weights = targets.pop("weights")
    return row_losses(logits, **targets) * weights


def row_losses(
    logits: Tensor, probs: Tensor, *, binary_fraction: Tensor, target_entropy: Tensor
) -> Tensor:
    """Return each row's loss, shape (n,).

    Parameters
    ----------
    logits
        Of A, B, tie: shape (n, 3).
    probs, binary_fraction, target_entropy
        The parts of :class:`tiewise.data.targets.Targets`, as tensors of the logits' type.
        In the share `binary_fraction` of a row the loss is renormalised over A and B: the tie's
        logit gets no gradient.

    Examples
    --------
    >>> import torch
    >>> logits, sure = torch.tensor([[0.0, 0.0, 9.0]]), torch.tensor([[1.0, 0.0, 0.0]])
    >>> row_losses(logits, sure, binary_fraction=torch.ones(1), target_entropy=torch.zeros(1))
    tensor([0.6931])
    """
    shifted = logits - logits.amax(dim=1, keepdim=True).detach()
    three_way, two_way = shifted.logsumexp(1), shifted[:, :2].logsumexp(1)
    total = (1 - binary_fraction) * three_way + binary_fraction * two_way
    return total - (probs * shifted).sum(1) - target_entropy


def _logits(
    model: nn.Module,
    classifier: PairClassifier,
    steps: StepDataset,
    rows: npt.NDArray[np.int64],
    device: torch.device,
) -> Tensor:
    batch = collate(
        steps.examples.rows, rows, layout=steps.layout, pad_id=steps.pad_id, device=device
    )
    # Not transformers' own flag: under FSDP it would take the head's precision away too.
    with classifier.autocast():
        return model(batch)  # type: ignore[no-any-return]
