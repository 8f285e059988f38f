"""Numbers of a csv read as they are spelled: older pandas do so only when they are asked to."""

from pathlib import Path

import pandas as pd

_OPTIONS = {"float_precision": "round_trip"} if pd.__version__ < "3" else {}


def read_csv(path: Path) -> pd.DataFrame:
    """Read a csv to the last bit."""
    return pd.read_csv(path, **_OPTIONS)
