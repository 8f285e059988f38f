"""The README and the tutorial can be followed in an empty folder, without torch.

The steps are repeated here, because these tests also run without the pages. ``tests/pages`` checks
that they are those of the pages.
"""

import shutil

import pytest

README = (
    "tiewise audit train.csv",
    "tiewise fit --preset baseline --data train.csv --folds all --run features",
    "tiewise evaluate features",
    "tiewise predict --run features --data test.csv --out probs.csv",
    "tiewise report features",
)
README_CODE = """\
import tiewise as tw  # no torch, a fraction of a second

run = tw.fit("train.csv", preset="baseline", run="mine")
print(run.scores)

judge = tw.Judge.from_pretrained("mine")
print(judge.score("Name three colours.", "Red, green, blue.", "Red."))  # P(A), P(B), P(tie)

votes = run.oof
print(tw.evaluate(votes["label"], votes[["prob_a", "prob_b", "prob_tie"]], groups=votes["group"]))
"""
TUTORIAL = (
    "tiewise simulate --n 500 --out votes.csv",
    "tiewise simulate --n 20 --seed 1 --out new.csv",
    "head -n 2 new.csv",
    "tiewise audit votes.csv",
    "tiewise fit --preset baseline --data votes.csv --folds all --run features",
    "tiewise evaluate features",
    "tiewise report features",
    "tiewise predict --run features --data new.csv --out probs.csv",
    "head -n 3 probs.csv",
    "tiewise predict --run features --data new.csv --out submission.csv --submission",
    "head -n 3 submission.csv",
)
TUTORIAL_CODE = """\
import tiewise as tw

judge = tw.Judge.from_pretrained("features")
probs = judge.score("Name three colours.", "Red, green and blue.", "I cannot answer that.")
print(probs.round(3))

run = tw.open_run("features")
votes = run.oof
print(votes[["id", "prob_a", "prob_b", "prob_tie", "label"]].head(3).round(3))

probs = votes[["prob_a", "prob_b", "prob_tie"]]
scores = tw.evaluate(votes["label"], probs, groups=votes["group"])
print("log loss", scores.log_loss)
print("accuracy", scores.accuracy)

axes = tw.plot.calibration("features")
axes.figure.savefig("calibration.svg")
"""


def follow(commands, code, type_command, folder):
    """Type commands in order, then run the code; return all that was printed."""
    printed = [type_command(line).out for line in commands]
    (folder / "typed.py").write_text(code, "utf-8")
    return "".join([*printed, type_command("python typed.py").out])


def test_readme_can_be_followed(type_command, folder):
    """The commands and the code for one's own votes succeed and print scores."""
    pytest.importorskip("matplotlib")
    for name, seed in (("train.csv", 0), ("test.csv", 1)):
        type_command(f"tiewise simulate --n 60 --seed {seed} --out {name}")
    text = follow(README, README_CODE, type_command, folder)
    assert text.count("log loss") >= 2
    assert (folder / "probs.csv").is_file()
    assert (folder / "artifacts/runs/features/report.html").is_file()


def test_tutorial_can_be_followed(type_command, folder):
    """The steps that need no torch succeed in order, and write what the text says."""
    pytest.importorskip("matplotlib")
    shutil.rmtree(folder)  # files of the README have the same names
    folder.mkdir()
    text = follow(TUTORIAL, TUTORIAL_CODE, type_command, folder)
    assert "better" in text
    assert (folder / "submission.csv").read_text("utf-8").startswith("id,winner_model_a,")
