"""The demo ends with a message when it cannot be shown."""

from importlib.util import find_spec

import pytest


def test_unknown_run_is_named(type_command):
    """A run that does not exist is an error with exit status 2."""
    assert "no run nowhere" in type_command("tiewise demo --run nowhere", status=2).err


def test_missing_gradio_is_named(type_command):
    """Without the extra the message says what to install."""
    if find_spec("gradio"):
        pytest.skip("gradio is installed")
    assert "pip install 'tiewise[demo]'" in type_command("tiewise demo --port 0", status=2).err
