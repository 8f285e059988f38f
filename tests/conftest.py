"""No test reaches the network, and Hypothesis is the same on every machine.

pytest-socket lets a test and its fixtures reach loopback alone; pyproject.toml says so. What a test
starts in another process is told that there is no hub. The environment variable TIEWISE_EXAMPLES
says how many examples a law is tried on; the session `pythons` tries more.
"""

import os

import hypothesis

os.environ.setdefault("HF_HUB_OFFLINE", "1")
hypothesis.settings.register_profile(
    "tiewise",
    deadline=None,
    derandomize=True,
    print_blob=True,
    max_examples=int(os.environ.get("TIEWISE_EXAMPLES", "8")),
)
hypothesis.settings.load_profile("tiewise")
