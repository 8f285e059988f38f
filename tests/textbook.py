"""Reference implementation of attention, and random inputs to compare the kernels on."""

from __future__ import annotations

import torch
from hypothesis import strategies as st

from tiewise.models.kernels import Rows, Scoring


def reference(query, key, value, rows, scoring):
    """Compute attention row by row with a mask and repeated keys."""
    outputs, query_start, key_start = [], 0, 0
    for n_queries, n_keys in zip(rows.query_lengths, rows.key_lengths, strict=True):
        own = query[query_start : query_start + n_queries].transpose(0, 1)
        group = query.shape[1] // key.shape[1]
        keys, values = (
            part[key_start : key_start + n_keys].transpose(0, 1).repeat_interleave(group, 0)
            for part in (key, value)
        )
        scores = own @ keys.mT * scoring.scale
        if scoring.softcap is not None:
            scores = scoring.softcap * torch.tanh(scores / scoring.softcap)
        distance = torch.arange(n_keys - n_queries, n_keys)[:, None] - torch.arange(n_keys)
        hidden = distance < 0
        if scoring.window is not None:
            hidden |= distance >= scoring.window
        weights = torch.softmax(scores.masked_fill(hidden, -torch.inf), -1)
        outputs.append((weights @ values).transpose(0, 1))
        query_start, key_start = query_start + n_queries, key_start + n_keys
    return torch.cat(outputs)


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
