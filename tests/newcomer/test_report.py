"""A newcomer reads a report, on the command line and in a notebook."""

import pytest

pytest.importorskip("matplotlib")
pytest.importorskip("jinja2")


def test_report_says_what_was_found(type_command, folder):
    """The page names run, data and preset, and begins with findings in words."""
    type_command("tiewise simulate --n 300 --out train.csv")
    type_command("tiewise fit --preset baseline --data train.csv --folds all --run first")
    page = (folder / type_command("tiewise report first").out.strip()).read_text("utf-8")
    assert "<h1>first</h1>" in page
    for text in ("train.csv", "preset baseline (feature model)", "What was found"):
        assert text in page
    assert "the lengths of the responses alone</h3>" in page
    assert "lora" not in page
    code = "import tiewise as tw; print(tw.open_run('first').report()._repr_html_()[:7])"
    assert type_command(f'python -c "{code}"').out.strip() == "<iframe"
