"""The audit of a file begins with what is wrong with it."""

import json


def test_audit_begins_with_findings(type_command):
    """The first lines are findings, worst first; ``--json`` has them with their severity."""
    type_command("tiewise simulate --n 60 --out votes.csv")
    lines = type_command("tiewise audit votes.csv").out.splitlines()
    assert lines[0] == "findings"
    assert lines[1].split()[0] == "medium"
    assert "use group folds (the default)" in " ".join(" ".join(lines[1:4]).split())
    assert max(map(len, lines)) <= 100
    findings = json.loads(type_command("tiewise audit votes.csv --json").out)["findings"]
    assert findings[0]["severity"] == "medium"
    assert {"severity", "text"} == set(findings[0])
