"""An uninterrupted fit, to compare with fits that had a fault."""

from pathlib import Path

import pytest

from faults import fit, outcome
from tiewise.data.simulation.simulate import simulate, write_simulation


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
