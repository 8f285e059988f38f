"""One forward pass over a tree of rows that begin alike. A leaf: imports torch.

The nodes of a :class:`~tiewise.predicting.prefix_tree.PrefixTree` lie end to end like packed rows.
A node's queries are its own tokens; its keys are gathered along the path from the root. To the
attention this is a row of which only the last positions ask, so the kernels of packed rows serve
unchanged, each shared token is computed once, and no cache is kept between passes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from tiewise.errors import ModelError
from tiewise.network.attention import Spans
from tiewise.network.kernels import Rows
from tiewise.network.model import PairClassifier
from tiewise.predicting.prefix_tree import IntArray, PrefixTree
from tiewise.tokens.ragged import ranges


def score_tree(classifier: PairClassifier, tree: PrefixTree) -> Tensor:
    """Return the logits of a tree's rows, in their order, on the classifier's device.

    Parameters
    ----------
    classifier
        A classifier whose backbone is causal and takes packed rows.
    tree
        Tokens of n rows.

    Returns
    -------
    Tensor
        As :meth:`PairClassifier.forward` for the same rows: `(n, 3)`.

    Raises
    ------
    ModelError
        When the backbone cannot take packed rows.
    """
    if not classifier.can_pack:
        raise ModelError(
            f"{classifier.model_config.backbone} cannot share the beginnings of rows: its "
            "attention takes rectangles only. Use --layout sorted."
        )
    device = classifier.device
    network: Any = classifier.network
    states = network.get_decoder()(
        input_ids=torch.from_numpy(tree.values.astype(np.int64))[None].to(device),
        position_ids=torch.from_numpy(tree.positions)[None].to(device),
        spans=_node_spans(tree, device),
        last=_leaf_spans(tree, device),
        use_cache=False,
    ).last_hidden_state[0]  # (n, hidden)
    return classifier.head(states)  # type: ignore[no-any-return]


def _node_spans(tree: PrefixTree, device: torch.device) -> Spans:
    """Let every token ask; a node's keys are those of its path."""
    sizes = np.diff(tree.offsets)
    paths = [tree.path(node) for node in range(len(sizes))]
    everything = torch.arange(len(tree.values), device=device)
    return _spans(tree, tuple(sizes.tolist()), paths, everything)


def _leaf_spans(tree: PrefixTree, device: torch.device) -> Spans:
    """Let the last token of each row ask; its keys are the whole row's."""
    paths = [tree.path(leaf) for leaf in tree.leaves.tolist()]
    last = torch.from_numpy(tree.last_tokens).to(device)
    return _spans(tree, (1,) * len(paths), paths, last)


def _spans(
    tree: PrefixTree, query_lengths: tuple[int, ...], paths: list[list[int]], queries: Tensor
) -> Spans:
    sizes = np.diff(tree.offsets)
    key_lengths = tuple(int(sizes[path].sum()) for path in paths)
    nodes: IntArray = np.concatenate(paths)
    keys = torch.from_numpy(ranges(tree.offsets[nodes], sizes[nodes])).to(queries.device)
    return Spans(Rows(query_lengths, key_lengths), keys, queries)
