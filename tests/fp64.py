"""Read the float64 numbers of a csv exactly; pandas before 3 needs an option for it."""

from pathlib import Path

import pandas as pd

_OPTIONS = {"float_precision": "round_trip"} if pd.__version__ < "3" else {}


def read_csv(path: Path) -> pd.DataFrame:
    """Read a csv with every number exact to the last bit."""
    return pd.read_csv(path, **_OPTIONS)
