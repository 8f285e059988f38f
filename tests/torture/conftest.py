"""A fit that nothing happened to, for every test that asks what a fault changes."""

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
    """Give the digests of what the undisturbed fit ended with."""
    return outcome(workplace, "straight")
