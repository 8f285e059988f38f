"""Progress of a job on a cluster, in rows, with the number of workers."""

from __future__ import annotations

import logging
import time

from tiewise.console import describe_seconds, progress_bar

LINE_SECONDS = 60.0
"""Time between two lines in the log, if no bar is shown."""
_log = logging.getLogger(__name__)


class JobProgress:
    """A progress bar in rows; without a terminal, a line in the log each minute."""

    def __init__(self, n_rows: int, unit: str) -> None:
        self.n_rows, self.n_done, self.unit = n_rows, 0, unit
        self.started = self.logged = time.monotonic()
        self.bar = progress_bar(n_rows, name="cluster", unit=unit, unit_scale=True)

    def __enter__(self) -> JobProgress:
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()

    def add(self, n_rows: int, n_alive: int) -> None:
        """Count finished rows."""
        self.n_done += n_rows
        self.bar.set_postfix(workers=n_alive, refresh=False)
        self.bar.update(n_rows)

    def tick(self, n_alive: int) -> None:
        """Log a line if a minute has passed and no bar is shown."""
        now = time.monotonic()
        if not self.bar.disable or now - self.logged < LINE_SECONDS:
            return
        self.logged = now
        rate = self.n_done / (now - self.started)
        left = describe_seconds((self.n_rows - self.n_done) / rate) if rate else "unknown time"
        line = "%s of %s %ss done, %d workers, %.3g %ss a second, %s left"
        done, rows = f"{self.n_done:,}", f"{self.n_rows:,}"
        _log.info(line, done, rows, self.unit, n_alive, rate, self.unit, left)
