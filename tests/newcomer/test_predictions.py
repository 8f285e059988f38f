"""The predictions of any judge are scored, or the message has what to type."""

from __future__ import annotations

import json

import pandas as pd
import pytest

N = 40
EVALUATE = "tiewise evaluate --data votes.csv --json --predictions"


@pytest.fixture(scope="module")
def votes(folder):
    """Write votes with ids."""
    texts = {name: [f"{name} {i}" for i in range(N)] for name in ("prompt", "response_a")}
    texts["response_b"] = [f"longer response_b {i}" for i in range(N)]
    table = pd.DataFrame({"id": [f"q{i}" for i in range(N)], **texts})
    table["winner"] = [("A", "B", "tie", "A")[i % 4] for i in range(N)]
    table.to_csv(folder / "votes.csv", index=False)
    return table


def probs(names, values, votes):
    """Return predictions in another order than the votes."""
    columns = dict(zip(names, values, strict=True))
    return pd.DataFrame({"id": votes["id"][::-1], **columns})


OURS = ("prob_a", "prob_b", "prob_tie")


def test_rounded_probabilities(votes, folder, type_command):
    """Probabilities that do not sum to 1 are refused with the flag that helps."""
    probs(OURS, (0.33, 0.33, 0.33), votes).to_csv(folder / "rounded.csv", index=False)
    assert "--normalize" in type_command(f"{EVALUATE} rounded.csv", status=2).err
    found = json.loads(type_command(f"{EVALUATE} rounded.csv --normalize").out)
    assert found["log_loss"]["value"] == pytest.approx(1.0986, abs=1e-4)


def test_missing_predictions(votes, folder, type_command):
    """Pairs without a prediction are refused with their number and ids, or counted."""
    probs(OURS, (0.5, 0.3, 0.2), votes).iloc[3:].to_csv(folder / "few.csv", index=False)
    refused = type_command(f"{EVALUATE} few.csv", status=2)
    assert "no prediction for 3 of 40 pairs, the first ids q37, q38, q39" in refused.err
    found = json.loads(type_command(f"{EVALUATE} few.csv --allow-missing").out)
    assert (found["n"], found["counts"]["n_missing_predictions"]) == (N - 3, 3)


def test_submission_of_kaggle(votes, folder, type_command):
    """Kaggle's columns are known, also next to others."""
    names = [f"winner_{name}" for name in ("model_a", "model_b", "tie")]
    table = probs(names, (0.5, 0.3, 0.2), votes).assign(model="gpt")
    table.to_csv(folder / "submission.csv", index=False)
    found = json.loads(type_command(f"{EVALUATE} submission.csv").out)
    assert found["accuracy"]["value"] == 0.5


def test_verdicts_of_a_language_model(votes, folder, type_command):
    """Words for winners have an accuracy with its interval, and a warning about log loss."""
    verdicts = votes[["id"]].assign(winner=votes["winner"].map("[[{}]]".format))
    verdicts["winner"] = verdicts["winner"].replace({"[[tie]]": "[[C]]"})
    verdicts.loc[:9, "winner"] = "[[B]]"
    verdicts.to_csv(folder / "verdicts.csv", index=False)
    found = type_command(f"{EVALUATE} verdicts.csv")
    scores = json.loads(found.out)["accuracy"]
    assert scores["value"] == pytest.approx((30 + 3) / N, abs=0.03)
    assert scores["low"] < scores["value"] < scores["high"]
    assert "The predictions are verdicts" in found.err
    assert "Compare accuracy" in found.err
