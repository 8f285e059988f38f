"""How far a long piece of work is, and how long it will still take.

A bar is information: it is drawn where a person looks, and nowhere else. So it is silent in pipes,
files and notebooks, in continuous integration (the environment variable ``CI``), and wherever
informative messages are: under ``--quiet``, and in programs that did not ask for them.
"""

from __future__ import annotations

import logging
import os
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tqdm import tqdm


def progress_bar(total: int, *, name: str, unit: str, **options: Any) -> tqdm[Any]:
    """Return a bar on standard error: rate, share done, time left.

    Parameters
    ----------
    total
        How many units there are.
    name, unit
        What is done, and what is counted.
    **options
        Those of tqdm.
    """
    from tqdm import tqdm

    silent = {"disable": True if is_silent() else None}  # None: where nobody looks
    return tqdm(total=total, desc=name, unit=unit, file=sys.stderr, **silent | options)


def is_silent() -> bool:
    """Tell whether bars are unwanted even on a terminal."""
    is_informing = logging.getLogger("tiewise").isEnabledFor(logging.INFO)
    return bool(os.environ.get("CI")) or not is_informing
