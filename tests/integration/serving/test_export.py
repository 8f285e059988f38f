"""Tests of the export of an adapter and its backbone as one plain model."""

from __future__ import annotations

import json
import re
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from fitting import configure
from loaded_runs import open_tiny
from tiewise.config import ModelConfig
from tiewise.data.pairs import build_pairs
from tiewise.data.simulation.simulate import simulate
from tiewise.errors import FilesError, ModelError, RunError
from tiewise.files import write_json
from tiewise.models.attention import collate
from tiewise.models.pretrained import load_folder
from tiewise.models.scoring import predict_pairs, score_rows
from tiewise.runs.folder import start_run
from tiewise.runs.manifest import write_manifest
from tiewise.serving.export import check_drift, export_adapter, export_run
from tiewise.tokens.template import build_template

PAIR = {"prompt": [["What is 2 + 2?"]], "response_a": [["4"]], "response_b": [["5"]]}


def score_alone(folder, rows):
    """Return probabilities from transformers alone, all rows padded to equal length."""
    from transformers import AutoModelForSequenceClassification

    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    width = int(rows.lengths.max())
    ids = torch.full((len(rows), width), model.config.pad_token_id)
    types = torch.zeros_like(ids)
    for index in range(len(rows)):
        ids[index, : rows.lengths[index]] = torch.from_numpy(rows.row(index).astype(np.int64))
        if rows.type_ids is not None:
            span = slice(rows.offsets[index], rows.offsets[index + 1])
            own = torch.from_numpy(rows.type_ids[span].astype(np.int64))
            types[index, : len(own)] = own
    is_real = torch.arange(width) < torch.from_numpy(rows.lengths)[:, None]
    inputs = {"input_ids": ids, "attention_mask": is_real.long()}
    if rows.type_ids is not None:
        inputs["token_type_ids"] = types
    with torch.no_grad():
        return model(**inputs).logits.double().softmax(-1).numpy()


def check_example(folder):
    """Compare the example row of the card with transformers."""
    from transformers import AutoModelForSequenceClassification

    example = json.loads((folder / "export.json").read_bytes())["example"]
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    if model.config.model_type == "bert":  # its rows have token types as well
        return
    with torch.no_grad():
        probs = model(input_ids=torch.tensor([example["input"]])).logits.softmax(-1)[0]
    np.testing.assert_allclose(probs, example["probs"], atol=1e-5)


def softmax(logits):
    """Return probabilities of logits, both of shape (n, 3)."""
    return torch.from_numpy(logits).softmax(-1).numpy()


@pytest.mark.parametrize("tuning", ["lora", "full"])
@pytest.mark.parametrize("kind", ["tiny", "tiny-llama", "tiny-bert"])
def test_transformers_alone_scores_the_same(cache_dir, tmp_path, kind, tuning):
    """Probabilities agree to 1e-5 in float32 for rows of many lengths; labels are A, B, tie."""
    opened = open_tiny(kind, cache_dir, dtype="float32", tuning=tuning)
    done = export_adapter(opened.save(tmp_path / "a"), opened.backbone_dir, tmp_path / "out")
    assert done.drift < 1e-5
    rows = opened.rows(simulate(12, seed=9))
    expected = softmax(score_rows(opened.classifier, rows))
    assert np.ptp(expected, axis=0).max() > 0.05, "the rows must differ"
    np.testing.assert_allclose(score_alone(done.path, rows), expected, atol=1e-5)
    check_example(done.path)
    config = json.loads((done.path / "config.json").read_bytes())
    assert config["id2label"] == {"0": "A", "1": "B", "2": "tie"}
    assert config["architectures"][0].endswith("ForSequenceClassification")
    assert not any(path.suffix in {".bin", ".pkl", ".py"} for path in done.path.iterdir())


def test_shortened_backbone_stays_shortened(cache_dir, tmp_path):
    """Layers that were cut off at the fit are not in the folder."""
    opened = open_tiny("tiny", cache_dir, dtype="float32", n_layers=2)
    done = export_adapter(opened.save(tmp_path / "a"), opened.backbone_dir, tmp_path / "out")
    assert json.loads((done.path / "config.json").read_bytes())["num_hidden_layers"] == 2
    assert done.drift < 1e-5


def test_4_bit_weights_are_dequantized(cache_dir, tmp_path):
    """No 4-bit tensor is left, the drift is reported, and the card describes the merge."""
    opened = open_tiny("tiny", cache_dir, dtype="float32", quantization="nf4")
    done = export_adapter(opened.save(tmp_path / "a"), opened.backbone_dir, tmp_path / "out")
    assert "quantization_config" not in json.loads((done.path / "config.json").read_bytes())
    rows = opened.rows(simulate(12, seed=9))
    # While it trains, bitsandbytes unpacks the bits exactly; for inference on some CPUs it has
    # kernels that round to bfloat16, and this is the drift that may be left.
    batch = collate(rows, range(len(rows)), layout="packed", pad_id=0)
    with torch.no_grad():
        trained = softmax(opened.classifier.train()(batch).double().numpy())
    np.testing.assert_allclose(score_alone(done.path, rows), trained, atol=1e-5)
    assert done.drift < 0.05
    facts = json.loads((done.path / "export.json").read_bytes())
    assert (facts["quantization"], facts["drift"]) == ("nf4", done.drift)
    assert "never into the 4 bits" in (done.path / "README.md").read_text()


def test_half_precision_drift_is_reported(cache_dir, tmp_path):
    """Rounding the merged weights to bfloat16 changes probabilities; the card says by how much."""
    opened = open_tiny("tiny", cache_dir, dtype="bfloat16")
    done = export_adapter(opened.save(tmp_path / "a"), opened.backbone_dir, tmp_path / "out")
    assert 0 < done.drift < 0.1
    assert f"{done.drift:.2g}" in (done.path / "README.md").read_text()


@pytest.mark.parametrize(
    ("kind", "name"), [("tiny", "fields"), ("tiny", "notebook"), ("tiny-bert", "fields")]
)
def test_program_in_card_runs_without_tiewise(cache_dir, tmp_path, capsys, monkeypatch, kind, name):
    """The card's program prints the probabilities that tiewise predicts for a pair in one order."""
    opened = open_tiny(kind, cache_dir, dtype="float32")
    template = build_template(opened.tokenizer, name=name, max_length=96)
    adapter_dir = opened.save(tmp_path / "a")
    write_json(adapter_dir / "template.json", template.to_dict())
    done = export_adapter(adapter_dir, opened.backbone_dir, tmp_path / "out")
    card = (done.path / "README.md").read_text()
    code = re.search(r"```python\n(.*?)```", card, re.DOTALL)[1]
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "tiewise", None)  # importing it then fails
        exec(code.replace("DIR", str(done.path)), {})
    printed = capsys.readouterr().out
    pairs = build_pairs({"id": [0], **PAIR})
    table = predict_pairs(opened.classifier, pairs, opened.tokenizer, template, both_orders=False)
    for outcome, column in (("A", "prob_a"), ("B", "prob_b"), ("tie", "prob_tie")):
        shown = float(printed.split(f"'{outcome}': ")[1].split(",")[0].rstrip("}\n"))
        assert shown == pytest.approx(float(table[column].iloc[0]), abs=1e-5)


def test_padding_token_is_in_no_row(cache_dir, tmp_path):
    """Pooling by padding finds the end of a row, also if the template pads with the end token."""
    opened = open_tiny("tiny", cache_dir, dtype="float32")
    adapter_dir = opened.save(tmp_path / "a")
    confused = build_template(opened.tokenizer, name="notebook", max_length=96).to_dict()
    confused["special_tokens"]["pad"] = confused["special_tokens"]["end"][-1]
    write_json(adapter_dir / "template.json", confused)
    done = export_adapter(adapter_dir, opened.backbone_dir, tmp_path / "out")
    pad_id = json.loads((done.path / "config.json").read_bytes())["pad_token_id"]
    assert pad_id != confused["special_tokens"]["end"][-1]
    assert done.drift < 1e-5


def test_response_head_is_refused(cache_dir, tmp_path):
    """A plain classifier has no response head; the message names both alternatives."""
    opened = open_tiny("tiny-bert", cache_dir, head="responses")
    with pytest.raises(ModelError, match="--head linear, or use tiewise predict"):
        export_adapter(opened.save(tmp_path / "a"), opened.backbone_dir, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_wrong_merge_is_not_written(cache_dir, tmp_path, monkeypatch):
    """A merge with other probabilities than the adapter leaves no folder."""
    opened = open_tiny("tiny", cache_dir, dtype="float32")
    monkeypatch.setattr("tiewise.serving.export.score_folder", lambda *_: np.full((16, 3), 1 / 3))
    with pytest.raises(ModelError, match="Nothing was written"):
        export_adapter(opened.save(tmp_path / "a"), opened.backbone_dir, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a"]


def test_existing_folder_needs_overwrite(cache_dir, tmp_path):
    """Only an export is replaced, and none of its files remain."""
    opened = open_tiny("tiny", cache_dir, dtype="float32")
    adapter_dir = opened.save(tmp_path / "a")
    out = tmp_path / "out"
    out.mkdir()
    (out / "precious").write_text("")
    with pytest.raises(FilesError, match="--overwrite"):
        export_adapter(adapter_dir, opened.backbone_dir, out)
    with pytest.raises(FilesError, match="has files but no export"):
        export_adapter(adapter_dir, opened.backbone_dir, out, overwrite=True)
    (out / "precious").rename(tmp_path / "precious")
    export_adapter(adapter_dir, opened.backbone_dir, out, overwrite=True)
    (out / "of the last export").write_text("")
    export_adapter(adapter_dir, opened.backbone_dir, out, overwrite=True)
    assert not (out / "of the last export").exists()


@pytest.mark.parametrize(
    ("drift", "fields"),
    [(0.2, {"dtype": "bfloat16"}), (0.2, {"quantization": "nf4"}), (2e-5, {}), (np.nan, {})],
)
def test_large_drift_is_refused(drift, fields):
    """A drift above the tolerance of the number format, or NaN, raises an error."""
    with pytest.raises(ModelError, match="Nothing was written"):
        check_drift(drift, ModelConfig(**fields))
    check_drift(1e-6, ModelConfig(**fields))


@pytest.mark.parametrize("kind", ["tiny", "tiny-llama", "tiny-bert"])
def test_text_pipeline_refuses_the_folder(cache_dir, tmp_path, kind):
    """`pipeline` would tokenise text without delimiters, so it gets no tokenizer."""
    from transformers import pipeline

    opened = open_tiny(kind, cache_dir, dtype="float32")
    done = export_adapter(opened.save(tmp_path / "a"), opened.backbone_dir, tmp_path / "out")
    assert json.loads((done.path / "export.json").read_bytes())["probes"]
    with pytest.raises((OSError, ValueError), match="tokenizer"):
        pipeline("text-classification", model=str(done.path))("What is 2 + 2?")


@pytest.mark.parametrize("name", ["template.json", "tokenizer/tokenizer.json", "config.json"])
def test_changed_export_is_refused(cache_dir, tmp_path, name):
    """A template, tokenizer or configuration that has changed since the export is not loaded."""
    opened = open_tiny("tiny", cache_dir, dtype="float32")
    done = export_adapter(opened.save(tmp_path / "a"), opened.backbone_dir, tmp_path / "out")
    changed = json.loads((done.path / name).read_bytes()) | {"id2label": {"0": "B", "1": "A"}}
    write_json(done.path / name, changed)
    with pytest.raises(ModelError, match=f"{name} does not match"):
        load_folder(done.path, cache_dir=cache_dir, device="cpu")


def test_other_classes_are_refused(cache_dir, tmp_path):
    """A folder whose classes are not A, B, tie in this order is not loaded."""
    opened = open_tiny("tiny", cache_dir, dtype="float32")
    done = export_adapter(opened.save(tmp_path / "a"), opened.backbone_dir, tmp_path / "out")
    config = json.loads((done.path / "config.json").read_bytes())
    config["id2label"] = {"0": "B", "1": "A", "2": "tie"}
    config["label2id"] = {"B": 0, "A": 1, "tie": 2}
    write_json(done.path / "config.json", config)
    write_manifest(done.path)
    with pytest.raises(ModelError, match="classes are B, A, tie; expected A, B, tie"):
        load_folder(done.path, cache_dir=cache_dir, device="cpu")


@pytest.mark.parametrize(
    ("n_outputs", "message"), [(0, "its weights lack score.weight"), (2, "cannot be loaded")]
)
def test_other_head_is_refused(cache_dir, tmp_path, n_outputs, message):
    """A folder without a head, or with one of another size, is not loaded with a random one."""
    opened = open_tiny("tiny", cache_dir, dtype="float32")
    done = export_adapter(opened.save(tmp_path / "a"), opened.backbone_dir, tmp_path / "out")
    weights = load_file(done.path / "model.safetensors")
    head = weights.pop("score.weight")
    if n_outputs:
        weights["score.weight"] = head[:n_outputs].clone()
    save_file(weights, done.path / "model.safetensors", metadata={"format": "pt"})
    write_manifest(done.path)
    with pytest.raises(ModelError, match=message):
        load_folder(done.path, cache_dir=cache_dir, device="cpu")


def test_local_path_is_not_published(cache_dir, tmp_path):
    """No file of an export has the path of a backbone that is a local folder."""
    opened = open_tiny("tiny", cache_dir, dtype="float32")
    adapter = opened.save(tmp_path / "a")
    config_path = adapter / "classifier.json"
    config = json.loads(config_path.read_text("utf-8"))
    config["model"]["backbone"] = str(opened.backbone_dir)
    write_json(config_path, config)
    write_manifest(adapter)
    done = export_adapter(adapter, opened.backbone_dir, tmp_path / "out")
    texts = [path.read_bytes() for path in done.path.rglob("*") if path.is_file()]
    assert texts
    assert not [text for text in texts if str(opened.backbone_dir.parent).encode() in text]


def test_fold_of_run_is_exported(cache_dir, tmp_path):
    """One fold is exported; if several are finished, it must be named."""
    run = start_run(tmp_path / "artifacts", configure(dtype="float32", lora_r=4), name="r")
    opened = open_tiny("tiny", cache_dir, dtype="float32")
    options = {"cache_dir": cache_dir}
    with pytest.raises(RunError, match="no fold is finished"):
        export_run(run, tmp_path / "out", **options)
    for fold in (1, 3):
        opened.shake(fold).save(run.fold(fold).adapter_dir)
        write_json(run.fold(fold).scores_path, {})
    with pytest.raises(RunError, match="folds 1, 3 are finished; name one with --fold"):
        export_run(run, tmp_path / "out", **options)
    called = []
    done = export_run(
        run, tmp_path / "out", fold=3, complete=lambda *known: called.append(known), **options
    )
    assert "(r, fold 3)" in (done.path / "README.md").read_text()
    [(folder, fold)] = called
    assert fold == 3
    assert folder != done.path, "called before the folder gets its final name"


def test_feature_model_is_refused(tmp_path):
    """A feature model has no network to export."""
    run = start_run(tmp_path / "artifacts", configure("baseline"), name="r")
    write_json(run.fold(0).scores_path, {})
    with pytest.raises(ModelError, match="no network to export"):
        export_run(run, tmp_path / "out", cache_dir=tmp_path)
