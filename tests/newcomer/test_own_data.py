"""A newcomer's own files are read, or the message has what to type."""

from __future__ import annotations

import gzip
import json
import re
import shlex

import pandas as pd
import pytest

N = 12
WORDS = ["A", "b", "tie"]
TEXTS = {
    "prompt": [f"Question {i}?" for i in range(N)],
    "response_a": [f"answer {i}" for i in range(N)],
    "response_b": [f"another answer {i}" for i in range(N)],
}
FLAG = re.compile(r"(--columns (?:'[^']*'|\S+?))[?\s]")


def classes(found):
    """Return the numbers of wins of A and B and of ties in an audit printed as JSON."""
    counts = json.loads(found.out)["classes"]
    return [counts["A"], counts["B"], counts["tie"]]


@pytest.fixture(scope="module")
def votes(folder):
    """Write plain text with A, B and tie, and without ids."""
    table = pd.DataFrame(TEXTS).assign(winner=WORDS * 4)
    table.to_csv(folder / "votes.csv", index=False)
    return table


def test_plain_votes_are_read(votes, type_command):
    """A csv with A, B and tie, plain text and no id is read, and the ids are named."""
    found = type_command("tiewise audit votes.csv --json")
    assert classes(found) == [4, 4, 4]
    assert "votes.csv: there is no column id; ids are the row numbers, from 0" in found.err


def test_typed_suggestion_helps(votes, folder, type_command):
    """The flags that the messages suggest, typed as they are, lead to the table."""
    names = {"prompt": "question", "response_a": "answer_1", "response_b": "Answer 2"}
    own = votes.drop(columns="winner").rename(columns=names).assign(verdict=[0, 1, 2] * 4)
    own.to_csv(folder / "own.csv", index=False)
    line = "tiewise audit own.csv --json"
    for expected in ("looks like kaggle", "does not say who won"):
        refused = type_command(line, status=2)
        assert expected in refused.err
        line += " " + FLAG.search(refused.err + " ")[1]
    assert classes(type_command(line)) == [4, 4, 4]
    other = line.replace("a=0,b=1,tie=2", "tie=0,a=1,b=2")
    assert other != line
    flags = shlex.join(shlex.split(line)[4:])
    fitted = type_command(f"tiewise fit --preset baseline --data own.csv --run own {flags}")
    assert "12 pairs" in fitted.err


def test_misspelt_column_is_named(votes, folder, type_command):
    """The nearest format and the misspelt column are named; so is a column that does not exist."""
    votes.rename(columns={"response_b": "respone_b"}).to_csv(folder / "typo.csv", index=False)
    refused = type_command("tiewise audit typo.csv", status=2)
    assert "typo.csv looks like kaggle; response_b is missing" in refused.err
    assert "--columns response_b=respone_b" in refused.err
    refused = type_command("tiewise audit typo.csv --columns response_b=respons_b", status=2)
    assert "there is no column respons_b; did you mean respone_b?" in refused.err


def says(text):
    """Return the message of an answer."""
    return [{"role": "assistant", "content": text}]


CONTEXT = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Sky?"}]
RECORDS = {
    "alpaca_eval": {
        "instruction": "Sky?", "output_1": "blue", "output_2": "red", "preference": 1.0,
        "generator_1": "m", "generator_2": "n",
    },
    "helpsteer3": {
        "context": CONTEXT, "response1": "blue", "response2": "red", "overall_preference": -2,
        "domain": "stem", "language": "english",
    },
    "nemo_rl": {
        "context": CONTEXT,
        "completions": [{"rank": n, "completion": says(f"answer {n}")} for n in range(3)],
    },
    "preference": {"prompt": "Sky?", "chosen": "blue", "rejected": "red", "margin": 0.5},
}  # fmt: skip


@pytest.mark.parametrize("name", RECORDS)
def test_formats_of_the_field(name, folder, type_command):
    """Data sets of the field are known by their columns, and none of these is left unread."""
    lines = [json.dumps(RECORDS[name]) + "\n"] * N
    (folder / f"{name}.jsonl").write_text("".join(lines))
    found = json.loads(type_command(f"tiewise audit {name}.jsonl --json").out)
    assert found["rows"]["read"] == N * (3 if name == "nemo_rl" else 1)
    assert "columns not read" not in found["omitted"]


def test_packed_piped_and_split_files(votes, folder, type_command):
    """Compressed text, a folder of parquet shards and a pipe are the same data."""
    text = votes.to_csv(index=False)
    (folder / "votes.csv.gz").write_bytes(gzip.compress(text.encode()))
    (folder / "shards").mkdir()
    for shard in range(2):
        name = f"train-0000{shard}-of-00002.parquet"
        votes[shard * 6 : shard * 6 + 6].to_parquet(folder / "shards" / name)
    assert classes(type_command("tiewise audit votes.csv.gz --json")) == [4, 4, 4]
    assert classes(type_command("tiewise audit shards --json")) == [4, 4, 4]
    assert classes(type_command("tiewise audit - --json", stdin=text)) == [4, 4, 4]
    refused = type_command("tiewise fit --preset baseline --data -", stdin=text, status=2)
    assert "tiewise convert - --out pairs.parquet" in refused.err


def test_tool_messages_are_refused_by_name(folder, type_command):
    """A role that the template cannot show is refused by row and name; a system text is kept."""
    asked = CONTEXT[1:]
    tool = [*asked, *says("I look."), {"role": "tool", "content": "42"}, *says("It is 42.")]
    rows = [
        {"conversation_a": talk, "conversation_b": talk, "winner": "A"}
        for talk in (tool, [*CONTEXT, *says("blue")])
    ]
    (folder / "talks.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = type_command("tiewise audit talks.jsonl --json")
    assert "row 0: a message's role is 'tool'; expected one of user, system" in found.err
    counts = json.loads(found.out)["rows"]
    assert (counts["read"], counts["rejected"], counts["system text"]) == (1, 1, 1)
