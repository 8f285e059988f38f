"""``python -m tiewise``: the command line."""

import os
import sys


def run() -> None:
    """Run the command line and exit with its status."""
    if os.environ.get("NO_COLOR"):  # tyro reads its own variable, at its import
        os.environ.setdefault("PYTHON_TYRO_ANSI_CODES", "False")
    from tiewise.cli import main

    sys.exit(main())


if __name__ == "__main__":
    run()
