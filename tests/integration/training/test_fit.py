"""One fold is fitted; its result depends only on its inputs."""

import json
import logging
import os
import re
import shutil
import signal

import numpy as np
import pandas as pd
import pytest
import torch

from fitting import configure, spoil_gradients
from tiewise.errors import DeviceError, Interrupted, ModelError, NumericsError, RunError
from tiewise.files import digest_file
from tiewise.models.build import load_classifier
from tiewise.models.model import PairClassifier
from tiewise.models.state import load_trainable_weights
from tiewise.runs import checkpoints
from tiewise.training import callbacks
from tiewise.training.fit import require_device
from tiewise.training.steps import make_examples, open_backbone
from tiewise.training.trainer import StepTrainer

EXACT = {"dtype": "float64"}


def history(folder):
    lines = folder.history_path.read_text().splitlines()
    return pd.DataFrame([json.loads(line) for line in lines])


def weights(folder):
    return digest_file(folder.adapter_dir / "adapter_model.safetensors")


def assert_equal_histories(first, second, tolerance):
    columns = ["step", "loss", "grad_norm", "learning_rate", "rows", "tokens"]
    np.testing.assert_allclose(
        history(first)[columns], history(second)[columns], rtol=tolerance, atol=tolerance
    )


def test_tiny_preset_logs_each_step(fitter, caplog):
    """48 rows in steps of 4, two epochs: 24 steps, each logged; 12 held-out rows are predicted."""
    with caplog.at_level(logging.INFO, "tiewise"):
        folder, predictions = fitter("tiny")
    assert "24 steps of 4 pairs; processes: 1" in caplog.text
    lines = history(folder)
    assert list(lines.columns) == ["step", "loss", "grad_norm", "learning_rate", "rows", "tokens"]
    assert lines["step"].tolist() == list(range(1, 25))
    assert lines["rows"].sum() == 2 * 48
    np.testing.assert_allclose(predictions[["prob_a", "prob_b", "prob_tie"]].sum(axis=1), 1)
    assert len(predictions) == 12


@pytest.mark.parametrize("micro_batch_tokens", [1, 300])
@pytest.mark.parametrize("layout", ["padded", "sorted", "packed"])
def test_micro_batches_do_not_change_fits(fitter, micro_batch_tokens, layout):
    """Losses and gradient norms do not depend on layout and size of micro-batches."""
    fields = EXACT | {"batch_size": 8, "n_epochs": 1}
    whole, _ = fitter("whole", configure(micro_batch_tokens=10**6, layout="padded", **fields))
    fields |= {"micro_batch_tokens": micro_batch_tokens}
    split, _ = fitter("split", configure(layout=layout, **fields))
    assert_equal_histories(whole, split, 1e-9)


def test_time_left_is_logged(fitter, caplog, monkeypatch):
    """From the second measured step on, the time of a fold and the time left are known."""
    monkeypatch.setattr("tiewise.console._FIRST_SECONDS", 0.0)
    with caplog.at_level(logging.INFO, "tiewise"):
        fitter("timed")
    assert re.search(r"fold 0: \d+% done; about \d+ s per fold, \d+ s left", caplog.text)


def test_checkpointing_does_not_change_fits(fitter, caplog, monkeypatch):
    """Recomputed activations, which do take place, give the same losses and gradient norms."""
    modes = []
    checkpoint = PairClassifier.checkpoint
    monkeypatch.setattr(
        PairClassifier,
        "checkpoint",
        lambda self, mode: (modes.append(mode), checkpoint(self, mode)),
    )
    plain, _ = fitter("plain", configure(checkpointing="none", n_epochs=1, **EXACT))
    with caplog.at_level(logging.INFO, "tiewise"):
        recomputed, _ = fitter(
            "recomputed", configure(checkpointing="trainable", n_epochs=1, **EXACT)
        )
    assert set(modes) == {"none", "trainable"}
    assert "checkpointing: trainable (configured)" in caplog.text
    assert_equal_histories(plain, recomputed, 1e-9)


def test_checkpointing_choice_is_logged(fitter, caplog):
    """A small fit recomputes nothing, and the log shows the estimate."""
    with caplog.at_level(logging.INFO, "tiewise"):
        fitter("run", configure(n_epochs=1))
    assert "checkpointing: none (to keep all activations takes" in caplog.text


def test_fits_repeat_bit_for_bit(fitter):
    """Equal inputs give equal adapters and predictions; another seed gives others."""
    (first, one), (second, two) = fitter("first"), fitter("second")
    assert weights(first) == weights(second)
    pd.testing.assert_frame_equal(one, two)
    other, _ = fitter("other", configure(seed=1))
    assert weights(first) != weights(other)


def test_dropout_is_repeatable(fitter):
    """A fit with dropout gives equal weights when repeated, and others than one without."""
    config = configure(lora_dropout=0.2, n_epochs=1)
    (first, _), (second, _) = fitter("first", config), fitter("second", config)
    assert weights(first) == weights(second)
    without, _ = fitter("without", configure(n_epochs=1))
    assert weights(first) != weights(without)


def test_loss_is_mean_cross_entropy(fitter, cache_dir):
    """The first logged loss equals numpy's, from logits of a separate forward pass."""
    config = configure(batch_size=60, n_epochs=1, micro_batch_tokens=700, **EXACT)
    folder, _ = fitter("run", config)
    from tiewise.models.build import build_classifier
    from tiewise.models.scoring import score_rows

    backbone = open_backbone(config, cache_dir)
    train = fitter.pairs[np.arange(60) % 5 != 0]
    examples = make_examples(config, train, backbone, cache_dir=cache_dir)
    classifier = build_classifier(config.model, backbone.path, seed=config.train.seed)
    logits = score_rows(classifier, examples.rows)
    shifted = logits - logits.max(axis=1, keepdims=True)
    log_probs = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    expected = -np.mean(log_probs[np.arange(48), train["label"].to_numpy(int)])
    assert history(folder)["loss"][0] == pytest.approx(expected, rel=1e-6)


def test_weight_two_equals_two_copies(fitter):
    """In steps of all rows, a row of weight 2 equals two copies of the row."""
    fields = EXACT | {"n_epochs": 2, "micro_batch_tokens": 10**6, "batch_size": 200}
    pairs = fitter.pairs
    fitter.pairs = pairs.assign(weight=np.where(np.arange(60) % 2, 2.0, 1.0))
    weighted, _ = fitter("weighted", configure(**fields))
    order = np.repeat(np.arange(60), np.where(np.arange(60) % 2, 2, 1))
    copies = pairs.iloc[np.r_[order]].reset_index(drop=True)
    held_out = np.flatnonzero(order % 5 == 0)
    kept = np.flatnonzero(order % 5 != 0)
    from tiewise.runs.fold_lock import FoldTask
    from tiewise.runs.folder import FoldFolder
    from tiewise.training.fit import fit_fold

    folder = FoldFolder(fitter.folder / "copied" / "fold0")
    task = FoldTask(folder, 0, "d", fitter.cache_dir)
    fit_fold(configure(**fields), copies.iloc[kept], copies.iloc[held_out], task)
    np.testing.assert_allclose(history(weighted)["loss"], history(folder)["loss"], rtol=1e-9)


def test_one_hot_soft_labels_equal_labels(fitter):
    """Soft labels of 0 and 1 give the weights that hard labels give."""
    hard, _ = fitter("hard", configure(n_epochs=1))
    one_hot = np.eye(3)[fitter.pairs["label"].to_numpy(int)]
    columns = dict(zip(["prob_a", "prob_b", "prob_tie"], one_hot.T, strict=True))
    fitter.pairs = fitter.pairs.assign(**columns)
    soft, _ = fitter("soft", configure(n_epochs=1))
    assert weights(hard) == weights(soft)


def test_steps_contain_both_orders(fitter, cache_dir):
    """Each step contains its pairs twice, once swapped, with swapped targets."""
    config = configure(both_orders=True, n_epochs=1)
    folder, _ = fitter("both", config)
    assert history(folder)["rows"].sum() == 2 * 48
    assert history(folder)["rows"][0] == 8
    backbone = open_backbone(config, cache_dir)
    examples = make_examples(config, fitter.pairs, backbone, cache_dir=cache_dir)
    np.testing.assert_array_equal(
        examples.targets.probs[60:], examples.targets.probs[:60, [1, 0, 2]]
    )
    assert examples.rows.lengths[:60].tolist() == examples.rows.lengths[60:].tolist()
    assert examples.ids.tolist() == [*fitter.pairs["id"]] * 2


def test_head_has_own_learning_rate(fitter, monkeypatch):
    """At the first step the optimizer has each tensor at the learning rate of its part."""
    seen = {}
    training_step = StepTrainer.training_step

    def look(self, *arguments, **options):
        names = {id(part): name for name, part in self.classifier.trainable_parameters()}
        for group in self.optimizer.param_groups:
            seen.update({names[id(part)]: group["lr"] for part in group["params"]})
        assert seen.keys() == set(names.values())
        return training_step(self, *arguments, **options)

    monkeypatch.setattr(StepTrainer, "training_step", look)
    fitter("rates", configure(head_learning_rate=5e-3, schedule="constant", n_epochs=1))
    for name, rate in seen.items():
        assert rate == (1e-3 if ".layers." in name else 5e-3), name


class Stop(Exception):
    pass


def stop_after(monkeypatch, n_steps):
    training_step = StepTrainer.training_step

    def step_or_stop(self, *arguments, **options):
        if self.state.global_step == n_steps:
            raise Stop
        return training_step(self, *arguments, **options)

    monkeypatch.setattr(StepTrainer, "training_step", step_or_stop)


@pytest.mark.parametrize(
    ("n_steps", "optimizer"),
    [(0, "adamw_torch"), (5, "adamw_torch"), (23, "adamw_torch"), (12, "adamw_8bit")],
)
def test_resumed_fits_equal_uninterrupted_ones(fitter, n_steps, optimizer):
    """Interrupted at any step and resumed, a fit gives the same adapter and history."""
    config = configure(lora_dropout=0.1, optimizer=optimizer, schedule="cosine", n_warmup_steps=3)
    straight, _ = fitter("straight", config)
    with pytest.MonkeyPatch.context() as patch:
        stop_after(patch, n_steps)
        with pytest.raises(Stop):
            fitter("broken", config)
    resumed, _ = fitter("broken", config, resume=True)
    assert weights(resumed) == weights(straight)
    pd.testing.assert_frame_equal(history(resumed), history(straight))


def test_history_lines_average_steps(fitter):
    """A line has the mean loss and the counts of its steps, also across an interruption."""
    straight, _ = fitter("straight", configure(**EXACT))
    config = configure(log_steps=7, **EXACT)
    with pytest.MonkeyPatch.context() as patch:
        stop_after(patch, 11)
        with pytest.raises(Stop):
            fitter("broken", config)
    coarse, _ = fitter("broken", config, resume=True)
    lines, steps = history(coarse), history(straight)
    assert lines["step"].tolist() == [7, 14, 21, 24]
    parts = [steps[start:end] for start, end in ((0, 7), (7, 14), (14, 21), (21, 24))]
    np.testing.assert_allclose(lines["loss"], [part["loss"].mean() for part in parts], rtol=1e-12)
    assert lines["rows"].tolist() == [part["rows"].sum() for part in parts]
    assert lines["tokens"].tolist() == [part["tokens"].sum() for part in parts]


def test_finished_training_is_not_repeated(fitter):
    """With a checkpoint of the last step and no adapter, resuming only writes the adapter."""
    folder, _ = fitter("run")
    before = weights(folder)
    (folder.adapter_dir / "adapter_model.safetensors").unlink()
    fitter("run", resume=True)
    assert weights(folder) == before


def test_resume_without_checkpoint_warns(fitter, caplog):
    """Without a checkpoint, a resumed fit starts at step 0 and logs a warning."""
    with caplog.at_level(logging.WARNING):
        fitter("run", configure(n_epochs=1), resume=True)
    assert "starting at step 0" in caplog.text


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"seed": 1}, r"config\.train\.seed"),
        ({"batch_size": 5}, r"config\.train\.batch_size"),
        ({"lora_alpha": 1.0}, r"config\.model\.lora_alpha"),
        ({"learning_rate": 1.0}, r"config\.train\.learning_rate"),
        ({"max_length": 100}, r"config\.template\.max_length"),
        ({"backbone": "tiny:1"}, "config.model.backbone"),
    ],
)
def test_resume_refuses_another_configuration(fitter, change, named):
    """The message names the first field that differs."""
    fitter("run", configure(n_epochs=1))
    with pytest.raises(RunError, match=named):
        fitter("run", configure(n_epochs=1, **change), resume=True)


@pytest.mark.parametrize("change", [{"data_digest": "other"}, {"fold": 1}])
def test_resume_refuses_other_data(fitter, change):
    """Another digest of the data, and another fold, are refused."""
    fitter("run", configure(n_epochs=1))
    with pytest.raises(RunError, match=next(iter(change)).removesuffix("_digest")):
        fitter("run", configure(n_epochs=1), resume=True, **change)


def test_foreign_checkpoints_are_skipped(fitter, caplog):
    """Intact checkpoints of another fit are skipped with a warning."""
    config = configure(n_epochs=1, save_steps=4)
    folder, _ = fitter("run", config)
    before = weights(folder)
    other, _ = fitter("other", configure(n_epochs=1, save_steps=4, lora_r=2))
    shutil.rmtree(folder.checkpoints_dir)
    shutil.copytree(other.checkpoints_dir, folder.checkpoints_dir)
    shutil.rmtree(folder.adapter_dir)
    with caplog.at_level(logging.WARNING):
        fitter("run", config, resume=True)
    assert "manifest.json says fit" in caplog.text
    assert "starting at step 0" in caplog.text
    assert weights(folder) == before


def test_unfitting_tensors_are_refused():
    """Tensors of other names or shapes are refused."""
    model = torch.nn.Linear(2, 3)
    for wrong in ({}, {"weight": torch.zeros(2, 2), "bias": torch.zeros(3)}):
        with pytest.raises(ModelError, match="does not fit the model"):
            load_trainable_weights(model, wrong)


@pytest.mark.parametrize(
    ("file", "place", "value", "named"),
    [
        ("config.json", ["rms_norm_eps"], 1e-2, "backbone_config"),
        ("tokenizer.json", ["model", "byte_fallback"], True, "tokenizer"),
    ],
)
def test_resume_refuses_changed_backbones(fitter, tmp_path, file, place, value, named):
    """Equal weights with another config.json or tokenizer.json are another backbone."""
    backbone = tmp_path / "backbone"
    shutil.copytree(open_backbone(configure(), fitter.cache_dir).path, backbone)
    config = configure(n_epochs=1, backbone=str(backbone))
    fitter("run", config)
    content = json.loads((backbone / file).read_bytes())
    inner = content
    for name in place[:-1]:
        inner = inner[name]
    assert inner[place[-1]] != value
    inner[place[-1]] = value
    (backbone / file).write_text(json.dumps(content))
    with pytest.raises(RunError, match=f"{named} was"):
        fitter("run", config, resume=True)


def test_infinite_losses_stop_fits(fitter, monkeypatch):
    """A loss of NaN stops the fit, the message names its rows, and the checkpoint is intact."""
    forward = PairClassifier.forward
    calls = iter(range(10_000))

    def return_nan(self, batch):
        logits = forward(self, batch)
        return logits * (float("nan") if next(calls) >= 24 else 1.0)

    monkeypatch.setattr(PairClassifier, "forward", return_nan)
    with pytest.raises(NumericsError, match=r"step 7: the loss of .* rows .*id="):
        fitter("run", configure(checkpointing="none", micro_batch_tokens=1))
    folder = fitter.folder / "run" / "fold0" / "checkpoints"
    assert checkpoints.step_of(checkpoints.newest_intact(folder)) == 6


def test_infinite_gradients_stop_fits(fitter, monkeypatch):
    """An infinite gradient stops the fit before the optimizer uses it; rows are named."""
    spoil_gradients(monkeypatch, float("inf"))
    message = r"step 1: the norm of the gradient is .* rows \(id=\d+, id"
    with pytest.raises(NumericsError, match=message):
        fitter("run", configure(checkpointing="none"))


def test_out_of_memory_halves_micro_batches(fitter, monkeypatch, caplog):
    """The step is repeated with the same rows, losses stay equal, and the log says so.

    Memory runs out after the backward pass of an earlier micro-batch, which must not count twice.
    """
    fields = EXACT | {"n_epochs": 1, "micro_batch_tokens": 512}
    fields |= {"batch_size": 16}
    fields |= {"checkpointing": "none"}
    plain, _ = fitter("plain", configure(**fields))
    forward, n_failures = PairClassifier.forward, 0

    def run_out_of_memory(self, batch):
        nonlocal n_failures
        has_gradient = any(part.grad is not None for _, part in self.trainable_parameters())
        if self.training and has_gradient and batch["input_ids"].numel() > 256:
            n_failures += 1
            assert n_failures == 1, "micro-batches of 256 tokens have more tokens"
            raise torch.OutOfMemoryError
        return forward(self, batch)

    monkeypatch.setattr(PairClassifier, "forward", run_out_of_memory)
    with caplog.at_level(logging.WARNING):
        small, _ = fitter("small", configure(**fields))
    assert "micro-batches now hold 256 tokens" in caplog.text
    assert_equal_histories(plain, small, 1e-9)


def test_out_of_memory_names_flag(fitter, monkeypatch):
    """When one row does not fit into memory, the message names the flags that help."""
    n_failures = 0

    def run_out_of_memory(self, batch):
        nonlocal n_failures
        n_failures += 1
        assert n_failures < 20, "the step is repeated without end"
        raise torch.OutOfMemoryError

    monkeypatch.setattr(PairClassifier, "forward", run_out_of_memory)
    with pytest.raises(RunError, match="--micro-batch-tokens"):
        fitter("run", configure(checkpointing="none"))


@pytest.mark.parametrize("optimizer", ["adamw_torch", "sgd"])
def test_checkpoint_size_is_estimated(fitter, monkeypatch, optimizer):
    """The disk space asked for is at most what checkpoints need, and at least 80 % of it."""
    asked = []
    monkeypatch.setattr(
        checkpoints, "require_room", lambda folder, n, *, size: asked.append((folder, n, size))
    )
    fitter("run", configure(n_epochs=1, optimizer=optimizer))
    [(folder, n_checkpoints, size)] = asked
    assert n_checkpoints == 3
    taken = sum(path.stat().st_size for path in checkpoints.newest_intact(folder).iterdir())
    assert size <= taken <= 1.2 * size + 20_000


@pytest.fixture
def handlers():
    """Restore the handlers of signals after a test."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield before
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("handlers")
@pytest.mark.parametrize("n_times", [1, 3])
def test_signals_save_and_stop(fitter, n_times):
    """SIGTERM, once or three times, finishes and saves the step; the resumed fit is equal."""
    straight, _ = fitter("straight")
    training_step = StepTrainer.training_step
    with pytest.MonkeyPatch.context() as patch:

        def step_and_signal(self, *arguments, **options):
            if self.state.global_step == 6:
                for _ in range(n_times):
                    os.kill(os.getpid(), signal.SIGTERM)
            return training_step(self, *arguments, **options)

        patch.setattr(StepTrainer, "training_step", step_and_signal)
        with pytest.raises(Interrupted) as stopped:
            fitter("stopped")
    assert stopped.value.args == (signal.SIGTERM,)
    os.kill(os.getpid(), signal.SIGTERM)  # the launcher repeats it: the message still comes
    folder = fitter.folder / "stopped" / "fold0" / "checkpoints"
    assert checkpoints.step_of(checkpoints.newest_intact(folder)) == 7
    resumed, _ = fitter("stopped", resume=True)
    assert weights(resumed) == weights(straight)


@pytest.mark.parametrize("is_launch", [False, True])
def test_errors_of_launches_keep_handlers(monkeypatch, handlers, is_launch):
    """After an error, SIGTERM of the launcher cannot end a process before its message.

    One process alone gets back the handlers that it had.
    """
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: is_launch)
    with pytest.raises(RunError), callbacks.StopOnSignal():
        raise RunError
    kept = {number: signal.getsignal(number) for number in handlers}
    assert (kept != handlers) == is_launch


def test_repeated_signals_stop_immediately(monkeypatch):
    """A second signal after the time limit raises KeyboardInterrupt."""
    monkeypatch.setattr(callbacks, "_REPEAT_SECONDS", -1.0)
    with callbacks.StopOnSignal() as signals:
        os.kill(os.getpid(), signal.SIGINT)
        assert signals.received == signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_init_from_loads_adapters(fitter, cache_dir):
    """With `--init-from` and a tiny learning rate, the weights stay those of the other fit."""
    first, _ = fitter("first", configure(learning_rate=1e-2))
    config = configure(learning_rate=1e-9, batch_size=48, n_epochs=1)
    second, _ = fitter("second", config, init_from=first.adapter_dir)
    backbone = open_backbone(config, cache_dir)
    kept = load_classifier(first.adapter_dir, backbone.path)
    again = load_classifier(second.adapter_dir, backbone.path)
    for (name, one), (_, two) in zip(
        kept.named_parameters(), again.named_parameters(), strict=True
    ):
        torch.testing.assert_close(one, two, atol=1e-6, rtol=0, msg=name)


def test_init_from_checks_folders(fitter, cache_dir, tmp_path):
    """Fold and adapter folders are accepted; another rank or a missing folder is refused."""
    first, _ = fitter("first", configure(n_epochs=1))
    second, _ = fitter("second", configure(n_epochs=1), init_from=first.path)
    third, _ = fitter("third", configure(n_epochs=1), init_from=first.adapter_dir)
    assert weights(second) == weights(third) != weights(first)
    with pytest.raises(ModelError, match="was built with lora_r 4, not 2"):
        fitter("other", configure(n_epochs=1, lora_r=2), init_from=first.path)
    with pytest.raises(ModelError, match="no such folder"):
        fitter("none", configure(n_epochs=1), init_from=tmp_path / "nowhere")


@pytest.mark.skipif(torch.cuda.is_available(), reason="CUDA is available")
def test_missing_cuda_is_reported_first():
    """For a CUDA preset without CUDA, the message names a preset for CPUs."""
    with pytest.raises(DeviceError, match=r"CUDA.*quickstart.*Nothing was downloaded"):
        require_device(configure("gemma2-9b"))


def test_full_fine_tuning_resumes_exactly(fitter):
    """With all weights trained, an interrupted and resumed fit gives equal files."""
    config = configure(tuning="full", n_epochs=1)
    straight, _ = fitter("straight", config)
    with pytest.MonkeyPatch.context() as patch:
        stop_after(patch, 7)
        with pytest.raises(Stop):
            fitter("broken", config)
    resumed, _ = fitter("broken", config, resume=True)
    files = {path.name for path in resumed.adapter_dir.glob("*.safetensors")}
    assert files
    for name in files:
        assert digest_file(resumed.adapter_dir / name) == digest_file(straight.adapter_dir / name)
