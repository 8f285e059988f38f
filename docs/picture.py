"""Draw the README's figure: log loss of runs and of reference models, as one SVG file.

    python docs/picture.py baseline --out docs/picture.svg

The runs are compared on the rows that all of them predicted. The file has colours for light and
dark pages and loads nothing.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd

from tiewise.evaluation.references import RunScores, evaluate_tables
from tiewise.files import write_bytes
from tiewise.report.figures import VARIABLES, draw_log_loss, embed_svg, to_svg
from tiewise.runs.folder import open_run
from tiewise.runs.tables import read_folds, read_oof

NAMES = {
    "quickstart": "quickstart: small language model",
    "baseline": "baseline: feature model",
    "length_only": "length only",
    "class_prior": "class prior",
    "bayes": "Bayes (simulated data)",
}
DARK = {
    "--ink": "#e6edf3",
    "--muted": "#9aa5b1",
    "--line": "#30363d",
    "--paper": "#0d1117",
    "--blue": "#4aa3df",
}
FONT = "system-ui, -apple-system, 'Segoe UI', Helvetica, Arial, sans-serif"


def main() -> None:
    """Read the runs, draw, and write the file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+", help="names of finished runs")
    parser.add_argument("--artifacts", type=Path, default=Path("artifacts"))
    parser.add_argument("--out", type=Path, default=Path("docs/picture.svg"))
    arguments = parser.parse_args()
    found = score_shared(arguments.runs, arguments.artifacts)
    table = as_table(found)
    words = ", ".join(f"{line.name} {line.value:.3f}" for line in table.itertuples())
    svg = embed_svg(to_svg(lambda: draw_log_loss(table)), alt=f"Log loss: {words}")
    write_bytes(arguments.out, dress(svg).encode())
    print(f"{arguments.out}: {words}")


def score_shared(names: list[str], artifacts_dir: Path) -> dict[str, RunScores]:
    """Score each run on the rows that all of them predicted."""
    runs = {name: open_run(name, artifacts_dir) for name in names}
    tables = {name: read_oof(run).set_index("id") for name, run in runs.items()}
    shared = next(iter(tables.values())).index
    for table in tables.values():
        shared = shared.intersection(table.index)
    return {
        name: evaluate_tables(table.loc[shared].reset_index(), read_folds(runs[name]))
        for name, table in tables.items()
    }


def as_table(found: dict[str, RunScores]) -> pd.DataFrame:
    """Return a line per predictor: the runs, best first, then the references, Bayes last."""
    runs = sorted(found.items(), key=lambda each: each[1].log_loss.value)
    baselines = runs[0][1].baselines
    order = sorted(baselines, key=lambda name: (name == "bayes", baselines[name].log_loss.value))
    lines = [(name, scored.log_loss, True) for name, scored in runs]
    lines += [(name, baselines[name].log_loss, False) for name in order]
    return pd.DataFrame(
        [
            (NAMES.get(name, name), loss.value, loss.low, loss.high, is_run)
            for name, loss, is_run in lines
        ],
        columns=["name", "value", "low", "high", "is_run"],
    )


def dress(svg: str) -> str:
    """Give a page's SVG element what a page would: colours, a font, a ground, a width."""
    light = {variable: colour for colour, variable in VARIABLES.items()}
    rules = [f":root {{ {_declare(light)} }}"]
    rules += [f"@media (prefers-color-scheme: dark) {{ :root {{ {_declare(DARK)} }} }}"]
    rules += [f"svg {{ background: var(--paper); }} text {{ font-family: {FONT}; }}"]
    start = svg.index(">") + 1
    return f'{svg[: start - 1]} width="720">\n<style>{" ".join(rules)}</style>{svg[start:]}\n'


def _declare(colours: dict[str, str]) -> str:
    return " ".join(f"{name}: {colour};" for name, colour in colours.items())


if __name__ == "__main__":
    main()
