"""Who answered is learned from, alike in every layout, and forgotten after the fit."""

import json

import numpy as np
import pytest
from safetensors.torch import load_file

from fitting import Fitter, configure
from launched import fit
from tiewise.errors import PairsError
from tiewise.fitting.examples import open_backbone
from tiewise.network.model import load_classifier
from tiewise.pairs.labels import PROB_COLUMNS
from tiewise.predicting.scoring import predict_pairs
from tiewise.runs.folder import FoldFolder
from tiewise.simulation.simulate import simulate

FIELDS = {"batch_size": 7, "n_epochs": 1, "max_grad_norm": 0.0, "both_orders": True, "swap": False}
EXACT = FIELDS | {"dtype": "float64", "model_names_weight": 0.5}
MODELS = np.array(["vicuna", "alpaca", "gpt-4", None], dtype=object)


def named_pairs(seed=0):
    """Draw pairs whose rows name one of three models, or none, on each side."""
    generator = np.random.default_rng(seed)
    pairs = simulate(20, seed=0)
    sides = MODELS[generator.integers(0, 4, (2, 20))]
    return pairs.assign(model_a=sides[0], model_b=sides[1])


@pytest.fixture(scope="module")
def fitter(tmp_path_factory, cache_dir):
    """Fit a few pairs with names."""
    return Fitter(tmp_path_factory.mktemp("fits"), cache_dir, named_pairs())


def steps(folder):
    """Return loss and gradient norm of every step."""
    lines = [json.loads(line) for line in folder.history_path.read_text().splitlines()]
    return np.array([(line["loss"], line["grad_norm"]) for line in lines])


@pytest.fixture(scope="module")
def whole(fitter):
    """Fit with each step in one piece."""
    return fitter("whole", configure(n_micro_batches=1, layout="padded", **EXACT))


def test_the_gradient_is_the_same_however_a_step_is_split(fitter, whole):
    """The term belongs to rows, so packing and splitting change nothing."""
    folder, _ = fitter("split", configure(n_micro_batches=3, layout="packed", **EXACT))
    np.testing.assert_allclose(steps(folder), steps(whole[0]), rtol=0, atol=1e-9)


def test_the_loss_holds_so_many_times_the_guess(fitter, whole):
    """At the first step a guess among three costs log 3 a side, where the side is known."""
    first = {0.5: steps(whole[0])[0, 0]}
    for weight in (0.0, 1.5):
        config = configure(**EXACT | {"model_names_weight": weight})
        first[weight] = steps(fitter(f"weight {weight}", config)[0])[0, 0]
    np.testing.assert_allclose(first[1.5] - first[0.0], 3 * (first[0.5] - first[0.0]), rtol=1e-9)
    assert 0.3 * np.log(3) < (first[1.5] - first[0.0]) / 1.5 < 1.3 * np.log(3)


def test_the_second_head_is_in_no_file_and_names_are_no_input(fitter, whole, cache_dir):
    """What comes back from the folder has one head, and predicts whoever answered alike."""
    folder, predictions = whole
    tensors = load_file(folder.adapter_dir / "adapter_model.safetensors")
    assert not [name for name in tensors if "names" in name]
    backbone = open_backbone(configure(**EXACT), cache_dir)
    classifier = load_classifier(folder.adapter_dir, backbone.path)
    assert classifier.names_head is None
    held_out = fitter.pairs[np.arange(20) % 5 == 0].assign(model_a="somebody else", model_b=None)
    found = predict_pairs(
        classifier, held_out, backbone.tokenizer, backbone.template, is_swapped=False
    )
    np.testing.assert_allclose(found[PROB_COLUMNS], predictions[PROB_COLUMNS], rtol=0, atol=1e-6)


def test_a_resumed_fit_keeps_its_second_head(fitter, whole):
    """Broken off and gone on with, the history is that of the whole fit."""
    fields = EXACT | {"n_micro_batches": 1, "layout": "padded", "save_steps": 1}
    fit(fitter, {"name": "resumed", "fields": fields, "stop_after": 2})
    fit(fitter, {"name": "resumed", "fields": fields, "resume": True})
    np.testing.assert_array_equal(
        steps(FoldFolder(fitter.folder / "resumed" / "fold0")), steps(whole[0])
    )


def test_rows_without_names_are_refused(cache_dir, tmp_path):
    """There would be nothing to learn, and the flag is named."""
    nameless = Fitter(tmp_path, cache_dir, simulate(20, seed=0).assign(model_a=None, model_b=None))
    with pytest.raises(PairsError, match="--model-names-weight"):
        nameless("none", configure(**EXACT))
