"""Random inputs to compare attention kernels on, and textbook attention as `reference`."""

from __future__ import annotations

import torch
from hypothesis import strategies as st

from benchmarks.gpu_attention import textbook_attention as reference
from tiewise.models.kernels import Rows, Scoring

__all__ = ["problems", "reference"]


@st.composite
def problems(draw):
    """Rows, heads and scoring of every kind: grouped heads, capped, windowed, last token only."""
    lengths = draw(st.lists(st.integers(1, 250), min_size=1, max_size=4))
    wants_last = draw(st.booleans())
    rows = Rows(tuple(1 if wants_last else n for n in lengths), tuple(lengths))
    n_key_heads, group, head_dim = draw(st.tuples(*[st.integers(1, 3)] * 3))
    scoring = Scoring(
        scale=draw(st.sampled_from([0.25, 1.0])),
        softcap=draw(st.sampled_from([None, 2.0, 50.0])),
        window=draw(st.none() | st.integers(1, 260)),
    )
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    n_queries, n_keys = sum(rows.query_lengths), sum(rows.key_lengths)
    shapes = (
        (n_queries, n_key_heads * group, head_dim),
        (n_keys, n_key_heads, head_dim),
        (n_keys, n_key_heads, head_dim),
    )
    tensors = [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]
    return tensors, rows, scoring
