"""An uninterrupted fit, to compare with fits that had a fault."""

from pathlib import Path

import pytest

from faults import fit, outcome
from tiewise.data.simulation.simulate import simulate, write_simulation

LONGEST = ("test_kills.py", "test_damage.py", "test_frozen.py")


def pytest_collection_modifyitems(items):
    """Run the slowest files first, so that parallel workers finish together."""
    items.sort(key=lambda item: item.path.name not in LONGEST)


@pytest.fixture(scope="session")
def workplace(tmp_path_factory):
    """Make a folder with sixty pairs and one finished run, `straight`."""
    folder = tmp_path_factory.mktemp("workplace")
    write_simulation(simulate(60, seed=0), folder / "train.csv")
    straight = fit(folder, "straight")
    assert straight.end() == 0, straight.messages()
    return folder


@pytest.fixture(scope="session")
def undisturbed(workplace: Path):
    """Return the digests of the files of the uninterrupted fit."""
    return outcome(workplace, "straight")
