"""A judge as a step of a pipeline of Ray Data."""

import pandas as pd
import pyarrow.parquet as pq
import pytest

import tiewise as tw
from tiewise.data.simulation.simulate import simulate

pytest.importorskip("ray.data")


def test_pipeline_equals_predict(cluster, tmp_path):
    """Ray Data returns the probabilities of predict for each id, and the columns of the input."""
    table = simulate(50, seed=2)[["id", "prompt", "response_a", "response_b"]]
    source = tmp_path / "pairs.parquet"
    table.to_parquet(source, index=False)
    words = ("-m", "data_pipeline", cluster.address, str(source), str(tmp_path / "out"))
    driver = cluster.drive(*words, cwd=tmp_path)
    _, messages = driver.communicate(timeout=120)
    assert driver.returncode == 0, messages
    written = pq.read_table(tmp_path / "out").to_pandas(ignore_metadata=True)
    found = written.sort_values("id", ignore_index=True)
    expected = tw.Judge("shipped").predict(table).sort_values("id", ignore_index=True)
    pd.testing.assert_frame_equal(found[expected.columns], expected)
    assert [*found] == [*table, *expected.columns[1:]]
