"""Classification heads: from a backbone's hidden states to the logits of A, B and tie."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Final

import torch
from torch import Tensor, nn

from tiewise.config import ModelConfig
from tiewise.errors import ModelError

CLASSES: Final = ("A", "B", "tie")
_NAMES = ("score", "classifier")


def head_name(network: Any) -> str:
    """Return the name of the attribute that holds the head."""
    for name in _NAMES:
        if hasattr(network, name):
            return name
    raise ModelError(f"{network.config.model_type}: its classifier has no head named {_NAMES}.")


def reset_head(network: Any, config: ModelConfig) -> None:
    """Replace a linear head of transformers by ours, or draw new values for a head of its own.

    The last layer begins at zero, so that the first logits favour no class: the states of a
    pretrained backbone are large, and random weights would make its first predictions confident.
    """
    name = head_name(network)
    head = getattr(network, name)
    if isinstance(head, nn.Linear):
        n_inputs = head.in_features * (2 if config.head == "responses" else 1)
        head = nn.Linear(n_inputs, len(CLASSES), bias=name == "classifier")
        setattr(network, name, head)
    elif config.head != "linear":
        raise ModelError(
            f"--head {config.head} cannot replace the head of {network.config.model_type}, which "
            "has several layers of its own. Use --head linear."
        )
    layers = [part for part in head.modules() if isinstance(part, nn.Linear)]
    for part in layers:
        nn.init.normal_(part.weight, std=getattr(network.config, "initializer_range", 0.02))
        if part.bias is not None:
            nn.init.zeros_(part.bias)
    nn.init.zeros_(layers[-1].weight)


def keep_precision(module: nn.Module, dtype: torch.dtype) -> None:
    """Make a module compute in `dtype`, for inputs of any dtype and under autocast."""
    # A partial of a bound method, not a closure: peft copies the module deeply, and a closure in
    # the copy would still call the original.
    module.forward = functools.partial(_forward_in, module.forward, dtype)


def _forward_in(forward: Callable[..., Tensor], dtype: torch.dtype, *inputs: Tensor) -> Tensor:
    with torch.autocast(inputs[0].device.type, enabled=False):
        return forward(*(part.to(dtype) for part in inputs))


def compare_responses(states: Tensor, batch: dict[str, Tensor], slot: int) -> Tensor:
    """Return the features of the head `responses`, `(n_rows, 2 * hidden)`.

    They are the mean of the hidden states over response A minus that over B, and the absolute
    value. Such a mean already describes a response, so a linear head separates A from B from the
    first step. `states` are those of a batch in any layout, `(n_batch, width, hidden)`. `slot` is
    the special token before each response; the token after a response counts as part of it.
    """
    ids, lengths = batch["input_ids"], batch["lengths"].to(states.device)
    ends = torch.cumsum(lengths, 0) if "position_ids" in batch else lengths
    starts = ends - lengths
    place = torch.arange(ids.shape[1], device=states.device)
    is_own = (place >= starts[:, None]) & (place < ends[:, None])  # (n_rows, width)
    is_slot = (ids == slot) & is_own & (place < ends[:, None] - 1)
    # Slots at or after each token: one within response A, none within response B.
    n_left = is_slot.flip(1).cumsum(1).flip(1)
    n_wrong = int((is_slot.sum(1) < 2).sum())
    if n_wrong:
        raise ModelError(
            f"{n_wrong} of {len(lengths)} rows have fewer than two ids {slot} before their last; "
            "expected one before each response (--head responses). Make rows as template.json "
            "says, or fit with --head linear."
        )
    fields = [is_own & (n_left >= 2), is_own & (n_left == 1), is_own & (n_left == 0)]
    if "position_ids" in batch:
        sizes = torch.stack([field.sum(1) for field in fields], dim=1).flatten().tolist()
        # Row by row: a sum over all rows would carry NaN from one to another.
        parts = torch.split(states[0], sizes)
        a, b = (torch.stack([part.mean(0) for part in parts[k::3]]) for k in (1, 2))
    else:
        a, b = (_mean(states, field) for field in fields[1:])
    return torch.cat([a - b, (a - b).abs()], dim=1)


def _mean(states: Tensor, chosen: Tensor) -> Tensor:
    total: Tensor = torch.einsum("nwh,nw->nh", states, chosen.to(states.dtype))
    return total / chosen.sum(1, keepdim=True)
