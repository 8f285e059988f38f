"""A cascade asks the dear run about close calls only, and says what that costs."""

import json
import math
import shutil

import numpy as np
import pandas as pd
import pytest

from run_folders import fit_small, simulated_tables, write_run
from tiewise.assessment.calibrated import save_calibration
from tiewise.cli import main
from tiewise.ensembles.cascade import weigh_cascade
from tiewise.errors import ConfigError, RunError
from tiewise.evaluation.calibrate import CalibrationVerdict
from tiewise.evaluation.orders import is_close, log_softmax
from tiewise.evaluation.scores import compare, evaluate
from tiewise.evaluation.temperature import Calibration
from tiewise.pairs.labels import LOGIT_COLUMNS, PROB_COLUMNS, swap_probs
from tiewise.pairs.table import swap_pairs
from tiewise.predicting.predictors import open_cascade
from tiewise.runs.folder import open_run
from tiewise.runs.tables import read_oof
from tiewise.simulation.simulate import simulate

_, FOLDS, OOF = simulated_tables(200)
LABELS = OOF["label"].to_numpy(int)


def cheap_oof():
    """Return worse predictions in one order, without a count of tokens."""
    noise = np.random.default_rng(1).normal(0, 0.8, (len(OOF), 3))
    oof = OOF[["id", "fold", "label", "group", *PROB_COLUMNS, *LOGIT_COLUMNS]].copy()
    oof[LOGIT_COLUMNS] = log_softmax(OOF[LOGIT_COLUMNS].to_numpy() + noise)
    oof[PROB_COLUMNS] = np.exp(oof[LOGIT_COLUMNS])
    return oof


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Write a cheap run and a dear one."""
    folder = tmp_path_factory.mktemp("artifacts")
    cheap = write_run(folder, FOLDS, cheap_oof(), name="cheap", preset="baseline", is_scored=False)
    return folder, cheap, write_run(folder, FOLDS, OOF, name="dear", is_scored=False)


@pytest.fixture(scope="module")
def cascade(runs):
    """Weigh three shares, and the ends."""
    return weigh_cascade(*runs[1:], shares=(0.9, 0.5), n_resamples=99)


def test_the_ends_are_the_runs_alone(cascade):
    """No row goes on, or every row: no change from that run, and its own log loss."""
    options = {"groups": OOF["group"], "n_resamples": 99}
    none, *_, every = cascade.stages
    assert (none.dear_share, none.dear_tokens, every.dear_share) == (0.0, 0.0, 1.0)
    assert (none.from_cheap.value, every.from_dear.value) == (0.0, 0.0)
    assert (
        none.log_loss == evaluate(LABELS, cheap_oof()[PROB_COLUMNS].to_numpy(), **options).log_loss
    )
    assert every.log_loss == evaluate(LABELS, OOF[PROB_COLUMNS].to_numpy(), **options).log_loss


def test_close_calls_are_the_dear_runs(cascade):
    """Each stage is scored from exactly the rows that are close."""
    cheap, dear = cheap_oof(), OOF[PROB_COLUMNS].to_numpy()
    for stage in cascade.stages[1:-1]:
        close = is_close(cheap[LOGIT_COLUMNS].to_numpy(), stage.dear_when)
        mixed = np.where(close[:, None], dear, cheap[PROB_COLUMNS].to_numpy())
        expected = compare(LABELS, mixed, dear, groups=OOF["group"], n_resamples=99)
        assert stage.from_dear == expected
        assert stage.dear_share == close.mean()
        assert stage.dear_tokens == pytest.approx((2 * OOF["n_tokens"] * close).mean())
        assert stage.cheap_tokens == 0


def test_a_calibrated_run_is_weighed_as_it_will_predict(runs, tmp_path):
    """A cheap run that is called half as sure hands on the rows that it then does."""
    folder, cheap, dear = runs
    artifacts = shutil.copytree(folder, tmp_path / "artifacts")
    cheap, dear = (open_run(run.name, artifacts) for run in (cheap, dear))
    half = Calibration("temperature", (0.5, 0.5, 0.5))
    save_calibration(cheap, CalibrationVerdict(half, {}, OOF[PROB_COLUMNS].to_numpy(), 40))
    _, stage, _ = weigh_cascade(cheap, dear, shares=(0.6,), n_resamples=99).stages
    expected = is_close(0.5 * read_oof(cheap)[LOGIT_COLUMNS].to_numpy(), 0.6)
    assert stage.dear_share == pytest.approx(expected.mean())


def test_a_lower_share_sends_more_rows_on(cascade):
    """So it costs more, never less."""
    costs = [stage.dear_tokens for stage in cascade.stages]
    assert costs == sorted(costs)


def test_what_cannot_be_weighed_is_refused(runs, tmp_path):
    """A share out of range, and runs over other rows."""
    _, cheap, dear = runs
    with pytest.raises(ConfigError, match=r"--shares is 1\.5"):
        weigh_cascade(cheap, dear, shares=(1.5,))
    others = OOF.assign(id=OOF["id"].astype(str) + "x")
    other = write_run(tmp_path, FOLDS.assign(id=others["id"]), others, name="o", is_scored=False)
    with pytest.raises(RunError, match="no row in common"):
        weigh_cascade(cheap, other)


def test_the_command_shows_a_table_or_json(runs, capsys):
    """A line for each share between the two runs alone."""
    words = ["cascade", "cheap", "dear", "--shares", "0.5", "--artifacts", str(runs[0])]
    assert main(words) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[2:]] == ["no", "0.5", "every"]
    assert main([*words, "--json"]) == 0
    stages = json.loads(capsys.readouterr().out)["stages"]
    assert [stage["dear_when"] for stage in stages] == [None, 0.5, 0.0]
    assert math.isfinite(stages[1]["log_loss"]["low"])


def test_the_dear_one_is_asked_about_close_pairs_only():
    """Its answers hold for them, the cheap one's for the rest, whatever the order of A and B."""
    pairs = simulate(30, seed=4)
    asked = []

    def judge(scale):
        def predict(rows, _):
            asked.append(len(rows))
            odd = rows["response_a"].map(str).map(len) - rows["response_b"].map(str).map(len)
            logits = np.stack([scale * odd, -scale * odd, 0 * odd], axis=1)
            table = pd.DataFrame(np.exp(log_softmax(logits)), columns=PROB_COLUMNS)
            return table.assign(n_tokens=int(1000 * scale), n_truncated=len(rows) == 30)

        return predict

    cheap, dear = judge(0.001), judge(0.1)
    table = open_cascade(cheap, dear, 0.95)(pairs, None)
    close = table["is_dear"].to_numpy()
    assert 0 < close.sum() < 30
    assert asked == [30, close.sum()]
    expected = np.where(
        close[:, None], dear(pairs, None)[PROB_COLUMNS], cheap(pairs, None)[PROB_COLUMNS]
    )
    np.testing.assert_array_equal(table[PROB_COLUMNS], expected)
    assert table["n_tokens"].tolist() == [1 + 100 * is_dear for is_dear in close]
    assert table["n_truncated"].tolist() == [1] * 30
    swapped = open_cascade(cheap, dear, 0.95)(swap_pairs(pairs), None)
    np.testing.assert_array_equal(swapped[PROB_COLUMNS], swap_probs(table[PROB_COLUMNS].to_numpy()))


def test_a_chunk_without_close_calls_has_the_same_columns():
    """Chunks become one file; a cheap run that reads no tokens still says that none were read."""
    pairs = simulate(8, seed=4)

    def cheap(rows, _):
        return pd.DataFrame([[0.6, 0.3, 0.1]] * len(rows), columns=PROB_COLUMNS)

    def dear(rows, options):
        return cheap(rows, options).assign(n_tokens=7, n_truncated=1)

    none, every = (open_cascade(cheap, dear, share)(pairs, None) for share in (0.9, 0.1))
    assert none.columns.tolist() == every.columns.tolist()
    assert (none["n_tokens"].sum(), every["n_tokens"].sum()) == (0, 56)
    assert none.dtypes.equals(every.dtypes)


def test_predict_takes_a_dear_run(tmp_path, monkeypatch, capsys):
    """From the command line; the two flags belong together."""
    monkeypatch.setattr("tiewise.baseline.parts._MOST_TREES", 10)
    for name, seed in (("cheap", 0), ("dear", 1)):
        fit_small(tmp_path, name, seed=seed)
    words = ["predict", "--run", "cheap", "--data", str(tmp_path / "pairs.csv")]
    words += ["--artifacts", str(tmp_path), "--dear", "dear"]
    out = tmp_path / "out.csv"
    assert main([*words, "--out", str(out)]) == 2
    assert "--dear-when" in capsys.readouterr().err
    assert main([*words, "--out", str(out), "--dear-when", "0.8"]) == 0
    table = pd.read_csv(out)
    assert 0 < table["is_dear"].mean() < 1
