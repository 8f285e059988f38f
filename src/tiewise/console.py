"""What a person at a terminal sees: results, messages, an exit status.

A traceback is for our own bugs; what a person can mend is said in words.
Exit status: 0 done; 2 the person must change something; 130 or 143 interrupted, go on with
``--resume``; 1 our own bug, with its traceback.
"""

from __future__ import annotations

import errno
import logging
import os
import sys
import unicodedata
from collections.abc import Callable
from typing import Any, TextIO

from tiewise.errors import Interrupted, TiewiseError

_LESS_MEMORY = (
    "A fit needs less with --quantization nf4, a smaller --micro-batch-tokens or --max-length, or "
    "--checkpointing trainable; scoring with a smaller --score-batch-tokens."
)
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def run_command(command: Callable[[], Any], *, is_quiet: bool = False) -> int:
    """Run a command and return its exit status.

    Parameters
    ----------
    command
        What to do; it writes its results to standard output.
    is_quiet
        Leave out what is only informative.
    """
    _prepare_streams()
    _prepare_logging(is_quiet=is_quiet)
    try:
        command()
        sys.stdout.flush()
    except TiewiseError as error:
        return _complain(f"{type(error).__name__}: {error}")
    except Interrupted as signal:
        _say(sys.stderr, "Stopped after a checkpoint; go on with --resume.")
        return 128 + int(signal.args[0])
    except KeyboardInterrupt:
        _say(sys.stderr, "Interrupted.")
        return 130
    except BrokenPipeError:  # nobody reads on, as under `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        return _complain(f"{type(error).__name__}: {describe_os_error(error)}")
    except RuntimeError as error:
        if type(error).__name__ != "OutOfMemoryError":  # torch's own, and torch is not loaded here
            raise
        return _complain(f"OutOfMemoryError: {error} {_LESS_MEMORY}")
    return 0


def describe_os_error(error: OSError) -> str:
    """Say what the system refused, about which file, and how to mend it.

    Examples
    --------
    >>> print(describe_os_error(PermissionError(13, "Permission denied", "out.csv")))
    Permission denied: out.csv. Is it the path that is meant, and may you use it so?
    """
    where = ": ".join(str(name) for name in (error.filename, error.filename2) if name)
    what = f"{error.strerror or error}{': ' if where else ''}{where}."
    if error.errno in _NO_ROOM:
        return f"{what} Make room and try again; a fit goes on with --resume."
    return f"{what} Is it the path that is meant, and may you use it so?"


def show(text: str) -> None:
    """Write a result to standard output."""
    _say(sys.stdout, text)


def printable(text: str) -> str:
    r"""Return text in which nothing commands a terminal: control characters are spelled out.

    Examples
    --------
    >>> printable("id=\x1b[2J1")
    'id=\\x1b[2J1'
    """
    if text.isprintable():
        return text
    return "".join(
        char.encode("unicode_escape").decode() if _commands_terminal(char) else char
        for char in text
    )


def _commands_terminal(char: str) -> bool:
    return char not in "\n\t" and unicodedata.category(char) in {"Cc", "Cs"}


def _complain(message: str) -> int:
    _say(sys.stderr, message)
    return 2


def _say(stream: TextIO, text: str) -> None:
    stream.write(printable(text) + "\n")


def _prepare_streams() -> None:
    """Let every character be written, whatever the locale, also where a stream is closed."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: PTH123, SIM115
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


class _PrintableFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


def _prepare_logging(*, is_quiet: bool) -> None:
    is_first = os.environ.get("RANK", "0") == "0"
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_PrintableFormatter("%(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    level = logging.WARNING if is_quiet or not is_first else logging.INFO
    logging.getLogger("tiewise").setLevel(level)
    # It warns of an optional kernel at every import; what it computes is the same without.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
