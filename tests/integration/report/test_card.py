"""A model card says what was measured, where it fails, and nothing that its inputs smuggle in."""

import dataclasses
import json
import re

import pytest
from huggingface_hub import ModelCard

from run_folders import simulated_run, write_fold
from tiewise.errors import RunError
from tiewise.evaluation.references import evaluate_tables
from tiewise.files import write_json
from tiewise.report.card import METRICS, write_card
from tiewise.runs.tables import read_fold_oof, read_folds, read_oof
from tiewise.serving.export_card import find_base_model

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


def test_every_section_of_a_card_is_there(run):
    """What it is, how to use it, how good it is, for what, its limits, data and configuration."""
    text = write(run).text
    headings = re.findall(r"^## (.*)$", text, re.MULTILINE)
    assert headings == [
        *("How to use it", "Licence", "How good it is", "Intended use"),
        *("Limits, as measured", "Data", "Configuration"),
    ]
    assert "tiewise predict --run simulated" in text
    assert "apache-2.0" in text


def test_the_front_matter_holds_the_scores_and_their_intervals(run):
    """The hub reads what ``scores.json`` says, to the last digit."""
    card, scores = write(run), json.loads(run.scores_path.read_bytes())
    found = {result.metric_type: result for result in card.data.eval_results}
    assert tuple(found) == METRICS
    for name, result in found.items():
        assert result.metric_value == scores[name]["value"]
        assert result.metric_args["low"] == scores[name]["low"]
        assert result.dataset_revision == "d" * 64
        assert result.dataset_name == "simulated.csv"


def test_the_front_matter_names_backbone_and_licence(run):
    """As the hub knows them."""
    data = write(run).data
    assert data.base_model == "sentence-transformers/all-MiniLM-L6-v2"
    assert data.license == "apache-2.0"
    assert data.pipeline_tag == "text-classification"


def test_position_and_length_bias_are_stated_as_measured(run):
    """Numbers with intervals, not a warning in general."""
    text = write(run).text
    bias = json.loads(run.scores_path.read_bytes())["position_bias"]["bias_before"]
    assert f"Standing first is worth {bias['value']:.3f}" in text
    assert re.search(r"longer response leads by −?\d\.\d{3} .* in votes", text)


def test_one_order_means_no_position_bias_was_measured(run):
    """And the card says so."""
    scores = json.loads(run.scores_path.read_bytes()) | {"position_bias": None}
    assert "Not measured: one order was scored." in write(run, scores=scores).text


def test_no_path_of_a_machine_is_published(run):
    """Folders are named by their last part, data by their files."""
    config = run.config
    data = dataclasses.replace(config.data, data=("/home/someone/secret/votes.csv",))
    model = dataclasses.replace(config.model, backbone="/home/someone/secret/gemma")
    card = write(
        dataclasses.replace(run, config=dataclasses.replace(config, data=data, model=model))
    )
    assert "secret" not in card.content
    assert "gemma" in card.text
    assert card.data.base_model is None


def test_a_baseline_speaks_for_itself(tmp_path):
    """No backbone, no torch, no position bias to measure."""
    run, _ = simulated_run(tmp_path, preset="baseline")
    card = write(run)
    assert "symmetric by construction" in card.text
    assert "pip install tiewise\n" in card.text
    assert "There is no backbone." in card.text
    assert card.data.license is None


def test_a_fold_has_a_card_of_its_own_scores(run):
    """Scores may be given before the fold's own file is written."""
    oof = read_fold_oof(run.fold(1))
    scores = evaluate_tables(oof, read_folds(run)).to_dict()
    card = write(run, fold=1, scores=scores, oof=oof)
    assert card.data.eval_results[0].metric_value == scores["log_loss"]["value"]
    assert card.data.eval_results[0].dataset_split == "fold 1, held out"


def test_a_fold_without_scores_has_no_card(run):
    """It is said what to do."""
    with pytest.raises(RunError, match=r"holds no scores\. Run tiewise evaluate"):
        write(run, fold=2)


def test_the_card_of_an_export_is_completed_and_keeps_its_words(run):
    """Licence, base model and how to load it stay; scores come after."""
    folder = run.fold(0).adapter_dir
    folder.mkdir()
    (folder / "README.md").write_text(EXPORT)
    card = write(run)
    assert card.data.license == "gemma"
    assert card.data.base_model == "google/gemma-2-9b-it"
    assert len(card.data.eval_results) == len(METRICS)
    assert card.text.index("How to load it.") < card.text.index("## How good it is")
    assert "tiewise predict" not in card.text


def test_writing_a_card_twice_changes_nothing(run):
    """It is completed once."""
    write(run)
    path = run.fold(0).adapter_dir / "README.md"
    before = path.read_bytes()
    write(run)
    assert path.read_bytes() == before


def test_names_from_files_break_neither_front_matter_nor_text(run):
    """A file's name adds no field, no tag, no link and no cell."""
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
def test_a_folder_is_not_passed_off_as_a_base_model(backbone, name):
    """Only names on the hub are base models."""
    assert find_base_model(backbone) == name


def test_a_card_needs_the_predictions_it_speaks_of(run):
    """Those of its folds do; without any, the missing table is named."""
    write_fold(run, 0, read_oof(run))
    run.oof_path.unlink()
    write(run)
    for fold in run.finished_folds():
        run.fold(fold).scores_path.unlink()
    with pytest.raises(RunError, match=r"oof\.parquet is missing"):
        write(run)
