"""The Trainer says what it cannot do before the first step, and looks at every gradient."""

import pytest
import transformers

from fitting import configure, spoil_gradients
from tiewise.errors import ConfigError, NumericsError
from tiewise.training.train import training_arguments


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"optimizer": "nonsense"}, "--optimizer is nonsense; expected"),
        ({"report_to": ("nothing",)}, "--report-to nothing"),
        ({"report_to": ("wandb",)}, "--report-to wandb"),
    ],
)
def test_an_unknown_optimizer_or_tracker_is_named(tmp_path, fields, message):
    """What transformers does not know, or does not find installed, is a message."""
    with pytest.raises(ConfigError, match=message):
        training_arguments(configure(**fields).train, tmp_path, dtype="float32", is_cpu=True)


@pytest.mark.parametrize("max_grad_norm", [0.0, 1.0])
def test_a_gradient_is_looked_at_whether_or_not_it_is_clipped(fitter, monkeypatch, max_grad_norm):
    """Without clipping, a gradient that is not finite stops the fit as well."""
    spoil_gradients(monkeypatch, float("nan"))
    with pytest.raises(NumericsError, match="gradient"):
        fitter("run", configure(n_epochs=1, max_grad_norm=max_grad_norm))


def test_without_clipping_the_norm_is_logged_all_the_same(fitter):
    """A limit of 0 leaves gradients as they are, and the history as it is."""
    import json

    norms = []
    for name, limit in (("open", 0.0), ("wide", 1e9)):
        folder, _ = fitter(name, configure(n_epochs=1, max_grad_norm=limit))
        lines = folder.history_path.read_text().splitlines()
        norms.append([json.loads(line)["grad_norm"] for line in lines])
    assert norms[0] == norms[1]


def test_one_process_takes_one_of_several_gpus(monkeypatch, tmp_path):
    """The Trainer would deal out a packed batch, which is no list of rows, to all it sees."""
    monkeypatch.setattr(transformers.TrainingArguments, "n_gpu", 2)
    arguments = training_arguments(configure().train, tmp_path, dtype="float32", is_cpu=True)
    assert arguments._n_gpu == 1
