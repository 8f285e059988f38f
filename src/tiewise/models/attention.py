"""Batches in three layouts, and the attention that separates their rows.

`padded` and `sorted` batches are padded on the right; a `packed` batch is one sequence without
padding, in which positions restart at each row. In every layout a decoder of a known family
attends through :func:`attend_rows`: it removes the padding and needs no mask. Other backbones keep
their own attention and accept padded batches only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface

from tiewise.errors import ModelError
from tiewise.models.kernels import Rows, Scoring, attend, can_use_flash
from tiewise.tokens.batches import Layout
from tiewise.tokens.ragged import ranges

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tiewise.tokens.rows import TokenRows

ATTENTION = "tiewise_rows"
"""Name of the attention in transformers' registry."""

FAMILIES = frozenset({"gemma", "gemma2", "gemma3_text", "llama", "mistral", "qwen2", "qwen3"})
"""Model types with a replaceable attention; a test compares each with its eager attention."""


@dataclass(frozen=True, eq=False)
class Spans:
    """Places of tokens and of queries in a flattened batch, without its padding.

    `rows` has the numbers of queries and keys in each row. `token_index`, int64 `(n_tokens,)`, has
    the positions of the real tokens in the flattened batch (None if packed); `query_index`,
    int64 `(n_queries,)`, those of the queries (None when every token is one).
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
    """Make one batch of the rows `indices`, in this order; `pad_id` fills shorter rows.

    Returns `lengths`, int64 `(n_rows,)`, always on the CPU; `input_ids` and `attention_mask`, int64
    `(n_rows, longest)`, or, if packed, `input_ids` and `position_ids`, int64 `(1, n_tokens)`; and
    `token_type_ids` in the shape of `input_ids` when the rows have segments.
    """
    chosen = np.asarray(indices, dtype=np.int64)
    lengths = np.diff(rows.offsets)[chosen]
    if len(chosen) == 0 or lengths.min() < 1:
        raise ModelError("A batch needs at least one row, and each row at least one token.")
    is_token = _token_mask(lengths, layout)
    source = ranges(rows.offsets[chosen], lengths)
    batch = {"input_ids": _fill(is_token, rows.values[source], pad_id)}
    if rows.type_ids is not None:
        batch["token_type_ids"] = _fill(is_token, rows.type_ids[source], 0)
    if layout == "packed":
        batch["position_ids"] = torch.from_numpy(ranges(np.zeros_like(lengths), lengths))[None]
    else:
        batch["attention_mask"] = torch.from_numpy(is_token.astype(np.int64))
    moved = {name: tensor.to(device, non_blocking=True) for name, tensor in batch.items()}
    return moved | {"lengths": torch.from_numpy(lengths.astype(np.int64))}


def _token_mask(lengths: NDArray[np.int64], layout: Layout) -> NDArray[np.bool_]:
    if layout == "packed":
        return np.ones((1, int(lengths.sum())), dtype=np.bool_)
    return np.arange(int(lengths.max())) < lengths[:, None]


def _fill(is_token: NDArray[np.bool_], values: NDArray[Any], filler: int) -> Tensor:
    full = np.full(is_token.shape, filler, dtype=np.int64)
    full[is_token] = values
    return torch.from_numpy(full)


def find_spans(batch: dict[str, Tensor]) -> Spans:
    """Return the positions of the real tokens of a batch; all of them are queries."""
    lengths = tuple(batch["lengths"].tolist())
    is_packed = "position_ids" in batch
    index = None if is_packed else batch["attention_mask"].flatten().nonzero()[:, 0]
    return Spans(Rows(lengths, lengths), index)


def last_index(batch: dict[str, Tensor]) -> Tensor:
    """Return the position of each row's last token in the flattened batch, int64 `(n_rows,)`."""
    lengths = batch["lengths"]
    if "position_ids" in batch:
        last = torch.cumsum(lengths, 0) - 1
    else:
        last = torch.arange(len(lengths)) * batch["input_ids"].shape[1] + lengths - 1
    return last.to(batch["input_ids"].device)


def last_only(spans: Spans, index: Tensor) -> Spans:
    """Return spans whose only queries are the last tokens, at the positions `index`."""
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
    """Attend within each row; implements transformers' attention interface.

    Query, key and value are `(n_batch, n_heads, width, head_dim)`, and queries may have another
    width. Returns `(n_batch, width, n_heads, head_dim)` with zeros on padding, and None for the
    weights.
    """
    _no_mask(attention_mask=attention_mask)
    if dropout:
        raise ModelError("Attention dropout needs the backbone's own attention: --layout sorted.")
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    scoring = Scoring(scale, softcap, sliding_window)
    query_index = spans.token_index if spans.query_index is None else None
    keys, values = _flatten(key, spans.token_index), _flatten(value, spans.token_index)
    out = attend(_flatten(query, query_index), keys, values, spans.rows, scoring)
    if query_index is not None:
        full = out.new_zeros(query.shape[0] * query.shape[2], *out.shape[1:])
        out = full.index_copy(0, query_index, out)
    return out.view(query.shape[0], query.shape[2], *out.shape[1:]), None


def _flatten(tensor: Tensor, index: Tensor | None) -> Tensor:
    """Return `(n_batch, n_heads, width, head_dim)` as `(n_tokens, n_heads, head_dim)`."""
    flat = tensor.transpose(1, 2).flatten(0, 1)
    return flat if index is None else flat[index]


def _no_mask(*_: Any, attention_mask: Tensor | None = None, **__: Any) -> None:
    assert attention_mask is None, "rows are separated by their lengths, never by a mask"  # noqa: S101


def register_attention() -> str:
    """Register the attention with transformers and return its name; may be repeated."""
    AttentionInterface.register(ATTENTION, attend_rows)
    AttentionMaskInterface.register(ATTENTION, _no_mask)
    return ATTENTION


def attends_by_rows(config: Any) -> bool:
    """Tell whether rows can be packed for a backbone with this transformers configuration."""
    return (
        config.model_type in FAMILIES
        and not getattr(config, "attention_dropout", 0.0)
        and not getattr(config, "use_bidirectional_attention", False)
    )


def choose_layout(config: Any, device: torch.device | str) -> tuple[Layout, str]:
    """Return the best layout for a transformers configuration, and the reason for the log."""
    if not attends_by_rows(config):
        return "sorted", f"the attention of this {config.model_type} accepts padded batches only"
    if torch.device(device).type != "cuda":
        return "packed", "the CPU kernel goes row by row"
    dtype = getattr(config, "dtype", None) or torch.float32
    name = "flash-attention" if can_use_flash(dtype) else "flex attention"
    return "packed", f"{name} on CUDA"
