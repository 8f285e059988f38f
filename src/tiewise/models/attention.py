"""Rows side by side in one forward pass: how they are laid out, and how they attend.

Three layouts carry the same rows. `padded` and `sorted` are a rectangle with the row's tokens on
the left; `packed` is one line without padding, positions starting again at each row. Whatever the
layout, a decoder of a known family attends through the function registered here under
:data:`ATTENTION`: it unpads, keeps each row to itself, and neither gets nor builds a mask. Other
backbones keep their own attention and take rectangles only.

This module is a leaf: it imports torch and transformers, and nothing below imports it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface

from tiewise.errors import ModelError
from tiewise.models.gpu_kernels import can_use_flash
from tiewise.models.kernels import Rows, Scoring, attend

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tiewise.tokens.rows import TokenRows

Layout = Literal["padded", "sorted", "packed"]

ATTENTION = "tiewise_rows"
"""Name of the attention in transformers' registry."""

FAMILIES = frozenset({"gemma", "gemma2", "gemma3_text", "llama", "mistral", "qwen2", "qwen3"})
"""Model types whose attention can be replaced; a test holds each to its own eager attention."""


@dataclass(frozen=True, eq=False)
class Spans:
    """Where the real tokens of a batch lie, and which positions are queries.

    Attributes
    ----------
    rows
        Lengths of each row's queries and keys.
    token_index
        int64 `(n_tokens,)`: places of the real tokens in the flattened rectangle; None if packed.
    query_index
        int64 `(n_queries,)`: the same for the queries; None when they are the tokens.
    """

    rows: Rows
    token_index: Tensor | None
    query_index: Tensor | None = None


def collate(
    rows: TokenRows,
    indices: Sequence[int] | NDArray[np.integer[Any]],
    *,
    layout: Layout,
    pad_id: int,
    device: torch.device | str = "cpu",
) -> dict[str, Tensor]:
    """Lay some rows out as one batch, in the order of `indices`.

    Parameters
    ----------
    rows
        Tokens of all rows.
    indices
        Which rows, at least one; each with at least one token.
    layout
        `padded` and `sorted` give a rectangle, `packed` one line.
    pad_id
        Token id on the right of shorter rows.
    device
        Where the batch goes.

    Returns
    -------
    dict
        `lengths` int64 `(n_rows,)`, always on the CPU, and either `input_ids` and
        `attention_mask` int64 `(n_rows, longest)`, or `input_ids` and `position_ids` int64
        `(1, n_tokens)`; `token_type_ids` beside `input_ids` when the rows have segments.

    Raises
    ------
    ModelError
        When there is no row, or one without a token.
    """
    chosen = np.asarray(indices, dtype=np.int64)
    lengths = np.diff(rows.offsets)[chosen]
    if len(chosen) == 0 or lengths.min() < 1:
        raise ModelError("A batch needs at least one row, and each row at least one token.")
    place = _places(lengths, layout)
    source = np.concatenate([np.arange(rows.offsets[i], rows.offsets[i + 1]) for i in chosen])
    batch = {"input_ids": _fill(place, rows.values[source], pad_id)}
    if rows.type_ids is not None:
        batch["token_type_ids"] = _fill(place, rows.type_ids[source], 0)
    if layout == "packed":
        batch["position_ids"] = torch.from_numpy(_positions(lengths))[None]
    else:
        batch["attention_mask"] = torch.from_numpy(place.astype(np.int64))
    moved = {name: tensor.to(device, non_blocking=True) for name, tensor in batch.items()}
    return moved | {"lengths": torch.from_numpy(lengths.astype(np.int64))}


def _places(lengths: NDArray[np.int64], layout: Layout) -> NDArray[np.bool_]:
    if layout == "packed":
        return np.ones((1, int(lengths.sum())), dtype=np.bool_)
    return np.arange(int(lengths.max())) < lengths[:, None]


def _fill(place: NDArray[np.bool_], values: NDArray[Any], filler: int) -> Tensor:
    full = np.full(place.shape, filler, dtype=np.int64)
    full[place] = values
    return torch.from_numpy(full)


def _positions(lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.concatenate([np.arange(length) for length in lengths.tolist()])


def find_spans(batch: dict[str, Tensor]) -> Spans:
    """Return where the real tokens of a collated batch lie."""
    lengths = tuple(batch["lengths"].tolist())
    is_packed = "position_ids" in batch
    index = None if is_packed else batch["attention_mask"].flatten().nonzero()[:, 0]
    return Spans(Rows(lengths, lengths), index)


def last_index(batch: dict[str, Tensor]) -> Tensor:
    """Return each row's last token's place in the flattened batch, int64 `(n_rows,)`."""
    lengths = batch["lengths"]
    if "position_ids" in batch:
        last = torch.cumsum(lengths, 0) - 1
    else:
        width = batch["input_ids"].shape[1]
        last = torch.arange(len(lengths)) * width + lengths.to("cpu") - 1
    return last.to(batch["input_ids"].device)


def last_only(spans: Spans, index: Tensor) -> Spans:
    """Return spans whose queries are the last tokens alone."""
    lengths = spans.rows.key_lengths
    return Spans(Rows((1,) * len(lengths), lengths), spans.token_index, index)


def attend_rows(  # noqa: PLR0913 -- the signature is transformers'
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    spans: Spans,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attend within each row; the signature is transformers' attention interface.

    Parameters
    ----------
    query, key, value
        `(n_batch, n_heads, width, head_dim)`; queries and keys may differ in width.

    Returns
    -------
    tuple
        `(n_batch, width, n_heads, head_dim)` with zeros on padding, and None for the weights.
    """
    assert attention_mask is None, "rows are kept apart by their lengths, never by a mask"  # noqa: S101
    if dropout:
        raise ModelError("Attention dropout needs the backbone's own attention: layout sorted.")
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    scoring = Scoring(scale, softcap, sliding_window)
    shape = query.shape
    query_index = spans.token_index if spans.query_index is None else None
    keys, values = _line(key, spans.token_index), _line(value, spans.token_index)
    out = attend(_line(query, query_index), keys, values, spans.rows, scoring)
    if query_index is not None:
        full = out.new_zeros(shape[0] * shape[2], *out.shape[1:])
        out = full.index_copy(0, query_index, out)
    return out.view(shape[0], shape[2], *out.shape[1:]), None


def _line(tensor: Tensor, index: Tensor | None) -> Tensor:
    """Return `(n_batch, n_heads, width, head_dim)` as `(n_tokens, n_heads, head_dim)`."""
    flat = tensor.transpose(1, 2).flatten(0, 1)
    return flat if index is None else flat[index]


def _no_mask(*_: Any, attention_mask: Tensor | None = None, **__: Any) -> None:
    assert attention_mask is None, "rows are kept apart by their lengths, never by a mask"  # noqa: S101


def register_attention() -> str:
    """Put the attention into transformers' registry, once or again; return its name."""
    AttentionInterface.register(ATTENTION, attend_rows)
    AttentionMaskInterface.register(ATTENTION, _no_mask)
    return ATTENTION


def attends_by_rows(config: Any) -> bool:
    """Return whether a transformers configuration is of a family whose rows can be packed."""
    return (
        config.model_type in FAMILIES
        and not getattr(config, "attention_dropout", 0.0)
        and not getattr(config, "use_bidirectional_attention", False)
    )


def choose_layout(config: Any, device: torch.device | str) -> tuple[Layout, str]:
    """Return the best layout for a transformers configuration, and the reason for the log."""
    if config.model_type not in FAMILIES:
        return "sorted", f"{config.model_type} has an attention of its own, which takes rectangles"
    if not attends_by_rows(config):
        return "sorted", f"this {config.model_type} has attention dropout or looks both ways"
    if torch.device(device).type != "cuda":
        return "packed", "row by row on the CPU"
    dtype = getattr(config, "dtype", None) or torch.float32
    name = "flash-attention" if can_use_flash(dtype) else "flex attention"
    return "packed", f"{name} on CUDA"
