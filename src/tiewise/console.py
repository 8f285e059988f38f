"""Terminal output: results, messages, progress bars, exit statuses.

Exit status: 0 done; 2 an error that the caller can correct; 130 or 143 interrupted, continue with
``--resume``; 1 a bug in tiewise, with its traceback.
"""

from __future__ import annotations

import errno
import logging
import os
import sys
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
_NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def run_command(command: Callable[[], Any], *, level: int = logging.INFO) -> int:
    """Run a command and return its exit status; `level` is the lowest of messages shown."""
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
        _write_line(sys.stderr, "Interrupted.")
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
    return tqdm(total=total, desc=name, unit=unit, file=sys.stderr, disable=disable, **options)


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
