"""``python -m tiewise``: the command line."""

import os
import signal
import sys


def run() -> None:
    """Run the command line and exit with its status."""
    if os.environ.get("NO_COLOR"):  # tyro reads its own variable, at its import
        os.environ.setdefault("PYTHON_TYRO_ANSI_CODES", "False")
    # An exception in the middle of an import can be taken for a missing module.
    is_default = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if is_default:
        signal.signal(signal.SIGINT, _end)
    from tiewise.cli import main

    if is_default:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.exit(main())


def _end(*_: object) -> None:
    os.write(2, b"Interrupted.\n")
    os._exit(130)


if __name__ == "__main__":
    run()
