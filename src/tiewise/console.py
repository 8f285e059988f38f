"""Terminal output: results, messages, progress bars, exit statuses.

Exit status: 0 done; 2 an error that the caller can correct; 130 or 143 interrupted, continue with
``--resume``; 1 a bug in tiewise, with its traceback.
"""

from __future__ import annotations

import errno
import logging
import os
import sys
import time
import unicodedata
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TextIO

from tiewise.errors import Interrupted, TiewiseError

if TYPE_CHECKING:
    from tqdm import tqdm

_LESS_MEMORY = (
    "A fit needs less with --quantization nf4, a smaller --micro-batch-tokens or --max-length, or "
    "--checkpointing trainable; scoring with a smaller --score-batch-tokens."
)
_FIRST_SECONDS, _MOST_SECONDS = 20.0, 1800.0
"""Time until the first line about the time left, and the longest time between two."""
_listeners: list[Callable[[], None]] = []
_log = logging.getLogger(__name__)
_NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def run_command(command: Callable[[], Any], *, level: int = logging.INFO, hint: str = "") -> int:
    """Run a command and return its exit status.

    `level` is the lowest of messages shown; `hint` says what to do after an interruption.
    """
    _prepare_streams()
    _prepare_logging(level)
    try:
        command()
        sys.stdout.flush()
    except TiewiseError as error:
        return _fail(str(error))
    except Interrupted as signal:
        _write_line(sys.stderr, "Stopped after a checkpoint; continue with --resume.")
        return 128 + int(signal.args[0])
    except KeyboardInterrupt:
        _write_line(sys.stderr, f"Interrupted.{hint}")
        return 130
    except BrokenPipeError:  # the reader of the pipe has ended, as with `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        return _fail(describe_os_error(error))
    except RuntimeError as error:
        if type(error).__name__ != "OutOfMemoryError":  # by name: torch is not imported here
            raise
        return _fail(f"out of memory: {error} {_LESS_MEMORY}")
    return 0


def describe_os_error(error: OSError) -> str:
    """Describe an operating system error: what failed, for which file, and what to do.

    >>> print(describe_os_error(PermissionError(13, "Permission denied", "out.csv")))
    Permission denied: out.csv. Check the path and its permissions.
    """
    where = ": ".join(str(name) for name in (error.filename, error.filename2) if name)
    what = f"{error.strerror or error}{': ' if where else ''}{where}."
    if error.errno in _NO_SPACE:
        return f"{what} Free some space and try again; a fit continues with --resume."
    if isinstance(error, ConnectionError | TimeoutError):
        return f"{what} Check the connection, and run the same command again."
    return f"{what} Check the path and its permissions."


def show(text: str) -> None:
    """Write a result to standard output."""
    _write_line(sys.stdout, text)


def printable(text: str) -> str:
    r"""Return text with control characters escaped, so that it cannot control a terminal.

    >>> printable("id=\x1b[2J1")
    'id=\\x1b[2J1'
    """
    return "".join(
        char.encode("unicode_escape").decode()
        if char not in "\n\t" and unicodedata.category(char) in {"Cc", "Cs"}
        else char
        for char in text
    )


def progress_bar(total: int, *, name: str, unit: str, **options: Any) -> tqdm[Any]:
    """Return a progress bar on standard error; `options` are those of tqdm.

    It is shown on a terminal only, and not with ``--quiet`` or if the variable ``CI`` is set.
    """
    from tqdm import tqdm

    is_silent = os.environ.get("CI") or not logging.getLogger("tiewise").isEnabledFor(logging.INFO)
    disable = True if is_silent else None  # None: shown on terminals only
    bar = tqdm(total=total, desc=name, unit=unit, file=sys.stderr, disable=disable, **options)
    move = bar.update

    def update(n: float | None = 1) -> bool | None:
        for listener in _listeners:
            listener()
        return move(n)

    bar.update = update  # type: ignore[method-assign]
    return bar


def watch_progress(listener: Callable[[], None]) -> None:
    """Call a function, from now on, each time that a progress bar moves, also if none is shown."""
    _listeners.append(listener)


class FoldClock:
    """Log how long a fold takes and how much time is left, from the share of it that is done.

    The first line comes after 20 seconds, each further one after twice the time of the one before,
    but at least every half hour. `n_later` folds are fitted after this one.
    """

    def __init__(self, fold: int = 0, n_later: int = 0) -> None:
        self.fold, self.n_later = fold, n_later
        self._started = self._base = time.monotonic()
        self._base_share, self._next = 0.0, _FIRST_SECONDS

    def begin(self, share: float) -> None:
        """Measure the speed from now, when some share in [0, 1] is done."""
        self._base, self._base_share = time.monotonic(), share

    def estimate(self, share: float) -> tuple[float, float]:
        """Return the seconds of a fold, and those left for this and all later folds."""
        rate = (time.monotonic() - self._base) / (share - self._base_share)
        per_fold = self._base - self._started + rate
        return per_fold, (1 - share) * rate + self.n_later * per_fold

    def update(self, share: float) -> None:
        """Log a line if it is time for one."""
        elapsed = time.monotonic() - self._started
        if elapsed < self._next or share <= self._base_share:
            return
        self._next = elapsed + min(elapsed, _MOST_SECONDS)
        per_fold, left = map(describe_seconds, self.estimate(share))
        named = f" for {self.n_later + 1} folds" if self.n_later else ""
        line = "fold %d: %.0f%% done; about %s per fold, %s left%s"
        _log.info(line, self.fold, 100 * share, per_fold, left, named)

    def end(self) -> None:
        """Log how long the fold took, and the time left for later folds."""
        seconds = time.monotonic() - self._started
        folds = "1 fold" if self.n_later == 1 else f"{self.n_later} folds"
        rest = f"; about {describe_seconds(seconds * self.n_later)} left for {folds}"
        took = describe_seconds(seconds)
        _log.info("fold %d took %s%s", self.fold, took, rest if self.n_later else "")


def describe_seconds(seconds: float) -> str:
    """Describe a time in the unit that suits it.

    >>> [describe_seconds(seconds) for seconds in (4.2, 100, 2000, 9000, 2e5)]
    ['4 s', '100 s', '33 min', '2.5 h', '2.3 days']
    """
    for size, limit, unit in ((1, 120, "s"), (60, 120, "min")):
        if seconds < size * limit:
            return f"{seconds / size:.0f} {unit}"
    hours = seconds / 3600
    return f"{hours:.1f} h" if hours < 48 else f"{hours / 24:.1f} days"


def _fail(message: str) -> int:
    _write_line(sys.stderr, f"error: {message}")
    return 2


def _write_line(stream: TextIO, text: str) -> None:
    stream.write(printable(text) + "\n")


def _prepare_streams() -> None:
    """Make every character writable in any locale, and replace closed streams."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: PTH123, SIM115
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


class _PrintableFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


def _prepare_logging(level: int) -> None:
    is_first = (os.environ.get("RANK") or "0").strip() in {"", "0"}
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_PrintableFormatter("%(message)s"))
    others = logging.INFO if level < logging.INFO else logging.WARNING
    logging.basicConfig(level=others, handlers=[handler], force=True)
    logging.getLogger("tiewise").setLevel(level if is_first else logging.WARNING)
    # bitsandbytes 0.48 to 0.50 warns at import of a missing optional kernel.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
