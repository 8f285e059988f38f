"""Commands that need an extra name the line that installs it."""

from importlib.util import find_spec

import pytest


@pytest.mark.parametrize(
    ("module", "line", "extra"),
    [
        ("matplotlib", "tiewise report first", "pip install 'tiewise[plot]'"),
        ("torch", "tiewise fit --preset quickstart --run second", "pip install 'tiewise[train]'"),
    ],
)
def test_missing_extra_is_named(type_command, module, line, extra):
    """Without the extra the command ends with exit status 2 and says what to install."""
    if find_spec(module):
        pytest.skip(f"{module} is installed")
    type_command("tiewise simulate --n 60 --out train.csv --overwrite")
    type_command("tiewise fit --preset baseline --data train.csv --run first --overwrite")
    assert extra in type_command(line, status=2).err
