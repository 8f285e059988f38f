"""The model card states what was measured, and hostile names cannot change it."""

import dataclasses
import json
import re

import pytest
from huggingface_hub import ModelCard

from run_folders import simulated_run, write_fold
from tiewise.errors import RunError
from tiewise.evaluation.references import evaluate_tables
from tiewise.files import write_json
from tiewise.report.card import METRICS, find_base_model, write_card
from tiewise.runs.tables import read_fold_oof, read_folds, read_oof

HOSTILE = "x\n---\nlicense: stolen\n---\n<script>alert(1)</script> | [a](javascript:b) `c` '\""
EXPORT = (
    "---\nlicense: gemma\nbase_model: google/gemma-2-9b-it\n---\n\n# Title\n\nHow to load it.\n"
)


@pytest.fixture
def run(tmp_path):
    return simulated_run(tmp_path)[0]


def write(run, **options):
    folder = run.fold(0).adapter_dir
    folder.mkdir(exist_ok=True)
    path = write_card(folder, run, **options)
    return ModelCard(path.read_text("utf-8"))


def test_card_has_every_section(run):
    """Use, licence, scores, limits, data and configuration."""
    text = write(run).text
    headings = re.findall(r"^## (.*)$", text, re.MULTILINE)
    assert headings == [
        *("How to use it", "Licence", "Scores", "Intended use"),
        *("Limits, as measured", "Data", "Configuration"),
    ]
    assert "tiewise predict --run simulated" in text
    assert "apache-2.0" in text


def test_front_matter_has_the_scores(run):
    """Values and intervals equal those of ``scores.json``."""
    card, scores = write(run), json.loads(run.scores_path.read_bytes())
    found = {result.metric_type: result for result in card.data.eval_results}
    assert tuple(found) == METRICS
    for name, result in found.items():
        assert result.metric_value == scores[name]["value"]
        assert result.metric_args["low"] == scores[name]["low"]
        assert result.dataset_revision == "d" * 64
        assert result.dataset_name == "simulated.csv"


def test_front_matter_names_the_backbone(run):
    """Base model and licence are named as on the hub."""
    data = write(run).data
    assert data.base_model == "sentence-transformers/all-MiniLM-L6-v2"
    assert data.license == "apache-2.0"
    assert data.pipeline_tag is None, "no pipeline builds the rows of this model"
    assert {"reward-model", "preference"} <= set(data.tags)


def test_front_matter_names_the_data(run):
    """Data sets of the hub and languages are named when they are known, and nothing else is."""
    assert (write(run).data.datasets, write(run).data.language) == (None, None)
    data = json.loads(run.data_path.read_bytes())
    paths = ["/home/someone/votes.csv", "hf://datasets/me/votes@v1/a.csv", "hf://datasets/me/votes"]
    write_json(run.data_path, data | {"paths": paths, "languages": {"en": 9, "de": 1}})
    (run.fold(0).adapter_dir / "README.md").unlink()
    front = write(run).data
    assert (front.datasets, front.language) == (["me/votes"], ["en", "de"])


@pytest.mark.parametrize(("tuning", "relation"), [("lora", "adapter"), ("full", "finetune")])
def test_relation_to_the_backbone(run, tuning, relation):
    """Whole weights are no adapter."""
    model = dataclasses.replace(run.config.model, tuning=tuning)
    config = dataclasses.replace(run.config, model=model)
    data = write(dataclasses.replace(run, config=config)).data
    assert data.to_dict()["base_model_relation"] == relation


def test_biases_have_numbers(run):
    """Position bias and length bias are stated with intervals."""
    text = write(run).text
    bias = json.loads(run.scores_path.read_bytes())["position_bias"]["bias_before"]
    assert f"**Position bias.** {bias['value']:.3f} [" in text
    assert re.search(r"longer response leads by −?\d\.\d{3} .* in votes", text)


def test_one_order_has_no_position_bias(run):
    """The card says that it was not measured."""
    scores = json.loads(run.scores_path.read_bytes()) | {"position_bias": None}
    assert "Not measured: only one order was scored." in write(run, scores=scores).text


def test_local_paths_are_not_published(run):
    """Only the last part of a folder is shown, and only the names of data files."""
    config = run.config
    data = dataclasses.replace(config.data, data=("/home/someone/secret/votes.csv",))
    model = dataclasses.replace(config.model, backbone="/home/someone/secret/gemma")
    card = write(
        dataclasses.replace(run, config=dataclasses.replace(config, data=data, model=model))
    )
    assert "secret" not in card.content
    assert "gemma" in card.text
    assert card.data.base_model is None


def test_feature_model_has_a_card(tmp_path):
    """It has no backbone, needs no torch and has no position bias."""
    run, _ = simulated_run(tmp_path, preset="baseline")
    card = write(run)
    assert "symmetric by construction" in card.text
    assert "pip install tiewise\n" in card.text
    assert "There is no backbone." in card.text
    assert card.data.license is None
    assert not {"base_model", "base_model_relation"} & set(card.data.to_dict())


def test_fold_card_has_fold_scores(run):
    """Scores can be passed before the file of the fold is written."""
    oof = read_fold_oof(run.fold(1))
    scores = evaluate_tables(oof, read_folds(run)).to_dict()
    card = write(run, fold=1, scores=scores, oof=oof)
    assert card.data.eval_results[0].metric_value == scores["log_loss"]["value"]
    assert card.data.eval_results[0].dataset_split == "fold 1, held out"


def test_missing_scores_are_refused(run):
    """The message says what to do."""
    with pytest.raises(RunError, match=r"has no scores\. Run tiewise evaluate"):
        write(run, fold=2)


def test_export_card_is_completed(run):
    """Licence, base model and usage stay; scores are added."""
    folder = run.fold(0).adapter_dir
    folder.mkdir()
    (folder / "README.md").write_text(EXPORT)
    card = write(run)
    assert card.data.license == "gemma"
    assert card.data.base_model == "google/gemma-2-9b-it"
    assert len(card.data.eval_results) == len(METRICS)
    assert card.text.index("How to load it.") < card.text.index("## Scores")
    assert "tiewise predict" not in card.text


def test_second_write_changes_nothing(run):
    """Scores are added once."""
    write(run)
    path = run.fold(0).adapter_dir / "README.md"
    before = path.read_bytes()
    write(run)
    assert path.read_bytes() == before


def test_names_from_files_break_neither_front_matter_nor_text(run):
    """The name of a file cannot add a field, a tag, a link or a table cell."""
    data = json.loads(run.data_path.read_bytes())
    hostile = {"digest": HOSTILE, "sources": [HOSTILE], "counts": {HOSTILE: 1}}
    write_json(run.data_path, data | hostile)
    write_json(run.path / "env.json", {"packages": {"torch": HOSTILE}})
    card = write(run)
    assert card.data.license == "apache-2.0"
    assert card.data.eval_results[0].dataset_name.startswith("x --- license: stolen")
    assert not re.search(r"(?<!\\)<(?!!--)|(?<!\\)\]\(javascript|^---$", card.text, re.MULTILINE)


@pytest.mark.parametrize(
    ("backbone", "name"),
    [
        ("google/gemma-2-9b-it", "google/gemma-2-9b-it"),
        ("/home/someone/gemma", None),
        ("./models/gemma", None),
        ("tiny:0", None),
        ("baseline", None),
    ],
)
def test_folder_is_no_base_model(backbone, name):
    """Only names on the hub are base models."""
    assert find_base_model(backbone) == name


def test_missing_predictions_are_refused(run):
    """Predictions of the folds suffice; without any, the message names the missing table."""
    write_fold(run, 0, read_oof(run))
    run.oof_path.unlink()
    write(run)
    for fold in run.finished_folds():
        run.fold(fold).scores_path.unlink()
    with pytest.raises(RunError, match=r"oof\.parquet is missing"):
        write(run)
