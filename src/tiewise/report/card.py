"""The model card of an adapter or an export: what it is for, how good it was, where it fails.

Numbers come from the run's own files, with their intervals, and go into the front matter as well,
where the hub reads them. An export already has a card that says how to load it; that one is
completed, not replaced. Names from data and files are made one short line first: the front matter
is YAML and the rest is Markdown, and neither may be broken or extended by a file's name.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from tiewise.config.identity import public_name
from tiewise.config.run_config import BASELINE, RunConfig
from tiewise.errors import RunError
from tiewise.evaluation.intervals import Interval
from tiewise.evaluation.references import RunScores
from tiewise.files import write_bytes
from tiewise.report.bias_tables import lead_of_longer
from tiewise.report.diagnostics import labelled
from tiewise.report.excerpts import label_text
from tiewise.report.pages import flatten, make_environment
from tiewise.report.sections import SCORE_NAMES, read_facts, show, word
from tiewise.runs.folder import FoldFolder, RunFolder
from tiewise.runs.tables import read_fold_oof, read_folds, read_oof
from tiewise.serving.export_card import UNKNOWN, find_base_model, find_licence

_log = logging.getLogger(__name__)
METRICS = ("log_loss", "accuracy", "brier", "ece", "decisive_accuracy")
_MEASURED = "<!-- measured by tiewise -->"
_TASK = "text-classification"


def write_card(
    folder: Path,
    run: RunFolder,
    *,
    fold: int | None = None,
    scores: Mapping[str, Any] | None = None,
    oof: pd.DataFrame | None = None,
) -> Path:
    """Write the ``README.md`` of a model, or complete the one an export has.

    Parameters
    ----------
    folder
        An adapter's or an export's folder.
    run
        The run it comes from.
    fold
        The fold it was fitted in; None for all finished folds together.
    scores
        What ``scores.json`` holds; read from the fold (or the run) when None.
    oof
        The predictions those scores are of; read from the fold (or the run) when None.

    Returns
    -------
    Path
        Of ``README.md``; writing it twice gives the same bytes.

    Raises
    ------
    RunError
        When nothing was scored yet, or huggingface_hub is not installed.
    """
    place = run if fold is None else run.fold(fold)
    scores = _read_scores(place) if scores is None else scores
    if oof is None:
        oof = read_fold_oof(place) if isinstance(place, FoldFolder) else read_oof(place)
    data = read_facts(run.data_path)
    card = _open_card(folder, run.config)
    front = card.data.to_dict()
    front.update(_describe_results(run, fold, scores, data))
    card.data = type(card.data)(**front)
    card.text = f"{_text_before(card.text, run)}\n{_MEASURED}\n{_measure(run, scores, oof, data)}"
    path = folder / "README.md"
    write_bytes(path, str(card).encode())
    return path


def write_fold_card(run: RunFolder, fold: int, oof: pd.DataFrame, scores: RunScores) -> None:
    """Write the card beside a fold's adapter; where that needs what is not installed, say so.

    Parameters
    ----------
    run, fold
        The fold; its own ``scores.json`` need not stand yet.
    oof, scores
        Its predictions and their scores.
    """
    folder = run.fold(fold).adapter_dir
    try:
        write_card(folder, run, fold=fold, scores=scores.to_dict(), oof=oof)
    except RunError as error:
        _log.warning("%s has no model card: %s", folder, error)


def _read_scores(place: RunFolder | FoldFolder) -> Mapping[str, Any]:
    scores = read_facts(place.scores_path)
    if "log_loss" not in scores:
        raise RunError(f"{place.scores_path} holds no scores. Run tiewise evaluate {place.path}.")
    return scores


def _open_card(folder: Path, config: RunConfig) -> Any:
    """Return the card in a folder, or a new one with what is known before any number."""
    try:
        import huggingface_hub
    except ImportError as error:
        raise RunError(
            "A model card needs huggingface_hub: pip install 'tiewise[train]'."
        ) from error
    path = folder / "README.md"
    if path.is_file():
        return huggingface_hub.ModelCard(path.read_text("utf-8"))
    licence = _licence_of(config.model.backbone)
    front = huggingface_hub.ModelCardData(
        license="other" if licence == UNKNOWN else licence,
        license_name=UNKNOWN if licence == UNKNOWN else None,
        base_model=find_base_model(config.model.backbone),
        library_name="tiewise",
        pipeline_tag=_TASK,
        tags=["tiewise", "pairwise-preference"],
    )
    return huggingface_hub.ModelCard(f"---\n{front.to_yaml()}\n---\n")


def _text_before(text: str, run: RunFolder) -> str:
    """Return what stands before the measured part: an export's own words, or an introduction."""
    before = text.split(_MEASURED, 1)[0].strip()
    if before:
        return f"\n{before}\n"
    backbone = run.config.model.backbone
    name = label_text(run.name)
    # Inside a fence Markdown is not read, but the shell and Python are: quoted for them.
    plain = name if re.fullmatch(r"[\w.-]+", name) else "RUN"
    words: dict[str, Any] = {
        "run": name,
        "plain_run": plain,
        "backbone": label_text(public_name(backbone)),
    }
    words |= {"licence": _licence_of(backbone), "unknown": UNKNOWN}
    words["is_swapped"] = run.config.predict.swap
    return _render("card_introduction.md.jinja", words)


def _licence_of(backbone: str) -> str | None:
    """Return the licence of a backbone, or None where there is no backbone."""
    return None if backbone == BASELINE else find_licence(backbone, Path(backbone))


def _describe_results(
    run: RunFolder, fold: int | None, scores: Mapping[str, Any], data: Mapping[str, Any]
) -> dict[str, Any]:
    """Return front matter that holds the scores with their intervals."""
    from huggingface_hub import EvalResult

    known = {name: _interval(scores.get(name)) for name in METRICS}
    results = [
        EvalResult(
            task_type=_TASK,
            task_name="Which of two responses do people prefer?",
            dataset_type="pairs",
            dataset_name=label_text(", ".join(_file_names(data)) or "unknown", 120),
            dataset_split="out of fold" if fold is None else f"fold {fold}, held out",
            dataset_revision=label_text(data.get("digest", UNKNOWN), 80),
            metric_type=name,
            metric_name=f"{SCORE_NAMES[name]}, out of fold",
            metric_value=interval.value,
            metric_args={**interval.to_dict(), "confidence_level": scores["confidence_level"]},
        )
        for name, interval in known.items()
        if pd.notna(interval.value)
    ]
    return {"model_name": label_text(run.name), "eval_results": results, "metrics": list(METRICS)}


def _measure(
    run: RunFolder, scores: Mapping[str, Any], oof: pd.DataFrame, data: Mapping[str, Any]
) -> str:
    """Return the part of the card that numbers fill."""
    predictors = {"this model": scores, **scores.get("baselines", {})}
    defaults = flatten(RunConfig().to_dict())
    settings = flatten(run.config.to_dict())
    settings["model.backbone"] = label_text(public_name(settings["model.backbone"]))
    for name in ("data.data", "data.extra_data"):
        del settings[name]  # paths are nobody else's; the files are named beside their digests
    longer = lead_of_longer(labelled(oof), read_folds(run))
    values = {
        "predictors": [word(name) for name in predictors],
        "table": [
            [
                SCORE_NAMES[name],
                *(show(_interval(of.get(name)), name) for of in predictors.values()),
            ]
            for name in METRICS
        ],
        "n": scores["n"],
        "n_groups": scores["n_groups"],
        "few_groups": scores.get("few_groups", False),
        "sources": [label_text(source, 120) for source in data.get("sources", [])],
        "digest": label_text(data.get("digest", UNKNOWN), 80),
        "counts": flatten({**data.get("counts", {}), **scores.get("counts", {})}),
        "position": _position(scores),
        "is_symmetric": run.config.model.backbone == BASELINE,
        "longer": {name: show(interval) for name, interval in longer.items()},
        "ece": show(_interval(scores.get("ece"))),
        "settings": {name: text for name, text in settings.items() if defaults[name] != text},
        "versions": flatten(read_facts(run.path / "env.json").get("packages", {})),
    }
    return _render("card.md.jinja", values)


def _position(scores: Mapping[str, Any]) -> dict[str, str]:
    measured = scores.get("position_bias") or {}
    return {
        name: show(_interval(interval), "share" if name.startswith("flip") else "")
        for name, interval in measured.items()
    }


def _interval(ends: Mapping[str, Any] | None) -> Interval:
    values = ((ends or {}).get(name) for name in ("value", "low", "high"))
    return Interval(*(float("nan") if value is None else float(value) for value in values))


def _file_names(data: Mapping[str, Any]) -> list[str]:
    """Return the names of the files without their digests."""
    return [re.sub(r" [0-9a-f]{64}$", "", str(source)) for source in data.get("sources", [])]


def _render(template: str, values: Mapping[str, Any]) -> str:
    return make_environment().get_template(template).render(values)
