"""The report of a run: one HTML file with figures, ``report.html``, and ``figures/*.svg``.

The page has no scripts and loads nothing. Texts in it are untrusted: Jinja escapes every value,
matplotlib escapes the texts of figures, and a Content-Security-Policy forbids scripts and requests.
"""

from __future__ import annotations

import errno
import html
import json
import logging
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from tiewise.errors import RunError, TiewiseError
from tiewise.evaluation.references import BAYES_COLUMNS
from tiewise.files import write_bytes
from tiewise.report import cases, comparisons, sections
from tiewise.report.content import Omission, ReportData, Section
from tiewise.report.figures import embed_svg, to_svg
from tiewise.report.findings import find_results
from tiewise.report.heading import describe_run, list_settings
from tiewise.report.text import escape_markdown, flatten
from tiewise.runs.folder import RunFolder
from tiewise.runs.listing import format_command
from tiewise.runs.references import find_comparable_runs, score_run, sum_leaks
from tiewise.runs.tables import read_folds, read_oof

if TYPE_CHECKING:
    import jinja2

if sys.platform == "win32":
    from pathlib import WindowsPath as _Path
else:
    from pathlib import PosixPath as _Path

_BUILDERS = (
    sections.build_scores,
    sections.build_confusion,
    sections.build_calibration,
    sections.build_position,
    sections.build_length,
    comparisons.build_slices,
    comparisons.build_leaderboard,
    comparisons.build_runs,
    sections.build_training,
    cases.build_errors,
)
_N_OPEN_CASES = 5  # shown without a click
_MAX_RUNS = 20  # with which a report compares
_log = logging.getLogger(__name__)


class PagePath(_Path):
    """The path of a report; as the last value of a notebook's cell it shows the page."""

    def _repr_html_(self) -> str | None:
        if not self.is_file():  # a path made from this one, such as its parent
            return None
        page = html.escape(self.read_text("utf-8"))
        style = "width:100%;height:42rem;border:0"
        return f'<iframe title="Report of a run" style="{style}" srcdoc="{page}"></iframe>'


def write_report(
    run: RunFolder, *, pairs: pd.DataFrame | None = None, out: Path | None = None
) -> PagePath:
    """Write ``report.html`` and ``figures/*.svg`` of a run; return the path of the page.

    `pairs` has all ids of the run; without it the sections that show texts are omitted. If `out`
    names an HTML file, the page alone is written there, and nothing to the run folder. Equal runs,
    texts and versions give equal bytes. RunError: no fold is finished, a row of the run is not in
    `pairs`, the run folder cannot be written or has a page with texts that `pairs` lacks, or the
    extra ``plot`` is not installed.
    """
    if out is not None and out.suffix != ".html":
        raise RunError(f"--out is {out}; expected a file that ends in .html.")
    if out is None and pairs is None:
        _keep_texts(run.path / "report.html")
    environment, about = make_environment(), read_json_object(run.env_path)
    data = gather(run, pairs)
    parts = [build(data) for build in _BUILDERS]
    written = [part for part in parts if isinstance(part, Section)]
    panels = [panel for part in written for panel in part.panels]
    drawn = {panel.name: to_svg(panel.draw, name=panel.name) for panel in panels}
    content = {
        "about": describe_run(data),
        "findings": find_results(data),
        "sections": written,
        "omissions": [part for part in parts if isinstance(part, Omission)],
        "figures": {panel.name: _embed(drawn[panel.name], panel.alt) for panel in panels},
        "n_open_cases": _N_OPEN_CASES,
        "settings": list_settings(run),
        "environment": flatten(about | {"command": format_command(about)}),
        "inputs": _describe_inputs(run),
        "counts": flatten(data.scores.counts),
        "uniform": f"{math.log(data.scores.n_classes):.3f}",
    }
    page = environment.get_template("report.html.jinja").render(content).encode()
    if out is not None:
        write_bytes(out, page)
        return PagePath(out)
    files = {f"figures/{name}.svg": svg for name, svg in drawn.items()} | {"report.html": page}
    return PagePath(_write_files(run, files))


def gather(run: RunFolder, pairs: pd.DataFrame | None) -> ReportData:
    """Read and compute everything that a report is made of; raises as :func:`write_report`."""
    oof, folds = read_oof(run), read_folds(run)
    labelled = oof[oof["label"].notna()].reset_index(drop=True)
    if labelled.empty:
        raise RunError(f"{run.oof_path} has no row with a label; a report needs labels.")
    texts = None if pairs is None else _find_texts(labelled, pairs, run)
    if pairs is not None and set(BAYES_COLUMNS) <= set(pairs) - set(folds):
        folds = folds.merge(pairs[["id", *BAYES_COLUMNS]], on="id", how="left")
    counts = sum_leaks(run, run.finished_folds())
    scores = score_run(run, oof, folds=folds, counts=counts)
    return ReportData(run, labelled, folds, scores, texts, _read_others(run, labelled))


def _read_others(run: RunFolder, oof: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Return the predictions of the newest runs that predicted the same rows, by name."""
    found: dict[str, pd.DataFrame] = {}
    for other in find_comparable_runs(run):
        try:
            table = read_oof(other)
        except (TiewiseError, OSError) as error:  # a damaged run does not stop the report
            _log.warning("%s is not compared: %s", other.path, error)
            continue
        if table["id"].isin(oof["id"]).any() and len(found) < _MAX_RUNS:
            found[other.name] = table
    return found


def make_environment() -> jinja2.Environment:
    """Return the Jinja environment of all templates: values are escaped, unknown names refused."""
    try:
        import jinja2
        from markupsafe import Markup
    except ImportError as error:
        raise RunError("Reports and cards need jinja2: run pip install 'tiewise[plot]'.") from error
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("tiewise.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    # The result contains no markup any more; a second escaping would be visible.
    environment.filters["markdown"] = lambda text: Markup(escape_markdown(str(text)))  # noqa: S704
    return environment


def read_json_object(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file; an empty one if the file is missing or damaged."""
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def _keep_texts(page_path: Path) -> None:
    """Refuse to replace a page that shows texts by one without them."""
    if page_path.is_file() and b'id="errors"' in page_path.read_bytes():
        raise RunError(
            f"{page_path} shows texts, and the texts of the run were not found: the page is kept. "
            "Name the data files of the run with --data, or another place for a page without "
            "texts with --out."
        )


def _write_files(run: RunFolder, files: dict[str, bytes]) -> Path:
    """Write files into the run folder; return the path of the last one."""
    path = run.path
    try:
        for name, content in files.items():
            write_bytes(path := run.path / name, content)
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise
        raise RunError(
            f"{run.path} cannot be written: {error.strerror}. Name another place for the page: "
            "--out report.html."
        ) from error
    return path


def _embed(svg: bytes, alt: str) -> Any:
    """Return a figure as an element of the page."""
    from markupsafe import Markup

    return Markup(embed_svg(svg, alt=alt))  # noqa: S704 - XML with every text escaped


def _find_texts(oof: pd.DataFrame, pairs: pd.DataFrame, run: RunFolder) -> pd.DataFrame:
    """Return the rows of `pairs` that belong to those of `oof`, in their order."""
    texts = pairs.drop_duplicates("id").set_index("id").reindex(oof["id"])
    missing = texts["prompt"].isna().to_numpy()
    if missing.any():
        raise RunError(
            f"{missing.sum():,} of {len(oof):,} rows of run {run.name} are not in the data, the "
            f"first is id={oof['id'][missing].iloc[0]}. Name the data files of the run with --data."
        )
    return texts.reset_index()


def _describe_inputs(run: RunFolder) -> dict[str, str]:
    """Return the data files of a run, and the digests of data, backbone and template."""
    sources = read_json_object(run.data_path).get("sources", [])
    inputs: dict[str, Any] = {f"source {k}": source for k, source in enumerate(sources, 1)}
    identities = [
        read_json_object(run.fold(fold).fingerprint_path) for fold in run.finished_folds()
    ]
    for name in ("data", "backbone", "template"):
        inputs[name] = sorted({str(known[name]) for known in identities if known.get(name)})
    return flatten({name: value for name, value in inputs.items() if value})
