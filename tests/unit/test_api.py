"""The Python functions that need no fit."""

from __future__ import annotations

import pytest

import tiewise as tw
from tiewise.data.simulation.simulate import simulate

PAIRS = simulate(60, seed=0)


def test_audit_takes_file_or_table(tmp_path):
    """A file, several paths, and the table read from the file have the same findings and counts."""
    tw.write_pairs(PAIRS, tmp_path / "votes.csv")
    by_file = tw.audit(tmp_path / "votes.csv")
    assert by_file.findings
    assert by_file.to_dict() == tw.audit([str(tmp_path / "votes.csv")]).to_dict()
    by_table = tw.audit(tw.read_pairs(tmp_path / "votes.csv"))
    for section in ("findings", "rows", "classes", "leakage"):
        assert by_table.to_dict()[section] == by_file.to_dict()[section]


def test_audit_refuses_other_objects():
    """An object that is no table is a PairsError."""
    with pytest.raises(tw.PairsError):
        tw.audit(7)
