"""What each row costs: cross entropy and the terms beside it. A leaf: imports torch."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from tiewise.attention import collate
from tiewise.consistency import order_divergence
from tiewise.model import PairClassifier
from tiewise.names_head import names_losses
from tiewise.steps import StepDataset


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
        Whose examples the rows are, how they are laid out, and what the loss consists of.
    rows
        Rows of one micro-batch.
    device
        Where it is computed.
    """
    examples, config = steps.examples, steps.config
    logits = _logits(model, classifier, steps, rows, device)
    targets = torch.from_numpy(examples.targets[rows]).to(device, logits.dtype)
    losses = nn.functional.cross_entropy(
        logits, targets, reduction="none", label_smoothing=config.label_smoothing
    )
    if config.consistency_weight:
        losses = losses + config.consistency_weight * order_divergence(logits)
    names_head = classifier.names_head
    if examples.names is not None and names_head is not None and names_head.logits is not None:
        codes = torch.from_numpy(examples.names.codes[rows]).to(device)
        losses = losses + config.model_names_weight * names_losses(names_head.logits, codes)
    return losses * torch.from_numpy(examples.weights[rows]).to(device, logits.dtype)


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
    is_mixed = classifier.model_config.dtype == "bfloat16" and device.type == "cuda"
    with torch.autocast(device.type, torch.bfloat16, enabled=is_mixed):
        return model(batch)  # type: ignore[no-any-return]
