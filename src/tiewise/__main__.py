"""``python -m tiewise``: the command line, and what its exit status means."""

import os
import sys


def run() -> None:
    """Run the command line and exit with its status."""
    if os.environ.get("NO_COLOR"):  # tyro asks a variable of its own, when it is imported
        os.environ.setdefault("PYTHON_TYRO_ANSI_CODES", "False")
    from tiewise.cli import main

    sys.exit(main())


if __name__ == "__main__":
    run()
