"""Settings of Hypothesis and of the network for all tests.

pytest-socket (see pyproject.toml) allows loopback addresses only; child processes run offline.
TIEWISE_EXAMPLES sets the number of examples per property; the session `pythons` tries more.
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
