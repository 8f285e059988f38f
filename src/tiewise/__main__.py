"""``python -m tiewise``: the command line, and what its exit status means."""

import sys


def run() -> None:
    """Run the command line and exit with its status."""
    from tiewise.cli import main

    sys.exit(main())


if __name__ == "__main__":
    run()
