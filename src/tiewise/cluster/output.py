"""The folder of a prediction in units: identity, run, parts and manifest.

::

    OUT/
      identity.json               what all parts depend on; the first writer's is kept
      run-SHA256.tar              the run; each node of a cluster fetches it once
      parts-IDENTITY/
        FILETAG-GROUP-SKIP-SHA256.parquet    the predictions of one unit
      manifest.json               the parts in the order of the input; written last

A part has the digest of its own bytes in its name, so writing it twice is harmless and a damaged
one is found. The fingerprint of the input file is in the name as well: a file that is replaced or
added costs its own units only. A folder without ``manifest.json`` is unfinished.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from tiewise.cluster.units import Unit


@dataclass(frozen=True)
class Record:
    """A finished unit.

    `part` is the name of its file and `size` its bytes; `n_rows` counts the predicted rows.
    `seconds` and `device` are None for a part that another process has written. `tally` has the
    sums of :class:`tiewise.judges.prediction.Tally`, `has_integer_ids` whether each id of the unit
    spells an integer.
    """

    unit: Unit
    part: str
    size: int
    n_rows: int
    has_integer_ids: bool
    tally: Mapping[str, float]
    seconds: float | None = None
    device: str | None = None


class Output:
    """An output folder, local or in an object store."""

    def __init__(self, address: str) -> None:
        self.address = address

    def begin(self, identity: Mapping[str, Any]) -> None:
        """Write the identity, or check it: RunError names the fields that differ."""
        raise NotImplementedError

    def identity(self) -> dict[str, Any]:
        """Return the identity; RunError when the folder has none."""
        raise NotImplementedError

    def find_records(self, units: Sequence[Unit]) -> dict[Unit, Record]:
        """Return the records of units with an intact part; damaged parts are removed."""
        raise NotImplementedError

    def write_part(self, unit: Unit, table: pd.DataFrame) -> Record:
        """Write the predictions of a unit; the first writer's bytes are kept."""
        raise NotImplementedError

    def commit(self, records: Iterable[Record]) -> None:
        """Write the manifest of all units, in the order of the input."""
        raise NotImplementedError

    def read(self) -> Iterator[pd.DataFrame]:
        """Yield the predictions of a finished folder, a unit at a time; each part is verified."""
        raise NotImplementedError
