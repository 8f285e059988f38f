"""A run of data without ties predicts none, however its model is loaded."""

import pandas as pd
import pytest

from fitting import configure
from tiewise.crossfit import cross_fit
from tiewise.data.labels import PROB_COLUMNS
from tiewise.data.simulation.simulate import simulate
from tiewise.errors import ModelError
from tiewise.judges.judge import Judge
from tiewise.models.backbones import resolve_backbone
from tiewise.serving.export import export_adapter, export_run
from tiewise.serving.server.engine import Engine, Limits

NEW = simulate(8, seed=5)


@pytest.fixture(scope="module", params=["baseline", "tiny"])
def run(request, tmp_path_factory):
    """Fit one fold to votes without ties."""
    folder = tmp_path_factory.mktemp("two")
    pairs = simulate(90, seed=3)
    pairs[pairs["label"] != 2].to_parquet(folder / "votes.parquet")
    fields = {"max_length": 64, "dtype": "float32"} if request.param == "tiny" else {}
    config = configure(
        request.param, data=(str(folder / "votes.parquet"),), n_splits=2,
        no_tie_sources=("simulated",), **fields,
    )  # fmt: skip
    return cross_fit(config, [0], folder / "artifacts", name="two")[0]


def test_folder_of_model_predicts_no_ties(run):
    """The folder of the model, which a push uploads, gives the probabilities of the run."""
    artifacts = run.path.parent.parent
    expected = Judge.from_pretrained("two", artifacts=artifacts, device="cpu").predict(NEW)
    judge = Judge.from_pretrained(run.fold(0).adapter_dir, artifacts=artifacts, device="cpu")
    found = judge.predict(NEW)
    assert (found["prob_tie"] == 0).all()
    pd.testing.assert_frame_equal(found[PROB_COLUMNS], expected[PROB_COLUMNS])


def test_card_names_two_outcomes(run):
    """The card says that P(tie) is 0, and what uniform guessing of two outcomes scores."""
    text = (run.fold(0).adapter_dir / "README.md").read_text("utf-8")
    assert "three outcomes" not in text
    assert "P(tie) is always 0" in text
    assert "uniform guessing has 0.693" in text
    assert "writes a plain classifier" not in text


def test_server_refuses_rows_of_ids(run):
    """Rows of ids are refused with the reason, as their third number is not trained."""
    judge = Judge.from_pretrained("two", artifacts=run.path.parent.parent, device="cpu")
    engine = Engine(judge, Limits())
    is_features = run.config.model.backbone == "baseline"
    match = "does not score ids of tokens" if is_features else "was fitted to data without ties"
    with pytest.raises(ModelError, match=match) as refused:
        engine.check_rows([[1, 2]])
    engine.close()
    assert "Use /judge" in str(refused.value)


def test_export_is_refused(run, tmp_path, cache_dir):
    """No export is written, because other programs would use the untrained output for a tie."""
    options = {"cache_dir": cache_dir, "device": "cpu"}
    is_features = run.config.model.backbone == "baseline"
    match = "no network to export" if is_features else "--no-tie-sources, without a name"
    with pytest.raises(ModelError, match=match):
        export_run(run, tmp_path / "out", **options)
    if not is_features:
        backbone_dir = resolve_backbone(run.config.model.backbone, cache_dir=cache_dir)
        with pytest.raises(ModelError, match="output for a tie is not trained"):
            export_adapter(run.fold(0).adapter_dir, backbone_dir, tmp_path / "out")
    assert not (tmp_path / "out").exists()
