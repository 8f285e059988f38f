"""A cheap run first, a dear one only for close calls: what that costs and what it loses.

The cheap run judges every row; rows whose second largest probability is at least a share of the
largest go on to the dear run, whose answer holds for them. Held-out rows that both runs have
predicted say beforehand what a share costs, in tokens, and what it changes, in log loss. Nothing is
chosen here: every share asked for is shown, so that no interval is of a winner.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from tiewise.assessment.calibrated import apply_calibration, read_calibration
from tiewise.assessment.comparison import read_shared
from tiewise.errors import RunError
from tiewise.evaluation.intervals import Interval, few_groups_mark
from tiewise.evaluation.metrics import check_labels
from tiewise.evaluation.orders import check_share, is_close
from tiewise.evaluation.resampling import group_codes
from tiewise.evaluation.scores import compare, evaluate
from tiewise.pairs.labels import PROB_COLUMNS
from tiewise.predicting.tally import count_tokens
from tiewise.runs.folder import Run
from tiewise.runs.tables import table_logits

SHARES = (0.9, 0.8, 0.6, 0.4, 0.2)


@dataclass(frozen=True)
class Stage:
    """What one share would have cost and changed.

    dear_when
        Rows go on from this ratio of their two largest probabilities on; infinite where none does,
        0 where all do.
    dear_share
        Share of rows that went on, in [0, 1].
    cheap_tokens, dear_tokens
        Tokens a row that each run reads, all orders counted; 0 for a run without a network.
    log_loss
        Of the cascade.
    from_dear, from_cheap
        Its log loss minus that of the dear run, and of the cheap run, on every row.
    """

    dear_when: float
    dear_share: float
    cheap_tokens: float
    dear_tokens: float
    log_loss: Interval
    from_dear: Interval
    from_cheap: Interval

    def to_dict(self) -> dict[str, Any]:
        """Return everything for JSON; no row going on is `dear_when` null."""
        numbers = {name: value for name, value in vars(self).items() if isinstance(value, float)}
        intervals = {
            name: value.to_dict() for name, value in vars(self).items() if name not in numbers
        }
        wanted = None if math.isinf(self.dear_when) else self.dear_when
        return numbers | {"dear_when": wanted} | intervals

    def cells(self) -> list[str]:
        """Return the stage as a line of a table."""
        name = "no row" if math.isinf(self.dear_when) else f"{self.dear_when:g}"
        return [
            "every row" if self.dear_when == 0 else name,
            f"{self.dear_share:.0%}",
            f"{self.cheap_tokens:.0f} + {self.dear_tokens:.0f}",
            f"{self.log_loss:.4f}",
            f"{self.from_dear:+.4f}",
            f"{self.from_cheap:+.4f}",
        ]


@dataclass(frozen=True)
class Cascade:
    """A cheap and a dear run, and what each share would do; the ends are the runs alone."""

    cheap: str
    dear: str
    n: int
    n_groups: int
    stages: tuple[Stage, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the table for JSON."""
        about = {name: getattr(self, name) for name in ("cheap", "dear", "n", "n_groups")}
        return about | {"stages": [stage.to_dict() for stage in self.stages]}

    def __str__(self) -> str:
        header = [
            f"to {self.dear} from",
            "rows",
            "tokens a row",
            "log loss",
            f"minus {self.dear}",
            f"minus {self.cheap}",
        ]
        rows = [header, *(stage.cells() for stage in self.stages)]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in rows
        ]
        title = (
            f"{self.cheap}, then {self.dear}: {self.n} rows of {self.n_groups} conversations"
            f"{few_groups_mark(self.n_groups)}"
        )
        return "\n".join([title, *lines])


def weigh_cascade(
    cheap: Run, dear: Run, *, shares: Sequence[float] = SHARES, **options: Any
) -> Cascade:
    """Say what sending only close calls to the dear run would cost and change.

    Parameters
    ----------
    cheap, dear
        Runs with finished folds over the same rows.
    shares
        Ratios of the two largest probabilities, each in [0, 1].
    **options
        As for :func:`tiewise.evaluate`.

    Raises
    ------
    RunError
        When the runs share no labelled row, or disagree about a label.
    ConfigError
        When a share is out of range.
    """
    for share in shares:
        check_share(share, "--shares")
    tables = [
        apply_calibration(table, read_calibration(run))  # as it will predict
        for run, table in zip((cheap, dear), read_shared((cheap, dear)), strict=True)
    ]
    is_known = tables[0]["label"].notna().to_numpy()
    first, second = (table[is_known].reset_index(drop=True) for table in tables)
    if first.empty:
        raise RunError(f"{cheap.name} and {dear.name} share no labelled row.")
    wanted = (math.inf, *sorted(set(shares) - {0.0}, reverse=True), 0.0)
    options = {"groups": first["group"].to_numpy()} | options
    return Cascade(
        cheap.name,
        dear.name,
        len(first),
        int(group_codes(options["groups"], len(first)).max()) + 1,
        tuple(_weigh(first, second, share, options) for share in wanted),
    )


def _weigh(cheap: pd.DataFrame, dear: pd.DataFrame, share: float, options: dict[str, Any]) -> Stage:
    labels = check_labels(cheap["label"])
    probs = [table[PROB_COLUMNS].to_numpy(np.float64) for table in (cheap, dear)]
    goes_on = is_close(table_logits(cheap), share)
    mixed = np.where(goes_on[:, None], probs[1], probs[0])
    return Stage(
        share,
        float(goes_on.mean()),
        float(count_tokens(cheap).mean()),
        float((count_tokens(dear) * goes_on).mean()),
        evaluate(labels, mixed, **options).log_loss,
        compare(labels, mixed, probs[1], **options),
        compare(labels, mixed, probs[0], **options),
    )
