"""Options of a prediction, the columns of its output, and files of predictions that are read."""

import numpy as np
import pandas as pd
import pytest

from tiewise.data.formats import read_pairs
from tiewise.data.labels import PROB_COLUMNS
from tiewise.errors import ConfigError, PairsError, ScoresError
from tiewise.judges import prediction
from tiewise.judges.labelled_predictions import load_file_predictions, score_rewardbench_file
from tiewise.judges.prediction import FilePrediction, PredictOptions, Tally
from tiewise.judges.streaming import StreamReport

TEXTS = {"prompt": ["q"] * 3, "response_a": ["x"] * 3, "response_b": ["y"] * 3}
DATA = pd.DataFrame({"id": [1, 2, 3], **TEXTS, "winner": ["model_a", "model_b", "tie"]})
TABLE = pd.DataFrame({"n": [1, 2, 3], "prob_tie": [0.0, 0.2, 0.6], "prob_b": [0.5, 0.5, 0.1]})
TABLE = TABLE.assign(prob_a=[0.5, 0.3, 0.3], id=["x", "y", "z"])


def test_columns_of_predictions_come_first():
    """An output begins with the id and the probabilities; all other columns follow."""
    ordered = prediction.order_columns(TABLE)
    assert ordered.columns.tolist() == ["id", *PROB_COLUMNS, "n"]


def test_winner_of_a_wsdm_submission():
    """The winner is the more probable of A and B, whatever the tie; A where both are equal."""
    found = prediction._as_wsdm(TABLE)
    assert found.columns.tolist() == ["id", "winner"]
    assert found["winner"].tolist() == ["model_a", "model_b", "model_a"]


def choose_for(path):
    """Return the function that makes a submission for a file."""
    return prediction.choose_submission(path, prediction._find_format(path, {"labelled": False}))


@pytest.mark.parametrize(
    ("lists", "columns"),
    [
        (True, ["id", "winner_model_a", "winner_model_b", "winner_tie"]),
        (False, ["id", "winner"]),
    ],
)
def test_competition_decides_the_columns(tmp_path, caplog, lists, columns):
    """Lists of turns are the data of LMSYS, plain text those of the WSDM Cup, which is said."""
    caplog.set_level("INFO", logger="tiewise")
    texts = {name: [f'["{text}"]' for text in cells] for name, cells in TEXTS.items()}
    table = DATA.assign(**(texts if lists else {})).drop(columns="winner")
    table.to_csv(tmp_path / "t.csv", index=False)
    choose = choose_for(tmp_path / "t.csv")
    assert choose(TABLE).columns.tolist() == columns
    assert ("columns of the WSDM Cup, id and winner" in caplog.text) == (not lists)


def test_submissions_of_other_data_are_refused(tmp_path):
    """A format of no competition, or a file without rows, has no submission."""
    chosen = pd.DataFrame({"prompt": ["q"], "chosen": ["x"], "rejected": ["y"]})
    chosen.to_json(tmp_path / "t.jsonl", orient="records", lines=True)
    with pytest.raises(PairsError, match="is preference, which no competition uses"):
        choose_for(tmp_path / "t.jsonl")
    DATA.head(0).to_csv(tmp_path / "t.csv", index=False)
    with pytest.raises(PairsError, match="has no rows"):
        choose_for(tmp_path / "t.csv")


def test_options_of_a_prediction():
    """1,024 pairs are read at a time; at least one is."""
    assert PredictOptions() == PredictOptions(swap=None, chunk_rows=1024, device=None)
    assert PredictOptions(chunk_rows=1).chunk_rows == 1
    with pytest.raises(ConfigError, match="--chunk-rows is 0; expected at least 1"):
        PredictOptions(chunk_rows=0)


def test_changed_input_is_refused(tmp_path):
    """A file that has another size or time than at the start is not predicted further."""
    path = tmp_path / "t.csv"
    path.write_text("a")
    before = [path.stat()]
    prediction._refuse_changed([path], before)
    path.write_text("bc")
    with pytest.raises(PairsError, match="was changed while it was predicted"):
        prediction._refuse_changed([path], before)


def test_statistics_by_hand():
    """Flips are other classes; the bias is the mean lead of the response that is shown first."""
    given = np.array([[0.6, 0.3, 0.1], [0.2, 0.3, 0.5], [0.5, 0.4, 0.1]])
    swapped = np.array([[0.5, 0.4, 0.1], [0.4, 0.2, 0.4], [0.1, 0.8, 0.1]])
    table = pd.DataFrame({"n_truncated": [0, 1, 7], "is_degenerate": [True, False, False]})
    for name, probs in (("given", given), ("swapped", swapped)):
        table[[f"{column}_{name}" for column in PROB_COLUMNS]] = probs
    tally = Tally(n_training_rows=2)
    tally.add(table)
    tally.add(table[["n_truncated", "is_degenerate"]])
    leads = [(0.3 - 0.1) / 2, (-0.1 - 0.2) / 2, (0.1 + 0.7) / 2]
    assert tally.describe() == pytest.approx(
        {
            "n_rows": 6,
            "n_truncated": 4,
            "n_degenerate": 2,
            "n_training_rows": 2,
            "n_swapped": 3,
            "flip_rate": 2 / 3,
            "position_bias": sum(leads) / 3,
        }
    )


@pytest.fixture
def judged(tmp_path):
    """Return a function that reads predictions of three pairs from a file with this table."""
    DATA.to_csv(tmp_path / "data.csv", index=False)

    def load(table):
        table.to_csv(tmp_path / "judge.csv", index=False)
        return load_file_predictions([str(tmp_path / "data.csv")], tmp_path / "judge.csv")

    return load


def test_submission_is_read_as_predictions(judged):
    """The columns of a submission are probabilities if there are no texts."""
    probs = pd.DataFrame({"prob_a": [0.5, 0.2, 0.1], "prob_b": [0.25] * 3, "id": [3, 1, 2]})
    probs["prob_tie"] = 1 - probs["prob_a"] - probs["prob_b"]
    names = dict(zip(PROB_COLUMNS, ("winner_model_a", "winner_model_b", "winner_tie"), strict=True))
    found = judged(probs.rename(columns=names))
    assert found.oof["prob_a"].tolist() == [0.2, 0.1, 0.5]
    assert found.oof["label"].tolist() == [0, 1, 2]
    assert found.oof.columns.tolist() == ["id", "fold", "label", "group", *PROB_COLUMNS]
    with pytest.raises(ScoresError, match="prob_a, prob_b, prob_tie are missing"):
        judged(probs.rename(columns=names).assign(prompt="p"))


def test_optional_columns_are_read(judged):
    """Both orders and the cut tokens are used where the file has them; other columns are not."""
    table = pd.DataFrame({"id": [1, 2, 3], **dict.fromkeys(PROB_COLUMNS, 1 / 3)})
    found = judged(table.assign(n_truncated=[0, None, 4], model="m", prob_a_given=0.5)).oof
    assert found.columns.tolist()[4:] == [*PROB_COLUMNS, "prob_a_given", "n_truncated"]
    assert found["n_truncated"].isna().tolist() == [False, True, False]


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"prob_b": ["0.5", "many", "0.5"]}, r"prob_b of .*judge\.csv, row 1, is not numeric"),
        ({"id": [1, None, 3]}, r"judge\.csv, row 1: id is missing"),
        ({"id": [1, 2, 2]}, "has an id more than once: 2"),
        ({"id": [1, 2, 4]}, "no prediction for 1 of 3 pairs, the first ids 3"),
    ],
)
def test_wrong_predictions_are_refused(judged, change, match):
    """The message names the file and the row, or the ids."""
    table = pd.DataFrame({"id": [1, 2, 3], **dict.fromkeys(PROB_COLUMNS, 1 / 3)})
    with pytest.raises(ScoresError, match=match):
        judged(table.assign(**change))


def test_predictions_of_few_groups(judged):
    """All pairs of one prompt are one fold; the pairs of the data are the texts of a file."""
    found = judged(pd.DataFrame({"id": [1, 2, 3, 9], **dict.fromkeys(PROB_COLUMNS, 1 / 3)}))
    assert found.folds["fold"].tolist() == [0, 0, 0]
    assert not found.is_symmetric
    assert found.counts == {"n_unused_predictions": 1}
    assert found.texts()["prompt"].tolist() == [["q"]] * 3
    assert found.name == "judge.csv"


def test_rewardbench_files_are_joined_by_id(tmp_path):
    """Predictions in another order are those of their rows: the chosen response wins or not."""
    bench = pd.DataFrame({"id": [1, 2], "prompt": ["p", "q"], "chosen": ["a", "b"]})
    bench = bench.assign(rejected=["c", "d"], subset="math-prm")
    bench.to_csv(tmp_path / "bench.csv", index=False)
    labels = read_pairs(tmp_path / "bench.csv").set_index("id")["label"]
    probs = np.eye(3)[[labels[1], 1 - labels[2]]]  # right for 1, wrong for 2
    table = pd.DataFrame(probs, columns=PROB_COLUMNS).assign(id=[1, 2])
    table.iloc[::-1].to_csv(tmp_path / "judge.csv", index=False)
    scores = score_rewardbench_file([str(tmp_path / "bench.csv")], tmp_path / "judge.csv")
    assert scores.overall.value == 0.5
    table["prob_a"], table["prob_b"] = np.eye(3)[labels.to_numpy(int)].T[:2]
    table.iloc[::-1].to_csv(tmp_path / "judge.csv", index=False)
    scores = score_rewardbench_file([str(tmp_path / "bench.csv")], tmp_path / "judge.csv")
    assert scores.overall.value == 1


FORMS = {
    "probabilities": lambda table: table,
    "Kaggle": lambda table: table.rename(columns=dict(zip(PROB_COLUMNS, ONE_HOT, strict=True))),
    "verdicts": lambda table: table.drop(columns=PROB_COLUMNS).assign(winner="A"),
}
ONE_HOT = ["winner_model_a", "winner_model_b", "winner_tie"]


@pytest.mark.parametrize("cells", [[True, False, True], [1.0, 0.0, 1.0], ["1.0", "", "true"]])
@pytest.mark.parametrize("form", FORMS)
def test_training_rows_are_counted_in_every_form(tmp_path, caplog, form, cells):
    """Rows that a judge was trained on are named, in every spelling and all names of columns."""
    DATA.to_csv(tmp_path / "data.csv", index=False)
    probs = dict(zip(PROB_COLUMNS, (0.5, 0.3, 0.2), strict=True))
    table = FORMS[form](DATA[["id"]].assign(**probs)).assign(is_training_row=cells)
    for kind in ("csv", "jsonl"):
        path = tmp_path / f"judge.{kind}"
        if kind == "csv":
            table.to_csv(path, index=False)
        else:
            table.to_json(path, orient="records", lines=True)
        caplog.clear()
        load_file_predictions([tmp_path / "data.csv"], path)
        assert "the judge was trained on 2 of 3 rows" in caplog.text


def test_result_is_said_in_words():
    """Counts that are 0 are left out; shares follow; a process without the file says folds only."""
    shards = StreamReport(1, 1, 0, 20, is_joined=True)
    facts = {"n_rows": 2000, "n_truncated": 0, "n_degenerate": 1, "n_training_rows": 0}
    found = str(FilePrediction(shards, 5, facts))
    assert found == "2,000 pairs, 5 folds averaged, 1 with equal or blank responses"
    facts |= {"n_truncated": 3, "flip_rate": 0.25, "position_bias": -0.0625}
    assert str(FilePrediction(shards, 1, facts)) == (
        "2,000 pairs, 1 fold, 3 truncated, 1 with equal or blank responses, flip rate 0.25, "
        "position bias -0.0625"
    )
    assert str(FilePrediction(shards, 1)) == "1 fold"
