"""Commands about data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tyro

from tiewise.commands.arguments import Artifacts, Json, default_artifacts, show_result
from tiewise.console import show
from tiewise.files import refuse_existing


def audit(
    data: tyro.conf.Positional[tuple[str, ...]],
    *,
    data_format: str | None = None,
    unlabelled: bool = False,
    n_splits: int = 5,
    backbone: str | None = None,
    max_length: int = 1024,
    artifacts: Artifacts = default_artifacts(),  # noqa: B008
    json: Json = False,
) -> None:
    """Read data and say what is in them: rows, classes, oddities, leakage of each fold rule.

    Args:
        data: Files to read, joined.
        data_format: Name of the files' format; sniffed when not given.
        unlabelled: The files have no winners.
        n_splits: Number of folds to try each rule with.
        backbone: Count tokens with this backbone's tokenizer, and what max_length would cut.
        max_length: Tokens a row may hold.
    """
    from tiewise.audit import audit_pairs
    from tiewise.formats import read_many

    pairs = read_many(data, format=data_format, labelled=not unlabelled, on_error="skip")
    lengths = _count_tokens(pairs, backbone, artifacts) if backbone else None
    found = audit_pairs(pairs, n_splits=n_splits, token_lengths=lengths, max_length=max_length)
    show_result(found, is_json=json)


def simulate(
    *, n: int = 1500, seed: int = 0, out: Path = Path("train.csv"), overwrite: bool = False
) -> None:
    """Write pairs with a known posterior, in Kaggle's columns, and print their Bayes log loss.

    Args:
        n: Number of pairs.
        seed: Seed of the simulation.
        out: The csv file to write; the posterior goes beside it.
        overwrite: Replace the file if it exists.
    """
    from tiewise.simulate import simulate as simulate_pairs
    from tiewise.simulate import write_simulation

    refuse_existing(out, is_overwritten=overwrite)
    bayes = write_simulation(simulate_pairs(n, seed=seed), out)
    show(f"{out}: {n} pairs, Bayes log loss {bayes:.4f}")


def _count_tokens(pairs: Any, backbone: str, artifacts: Path) -> Any:
    from tiewise.backbones import resolve_backbone
    from tiewise.tokens import load_tokenizer, token_lengths, tokenize

    cache_dir = artifacts / "cache"
    tokenizer = load_tokenizer(resolve_backbone(backbone, cache_dir=cache_dir))
    return token_lengths(tokenize(pairs, tokenizer, cache_dir=cache_dir))
