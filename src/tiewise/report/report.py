"""One page that says how good a run is and where it fails: ``report.html``.

The page is one file without scripts that loads nothing, so it can be mailed, printed and opened
years later. Texts in it are strangers': every value goes through Jinja's autoescape, figures are
drawn by us and serialised as XML, and a Content-Security-Policy forbids scripts and any request
should both fail.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from tiewise.errors import RunError
from tiewise.evaluation.references import BAYES_COLUMNS
from tiewise.files import write_bytes
from tiewise.report import bias_chapters, chapters, slice_chapter
from tiewise.report.cases import build_cases
from tiewise.report.diagnostics import labelled
from tiewise.report.drawing import embed_svg, to_svg
from tiewise.report.pages import as_markup, flatten, make_environment
from tiewise.report.sections import Omission, Picture, ReportData, Section, read_facts
from tiewise.runs.folder import RunFolder
from tiewise.runs.references import score_run
from tiewise.runs.tables import read_folds, read_oof


def write_report(run: RunFolder, *, pairs: pd.DataFrame | None = None) -> Path:
    """Write a run's ``report.html`` and ``figures/*.svg``.

    Parameters
    ----------
    run
        A run with at least one finished fold.
    pairs
        The pairs table the run was made with, or any that holds its ids. Without it the sections
        that need texts are left out and named.

    Returns
    -------
    Path
        Of ``report.html``; the same bytes for the same run, texts and versions.

    Raises
    ------
    RunError
        When nothing is finished, or a row's texts are not in `pairs`.
    """
    environment = make_environment()
    material = gather(run, pairs)
    parts = build_sections(material)
    content = {
        "run_name": run.name,
        "sections": [part for part in parts if isinstance(part, Section)],
        "omissions": [part for part in parts if isinstance(part, Omission)],
        "pictures": {
            part.name: _write_picture(run, part.picture)
            for part in parts
            if isinstance(part, Section) and part.picture
        },
        "material": material,
        "settings": flatten(material.config),
        "changed": _changed_settings(material),
        "environment": flatten(material.environment),
        "inputs": _describe_inputs(material),
        "counts": flatten(material.scores.counts),
    }
    path = run.path / "report.html"
    write_bytes(path, environment.get_template("report.html.jinja").render(content).encode())
    return path


def gather(run: RunFolder, pairs: pd.DataFrame | None) -> ReportData:
    """Read and compute what a report is made of.

    Raises
    ------
    RunError
        When nothing is finished or labelled, or a row's texts are not in `pairs`.
    """
    oof, folds = read_oof(run), read_folds(run)
    scored = labelled(oof)
    if scored.empty:
        raise RunError(f"{run.oof_path} has no labelled row: there is nothing to report.")
    texts = None if pairs is None else _texts_of(scored, pairs, run)
    if pairs is not None and set(BAYES_COLUMNS) <= set(pairs) - set(folds):
        folds = folds.merge(pairs[["id", *BAYES_COLUMNS]], on="id", how="left")
    data = read_facts(run.data_path)
    return ReportData(
        run=run,
        oof=scored,
        folds=folds,
        scores=score_run(run, oof, folds=folds),
        pairs=texts,
        config=run.config.to_dict(),
        environment=read_facts(run.path / "env.json"),
        data=data,
        identities={
            fold: read_facts(run.fold(fold).identity_path) for fold in run.finished_folds()
        },
    )


def build_sections(material: ReportData) -> list[Section | Omission]:
    """Return every part of the report, in order."""
    builders = [
        chapters.build_headline,
        chapters.build_calibration,
        chapters.build_confusion,
        bias_chapters.build_length,
        bias_chapters.build_position,
        slice_chapter.build_slices,
        chapters.build_learning,
        build_cases,
    ]
    return [build(material) for build in builders]


def _write_picture(run: RunFolder, picture: Picture) -> str:
    """Write a section's figure as a file and return it as an element of the page."""
    svg = to_svg(picture.draw())
    write_bytes(run.path / "figures" / f"{picture.name}.svg", svg)
    # Our own XML, in which ElementTree has escaped every name from data.
    return as_markup(embed_svg(svg, name=picture.name, alt=picture.alt))


def _texts_of(oof: pd.DataFrame, pairs: pd.DataFrame, run: RunFolder) -> pd.DataFrame:
    """Return the rows of `pairs` that belong to those of `oof`, in their order."""
    texts = pairs.drop_duplicates("id").set_index("id").reindex(oof["id"])
    missing = texts["prompt"].isna().to_numpy()
    if missing.any():
        raise RunError(
            f"{missing.sum():,} of {len(oof):,} rows of run {run.name} are not in the data given "
            f"(the first is id={oof['id'][missing].iloc[0]}). Give the files the run was made with."
        )
    return texts.reset_index()


def _changed_settings(material: ReportData) -> set[str]:
    """Names of the settings that are not the defaults."""
    defaults = flatten(type(material.run.config)().to_dict())
    return {name for name, value in flatten(material.config).items() if defaults[name] != value}


def _describe_inputs(material: ReportData) -> dict[str, str]:
    """Name what went in: files, and digests over the finished folds."""
    sources = {f"source {k}": text for k, text in enumerate(material.data.get("sources", []), 1)}
    digests: dict[str, set[str]] = {}
    for identity in material.identities.values():
        for name in ("data", "backbone", "template"):
            if identity.get(name):
                digests.setdefault(name, set()).add(str(identity[name]))
    return flatten({**sources, **{name: sorted(found) for name, found in digests.items()}})
