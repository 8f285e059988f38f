"""The Trainer refuses unknown names before the first step and checks every gradient."""

import itertools
from types import SimpleNamespace

import pytest
import torch
import transformers

from fitting import configure, spoil_gradients
from tiewise.errors import ConfigError, NumericsError
from tiewise.training.train import training_arguments
from tiewise.training.trainer import StepTrainer


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"optimizer": "nonsense"}, "--optimizer is nonsense; expected"),
        ({"report_to": ("nothing",)}, "--report-to nothing"),
        ({"report_to": ("wandb",)}, "--report-to wandb"),
    ],
)
def test_unknown_names_are_refused(tmp_path, fields, message):
    """The message names an unknown optimizer, and an unknown or missing tracker."""
    with pytest.raises(ConfigError, match=message):
        training_arguments(configure(**fields).train, tmp_path, dtype="float32", is_cpu=True)


@pytest.mark.parametrize("max_grad_norm", [0.0, 1.0])
def test_unclipped_gradients_are_checked(fitter, monkeypatch, max_grad_norm):
    """A gradient that is not finite stops the fit with and without clipping."""
    spoil_gradients(monkeypatch, float("nan"))
    with pytest.raises(NumericsError, match="gradient"):
        fitter("run", configure(n_epochs=1, max_grad_norm=max_grad_norm))


def test_unclipped_norms_are_logged(fitter):
    """Without a limit, and with one that is never reached, the logged norms are equal."""
    import json

    norms = []
    for name, limit in (("open", 0.0), ("wide", 1e9)):
        folder, _ = fitter(name, configure(n_epochs=1, max_grad_norm=limit))
        lines = folder.history_path.read_text().splitlines()
        norms.append([json.loads(line)["grad_norm"] for line in lines])
    assert norms[0] == norms[1]


def test_steps_follow_limit_and_warm_up(fitter, monkeypatch):
    """The optimizer gets gradients of at most the limit, and rates that rise over the warm-up."""
    norms, rates, step = [], [], torch.optim.SGD.step

    def record(self, *arguments, **options):
        [group] = self.param_groups
        grads = [part.grad.flatten() for part in group["params"] if part.grad is not None]
        norms.append(float(torch.cat(grads).norm()))
        rates.append(group["lr"])
        return step(self, *arguments, **options)

    monkeypatch.setattr(torch.optim.SGD, "step", record)
    fields = {"optimizer": "sgd", "weight_decay": 0.0, "learning_rate": 0.01, "batch_size": 16}
    fields |= {"max_grad_norm": 1e-3, "n_warmup_steps": 4, "schedule": "constant"}
    fitter("run", configure(n_epochs=2, **fields))
    assert norms == pytest.approx([1e-3] * 6, rel=1e-2)
    assert rates == pytest.approx([0, 0.0025, 0.005, 0.0075, 0.01, 0.01])


def test_one_process_uses_one_gpu(monkeypatch, tmp_path):
    """With several GPUs the Trainer would split packed batches, which cannot be split."""
    monkeypatch.setattr(transformers.TrainingArguments, "n_gpu", 2)
    arguments = training_arguments(configure().train, tmp_path, dtype="float32", is_cpu=True)
    assert arguments._n_gpu == 1


def test_masks_differ_by_step_and_process():
    """Each process of each step of each seed draws its own dropout masks, equal when repeated."""

    def draw_mask(seed, step, process):
        trainer = SimpleNamespace(
            train_config=SimpleNamespace(seed=seed),
            state=SimpleNamespace(global_step=step),
            args=SimpleNamespace(process_index=process),
        )
        StepTrainer._seed_step(trainer)
        return tuple(torch.dropout(torch.ones(64), 0.5, train=True).tolist())

    places = list(itertools.product(range(3), repeat=3))
    masks = [draw_mask(*place) for place in places]
    assert len(set(masks)) == len(places)
    assert [draw_mask(*place) for place in reversed(places)] == masks[::-1]
