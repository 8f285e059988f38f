"""A language model predicts the same bytes in units as in one process."""

from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fitting import configure
from loaded_runs import open_tiny
from tiewise.cluster.output import Output
from tiewise.cluster.prediction import predict_units
from tiewise.data.pairs import TEXT_COLUMNS
from tiewise.data.simulation.simulate import simulate
from tiewise.files import write_json
from tiewise.judges.prediction import PredictOptions, predict_file
from tiewise.judges.streaming import write_table
from tiewise.runs.folder import start_run

GROUPS = (9, 4, 13)


@pytest.fixture
def run(tmp_path, cache_dir):
    """Write a run with one finished fold of random weights."""
    run = start_run(tmp_path / "artifacts", configure(dtype="float32", lora_r=4), name="done")
    open_tiny("tiny", cache_dir, dtype="float32").save(run.fold(0).adapter_dir)
    write_json(run.fold(0).oof_path, {})
    write_json(run.fold(0).scores_path, {})
    return run


def test_tiny_units_equal_one_process(run, cache_dir, tmp_path):
    """Joined to csv, parquet and jsonl, parts have the bytes of a prediction by one process."""
    pairs = simulate(sum(GROUPS), seed=2)
    texts = {name: [json.dumps(turns) for turns in pairs[name]] for name in TEXT_COLUMNS}
    table = pa.table({"id": pairs["id"].tolist(), **texts})
    data = tmp_path / "pairs.parquet"
    with pq.ParquetWriter(data, table.schema) as writer:
        for number, size in enumerate(GROUPS):
            writer.write_table(table.slice(sum(GROUPS[:number]), size))
    options = PredictOptions(chunk_rows=4, unit_rows=8)
    done = predict_units(
        run, str(data), str(tmp_path / "out"), cache_dir=cache_dir, options=options
    )
    assert done.n_scored == 5
    for suffix in (".csv", ".parquet", ".jsonl"):
        alone, units = tmp_path / f"alone{suffix}", tmp_path / f"units{suffix}"
        found = predict_file(run, data, alone, cache_dir=cache_dir, options=options)
        write_table(Output(tmp_path / "out").read(), units)
        assert units.read_bytes() == alone.read_bytes()
        assert found.facts == pytest.approx(done.facts, rel=1e-12)
    assert {record.device for record in Output(tmp_path / "out").read_manifest()} == {"cpu"}
